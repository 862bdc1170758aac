//! Makes the source whole again, whatever was done: taps up, packets back, disks unsealed, the guest as it was.
//!
//! Every step looks first and does only what is missing, so it can be done again at any time and in any state. The
//! guest comes first: what is slow, and what concerns the destination, comes after it runs. Packet rules that cannot be
//! removed hold up neither the guest nor who wants something of it: that is tried again by itself (`mend`).

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use tokio::task::AbortHandle;
use tokio::time::{sleep, timeout};

use super::context::{Context, Heard};
use super::{disks, path};
use crate::peer::Request;
use crate::qmp::{MigrateInfo, RunState};
use crate::report::{PauseEnd, Undone};
use crate::trouble::{Repeated, of_the_guest};

/// Between two attempts.
const AGAIN: Duration = Duration::from_millis(250);

/// How long QEMU may take to give its migration up.
const CANCEL_LIMIT: Duration = Duration::from_secs(10);

/// How often QEMU is asked whether it has.
const ASKED_EVERY: Duration = Duration::from_millis(10);

/// How long the destination may take to be told. It cleans up by itself when it hears nothing.
const ABORT_LIMIT: Duration = Duration::from_secs(5);

/// Has the guest go on here; repeats until it does, or QEMU has ended.
pub async fn restore(context: &Arc<Context>) {
    stop_memory(context);
    let mut repeated = Repeated::default();
    let path = loop {
        match guest(context).await {
            Ok(path) => break path,
            Err(error) => say_trouble(context, &mut repeated, &error),
        }
        if context.machine.has_ended() {
            context.event("the guest's QEMU has ended");
            break Ok(());
        }
        sleep(AGAIN).await;
    };
    context.known().path_trouble = path.err();
}

/// Has the guest go on here, and lets go of the link; the disks stay in step. What comes next is another attempt.
pub async fn retreat(context: &Arc<Context>) -> Result<()> {
    let (link, carriers) = {
        let mut known = context.known();
        known.count_carried();
        known.client = None;
        (known.link.take(), std::mem::take(&mut known.carriers))
    };
    stop_memory(context);
    carriers.iter().for_each(AbortHandle::abort);
    let mut repeated = Repeated::default();
    let path = loop {
        match guest(context).await {
            Ok(path) => break path,
            Err(_) if context.machine.has_ended() => bail!("the guest's QEMU has ended"),
            Err(error) => say_trouble(context, &mut repeated, &error),
        }
        sleep(AGAIN).await;
    };
    if let Some(link) = link {
        // It may be down for long; nobody waits for it.
        context.spawn(link.close());
    }
    // Another attempt needs the way whole; without that this one ends, and the guest runs.
    path?;
    path::remove(context).await?;
    let mut known = context.known();
    known.costs.pauses.begin_again();
    known.reserved = None;
    known.seals.clear();
    // Of a number that no link has: what the old one says is not heard any more.
    known.links += 1;
    context.heard.send_replace(Heard::default());
    drop(known);
    context.keep_costs();
    Ok(())
}

/// Closes the memory's way, so that QEMU is not stuck in a write while it is told to stop.
fn stop_memory(context: &Arc<Context>) {
    let ram = {
        let mut known = context.known();
        known.count_carried();
        known.ram.take()
    };
    if let Some(ram) = ram {
        ram.stop();
        context.undone(Undone::MemoryGivenUp);
    }
}

fn say_trouble(context: &Arc<Context>, repeated: &mut Repeated, error: &anyhow::Error) {
    if repeated.handle_failure(context.now()) {
        tracing::error!(migration = context.handle.id(), "the guest cannot go on yet: {error:#}");
        context.warn(format!("the guest cannot go on yet: {error:#}"));
    }
}

