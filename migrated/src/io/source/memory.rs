//! The memory's operations: QEMU sends into a socket of ours, and is asked how far it is.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use serde_json::json;
use tokio::net::UnixListener;
use tokio::time::timeout;

use super::context::Context;
use super::prepare;
use crate::io::ram::RamOut;
use crate::link::{Class, Label};
use crate::qmp::MigrateInfo;
use crate::switchover::{RamLimits, Sample, ram_limits};

/// QEMU is asked at least this often, should an event be lost.
const ASKED_EVERY: Duration = Duration::from_millis(100);

/// How long QEMU may take to dial a socket on its own host.
const DIAL_LIMIT: Duration = Duration::from_secs(5);

/// Has QEMU send memory through the link.
pub async fn start(context: &Arc<Context>) -> Result<()> {
    let qmp = context.machine.qmp();
    let link = context.link()?;
    let socket = context.socket("ram")?;
    let listener = UnixListener::bind(&socket).context("cannot listen for QEMU's memory")?;
    context.machine.layout().lend_socket(&socket)?;
    qmp.set_capabilities(&[("events", true), ("pause-before-switchover", true), ("return-path", true)])
        .await?;
    let now = link.status();
    let sample = Sample {
        goodput_bytes_per_s: now.goodput_bytes_per_s,
        rtt: Duration::from_micros(now.rtt_us),
        ..Sample::default()
    };
    set_limits(context, ram_limits(&sample, 1.0, 0, context.options.max_downtime)).await?;
    // From `migrate` on QEMU itself refuses that any is plugged in or out.
    prepare::devices(context).await?;
    let channel = link.open(Label::Ram(0)).await.context("cannot open a channel for the memory")?;
    qmp.migrate(&socket).await?;
    let (stream, _) = timeout(DIAL_LIMIT, listener.accept())
        .await
        .context("QEMU does not send its memory")?
        .context("cannot take QEMU's memory")?;
    let ram = RamOut::start(stream, channel, link, context.options.compression);
    {
        let mut known = context.known();
        known.count_carried();
        known.costs.tally.handle_new_memory();
        known.ram = Some(ram);
    }
    context.event("memory: the first pass begins");
    Ok(())
}

/// Tells QEMU when to pause the guest.
pub async fn set_limits(context: &Arc<Context>, limits: RamLimits) -> Result<()> {
    let parameters = json!({
        "max-bandwidth": limits.max_bandwidth_bytes_per_s,
        "downtime-limit": limits.downtime_limit_ms,
    });
    Ok(context.machine.qmp().set_parameters(parameters).await?)
}

/// Waits until QEMU has paused the guest, with all but the last memory sent.
pub async fn await_pause(context: &Arc<Context>) -> Result<()> {
    wait_for(context, "pre-switchover").await?;
    // It may be shut: QEMU had little enough left to pause the guest all the same.
    if let Some(ram) = &context.known().ram {
        ram.open_for_good();
    }
    // QEMU says so too, but what it says may be lost with a connection (M4). One that stood still already was not paused.
    if context.known().ran {
        context.note_pause();
    }
    Ok(())
}

/// Has QEMU send the last memory, and waits until it has.
pub async fn finish(context: &Arc<Context>) -> Result<()> {
    // While the guest stands still nothing holds it up that is not the link itself (S2-44).
    let link = context.link()?;
    link.set_bandwidth(None);
    // The destination loads it while the last of the disks is on its way and compared.
    link.prefer(Some(Class::Ram));
    context.machine.qmp().migrate_continue("pre-switchover").await?;
    wait_for(context, "completed").await
}

/// Waits until QEMU's migration has this status.
async fn wait_for(context: &Arc<Context>, wanted: &str) -> Result<()> {
    let is_decided =
        |found: &MigrateInfo| found.status == wanted || found.status == "cancelling" || found.has_ended();
    let found = context.machine.qmp().migration_until(ASKED_EVERY, is_decided).await?;
    if found.status != wanted {
        let why = if found.error_desc.is_empty() { "it gives no reason" } else { &found.error_desc };
        bail!("QEMU's migration is {} where {wanted} was expected: {why}", found.status);
    }
    Ok(())
}
