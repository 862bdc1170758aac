//! The disks' operations: each blockd keeps its copy in step through a channel of the link, and is sealed at the end.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use blockd::control::{Command, Sealed, Verify};
use futures_util::future::try_join_all;
use tokio::net::UnixListener;
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval, timeout};

use super::context::{Context, Seal};
use crate::io::disk::Disk;
use crate::io::link::{Link, copy_both};
use crate::link::Label;
use crate::quantity::ms;

/// How long a copy may take to answer its first hello.
const CONNECT_LIMIT: Duration = Duration::from_secs(20);

/// How often blockd is asked whether it is connected.
const ASKED_EVERY: Duration = Duration::from_millis(50);

/// Has every disk keep its copy in step, and waits until all are connected.
pub async fn replicate(context: &Arc<Context>) -> Result<()> {
    for (number, described, disk) in context.copied_disks() {
        let socket = context.socket(&format!("{}.out", described.id))?;
        let listener = UnixListener::bind(&socket).context("cannot listen for a disk's stream")?;
        let carrier = context.spawn(carry(listener, context.link()?, number));
        context.known().carriers.push(carrier);
        let compression = context.options.compression;
        disk.call(Command::Replicate { to: socket, compression }).await?;
    }
    loop {
        match timeout(CONNECT_LIMIT, connected(context)).await {
            Ok(found) => break found?,
            // As long as the link is down nobody can answer.
            Err(_) if !context.link()?.status().up => {}
            Err(_) => bail!("the destination's disks do not answer{}", last_errors(context).await),
        }
    }
    context.event("initialised: the disks are recorded, and their copies begin");
    Ok(())
}

/// Carries every stream that a blockd dials; a stream that breaks is dialled again by it.
async fn carry(listener: UnixListener, link: Link, number: u16) {
    let mut streams = JoinSet::new();
    while let Ok((stream, _)) = listener.accept().await {
        let Ok(channel) = link.open(Label::Disk(number)).await else { return };
        // One stream a disk: a new one means that the old one is dead.
        streams.abort_all();
        streams.spawn(async move {
            if let Err(error) = copy_both(stream, channel).await {
                tracing::debug!(number, %error, "a disk's stream ended");
            }
        });
    }
}

async fn connected(context: &Arc<Context>) -> Result<()> {
    let mut tick = interval(ASKED_EVERY);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    for (_, _, disk) in context.copied_disks() {
        while !disk.status().await?.replication.connected {
            tick.tick().await;
        }
    }
    Ok(())
}

/// What the disks say why they are not connected.
async fn last_errors(context: &Arc<Context>) -> String {
    let mut said = String::new();
    for (_, described, disk) in context.copied_disks() {
        if let Ok(status) = disk.status().await
            && !status.replication.last_error.is_empty()
        {
            said += &format!("; {:?} says: {}", described.id, status.replication.last_error);
        }
    }
    said
}

/// Seals every disk for the handover (D8).
pub async fn seal(context: &Arc<Context>) -> Result<()> {
    let generation = context.known().generation;
    let timeout_ms = context.site.config.migration.paused_deadline_ms;
    // In no tasks of their own: with this operation their connections are closed, and blockd gives the seals up.
    let seals = context.copied_disks().into_iter().map(|(_, described, disk)| async move {
        let begun = Instant::now();
        let verify = Verify::Stale;
        let said = disk
            .call(Command::Seal { generation, verify, timeout_ms })
            .await
            .with_context(|| format!("cannot seal disk {:?}", described.id))?;
        let (id, took_ms) = (described.id, ms(begun.elapsed()));
        context.event(format!("disk {id}: sealed in {took_ms} ms, digests agree"));
        // An answer in other words than ours says nothing of what was compared; the disk is sealed all the same.
        let sealed: Sealed = serde_json::from_value(said).unwrap_or_default();
        context.known().seals.insert(id, Seal { took_ms, sealed });
        anyhow::Ok(())
    });
    try_join_all(seals).await.map(drop)
}

/// Gives every disk up: it lives at the destination from here on (D11).
pub async fn fence(context: &Arc<Context>) -> Result<()> {
    let generation = context.known().generation;
    for (_, described, disk) in context.copied_disks() {
        let moved_to = context.peer.name.clone();
        disk.call(Command::Fence { generation, moved_to })
            .await
            .with_context(|| format!("cannot fence disk {:?}", described.id))?;
    }
    Ok(())
}

/// Lets a disk be written again that is sealed, or is being sealed. True: it was.
pub async fn release(disk: &Disk) -> Result<bool> {
    let was_sealed = match disk.status().await {
        Ok(status) => status.holds_writes(),
        // Nothing is held where there is nobody; the guest must not wait for that.
        Err(error) if error.is_gone() => return Ok(false),
        Err(error) => return Err(error.into()),
    };
    if was_sealed {
        disk.call(Command::Unseal {}).await?;
    }
    Ok(was_sealed)
}

/// Ends the copy of a disk; what was sent is forgotten here, and spared by digests the next time. True: it was recorded.
pub async fn stop_replicating(disk: &Disk) -> Result<bool> {
    let was_recorded = disk.status().await?.replication.recording;
    disk.call(Command::StopReplicating {}).await?;
    disk.call(Command::Record { on: false }).await?;
    Ok(was_recorded)
}