/// The guest, as it was. Within it: whether its packets have their way back, which it does not wait for.
async fn guest(context: &Arc<Context>) -> Result<Result<()>> {
    if context.machine.has_ended() {
        context.known().costs.pauses.end(PauseEnd::Ended, context.now());
        return Ok(Ok(()));
    }
    // Before QEMU is told to give up: it goes on by itself then, and a write must find its disk.
    for (_, _, disk) in context.copied_disks() {
        if disks::release(&disk).await? {
            context.undone(Undone::DisksUnsealed);
        }
    }
    let path = path::switch_back(context).await;
    if path.is_ok() && std::mem::take(&mut context.known().is_switched) {
        context.undone(Undone::PathBack);
    }
    let qmp = context.machine.qmp();
    give_memory_up(context).await?;
    if context.known().ran && !qmp.state().await?.wants_to_run() {
        qmp.cont().await?;
    }
    let state = qmp.state().await?;
    let was_paused = state.wants_to_run() && end_pause(context);
    if state == RunState::IoError {
        // No attempt of ours mends its disk: it is at the source, and that is all that a rollback owes it.
        context.warn(of_the_guest(
            &context.guest.name,
            "the guest stands still at the source, a disk of its own fails",
        ));
        return Ok(path);
    }
    if context.known().ran && state != RunState::Running {
        bail!("QEMU says that the guest is {state}");
    }
    if was_paused {
        context.undone(Undone::GuestResumed);
    }
    context.event(format!("the guest is {state} at the source"));
    Ok(path)
}

/// The guest does not stand still because of the move any more. True: it did.
fn end_pause(context: &Arc<Context>) -> bool {
    {
        let now = context.now();
        let mut known = context.known();
        if known.costs.pauses.since().is_none() {
            return false;
        }
        known.costs.pauses.end(PauseEnd::Resumed, now);
    }
    // At once: one that has no end in what is kept would last until a daemon after this one looks.
    if let Err(error) = context.keep_departure() {
        tracing::warn!(migration = context.handle.id(), "the account is not written down: {error:#}");
    }
    true
}

async fn give_memory_up(context: &Arc<Context>) -> Result<()> {
    let qmp = context.machine.qmp();
    let is_over = |found: &MigrateInfo| matches!(&*found.status, "" | "none") || found.has_ended();
    if is_over(&qmp.query_migrate().await?) {
        return Ok(());
    }
    qmp.migrate_cancel().await?;
    let over = timeout(CANCEL_LIMIT, qmp.migration_until(ASKED_EVERY, is_over)).await;
    over.context("QEMU does not give its migration up")??;
    context.undone(Undone::MemoryGivenUp);
    Ok(())
}

/// What does not hold the guest up: tells the destination, ends recording, removes tunnels.
pub async fn call_off(context: &Arc<Context>, keep_copies: bool) {
    let client = context.client();
    if let Ok(client) = &client {
        let reason = context.handle.status().reasons.join("; ");
        let told =
            timeout(ABORT_LIMIT, client.order(Request::Abort { reason, keep_disks: keep_copies })).await;
        let is_told = matches!(told, Ok(Ok(())));
        context.undone(if is_told { Undone::DestinationTold } else { Undone::DestinationUnreached });
    } else if context.known().has_begun() {
        context.undone(Undone::DestinationUnreached);
    }
    for (_, _, disk) in context.copied_disks() {
        match disks::stop_replicating(&disk).await {
            Ok(true) => context.undone(Undone::RecordingEnded),
            Ok(false) => {}
            Err(error) => context.warn(format!("a disk still records: {error:#}")),
        }
    }
    let has_tunnels = !context.known().tunnels.is_empty();
    let path_trouble = context.known().path_trouble.take();
    let removed = match path_trouble {
        None => path::remove(context).await,
        Some(error) => Err(error),
    };
    match removed {
        Ok(()) if has_tunnels => context.undone(Undone::TunnelsRemoved),
        Ok(()) => {}
        Err(error) => {
            let until = "it is tried again until it can be, and the guest can be used meanwhile";
            context.warn(format!("the way of the guest's packets is not as it was: {error:#}; {until}"));
            context.known().is_mended_later = true;
        }
    }
}
