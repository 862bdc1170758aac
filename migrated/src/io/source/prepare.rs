//! The operations before the first byte moves: look at the guest, make the link, have the destination reserve.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow, bail};
use tokio::sync::mpsc;
use tokio::time::sleep;

use super::context::Context;
use super::path;
use crate::api::{Failure, FailureCode, Send};
use crate::io::host::boot_digests;
use crate::io::link::{Link, LinkConfig};
use crate::io::peer_channel::{PeerClient, PeerError};
use crate::io::qmp::QmpError;
use crate::link::Label;
use crate::link::error::LinkError;
use crate::peer::{Answer, DiskSize, GivenAddresses, Notice, Request, Reserve, Reserved, takes_new_fields};
use crate::qemu::device_names;
use crate::qmp::RunState;
use crate::quantity;
use crate::transport::Transport;
use crate::trouble::of_the_guest;

/// Between two attempts to make a link that was lost, or to reach a destination that may have the guest.
pub const REDIAL: [Duration; 5] = [
    Duration::from_millis(100),
    Duration::from_millis(300),
    Duration::from_secs(1),
    Duration::from_secs(2),
    Duration::from_secs(5),
];

/// What shall carry the link, if that was said.
pub fn transport(send: &Send) -> Result<Option<Transport>, Failure> {
    send.transport.as_deref().map(Transport::parse).transpose().map_err(|error| {
        Failure::new(FailureCode::BadRequest, format!("transport: {error}"), "see `migrated send --help`")
    })
}

/// Looks at the guest, its disks and this host. What stands in the way is kept, to be said together with what the
/// destination says (S0-25). False: something does.
pub async fn inspect(context: &Arc<Context>) -> Result<bool> {
    let state = context.machine.qmp().state().await?;
    let mut reasons = Vec::new();
    let ran = match state {
        RunState::Running => true,
        RunState::Paused | RunState::Prelaunch => false,
        RunState::IoError => {
            let what = "the guest stands still, a disk of its own failed";
            reasons.push(of_the_guest(&context.guest.name, what));
            false
        }
        RunState::InMigrate | RunState::Other(_) => {
            reasons.push(format!(
                "the guest is {state}; only one that runs, or is paused by order, can be moved"
            ));
            false
        }
    };
    let (generation, ()) = tokio::join!(disks(context, &mut reasons), path::look(context, ran));
    reasons.extend(path::reasons(context));
    match devices(context).await {
        Err(error) if error.is::<QmpError>() => return Err(error),
        Err(error) => reasons.push(format!("{error:#}")),
        Ok(()) => {}
    }
    let can_move = reasons.is_empty();
    if can_move {
        // An idle QEMU does not notice that its disk was restarted, and would hang in the pause.
        context.machine.wake_disks().await?;
    }
    {
        let mut known = context.known();
        known.reasons = reasons;
        known.ran = ran;
        known.generation = generation + 1;
        known.accel = context.machine.accelerator().name().to_owned();
    }
    if !ran {
        context.event("the guest is paused, and will be at the destination");
    }
    Ok(can_move)
}

/// Looks at the disks. Gives the newest generation of them and of the guest.
async fn disks(context: &Arc<Context>, reasons: &mut Vec<String>) -> u64 {
    let mut generation = context.site.generation_of(&context.guest.name);
    for (_, described, disk) in context.copied_disks() {
        match context.look_at(&described.id, &disk).await {
            Ok(status) => {
                generation = generation.max(status.identity.generation);
                if status.requests.has_lost_writes {
                    let id = &described.id;
                    let what = format!("a flush of disk {id:?} failed, and QEMU would not let the guest go");
                    reasons.push(of_the_guest(&context.guest.name, &what));
                }
            }
            Err(error) => reasons.push(format!("disk {:?} does not answer: {error:#}", described.id)),
        }
    }
    generation
}

/// Looks whether the guest has the devices of its description, no more and no less: the destination's QEMU is started with
/// those, and takes the state of no others. It would say so only when all the memory has gone.
pub async fn devices(context: &Arc<Context>) -> Result<()> {
    let found = context.machine.qmp().devices().await?;
    let described = device_names(&context.guest);
    let list = |names: Vec<&String>| names.iter().map(|name| name.as_str()).collect::<Vec<_>>().join(", ");
    let more = list(found.difference(&described).collect());
    let less = list(described.difference(&found).collect());
    match (more.is_empty(), less.is_empty()) {
        (true, true) => Ok(()),
        (false, _) => {
            bail!("the guest has devices that its description does not have: {more}; plug them out")
        }
        (_, false) => {
            bail!("the guest lacks devices of its description: {less}; start it anew, or plug them in")
        }
    }
}

/// Makes the link again after one was lost, however long the way is down: the phase's deadline ends it.
pub async fn reconnect(context: &Arc<Context>) -> Result<()> {
    let mut attempt = 0;
    loop {
        let error = match connect(context).await {
            Ok(()) => return Ok(()),
            Err(error) => error,
        };
        if error.downcast_ref::<LinkError>().is_some_and(|error| !error.is_passing()) {
            return Err(error);
        }
        tracing::info!(migration = context.handle.id(), "no link yet: {error:#}");
        sleep(REDIAL[attempt.min(REDIAL.len() - 1)]).await;
        attempt += 1;
    }
}

/// Makes the link for the first time: where that fails, all else that is known to stand in the way is said with it.
pub async fn first_connect(context: &Arc<Context>) -> Result<()> {
    connect(context).await.map_err(|error| together(context, error))
}

/// An error, with all else that is known to stand in the way.
fn together(context: &Context, error: anyhow::Error) -> anyhow::Error {
    let reasons = context.known().reasons.join("; ");
    if reasons.is_empty() { error } else { anyhow!("{reasons}; {error:#}") }
}

/// Makes the link and its control channel.
pub async fn connect(context: &Arc<Context>) -> Result<()> {
    let limit = context.handle.bandwidth();
    let transport = context.options.transport.clone();
    let config = LinkConfig { transport, probes: true, ..context.site.link_config(*limit.borrow()) };
    let link = Link::dial(&config, &context.peer).await?;
    let (client, notices) = control(&link).await?;
    let number = {
        let mut known = context.known();
        // It may have changed while the link was made.
        link.set_bandwidth(*limit.borrow());
        known.count_carried();
        known.link = Some(link);
        known.client = Some(client);
        known.links += 1;
        known.costs.tally.handle_new_link();
        known.links
    };
    context.heard.send_modify(|heard| heard.gone = false);
    context.spawn(listen(Arc::downgrade(context), number, notices));
    context.event("link: up");
    context.hear_link(&context.link()?);
    Ok(())
}

/// Has the link keep to what the operator allows it, whenever that changes.
pub async fn obey_bandwidth(context: Arc<Context>) {
    let mut limit = context.handle.bandwidth();
    while limit.changed().await.is_ok() {
        let bytes_per_s = *limit.borrow_and_update();
        let known = context.known().link.clone();
        if let Some(link) = known {
            link.set_bandwidth(bytes_per_s);
        }
        context.event(match bytes_per_s {
            Some(rate) => format!("bandwidth: at most {}", quantity::rate(rate)),
            None => "bandwidth: what the link gives".to_owned(),
        });
    }
}

/// Opens the control channel of a link.
pub async fn control(link: &Link) -> Result<(PeerClient, mpsc::Receiver<Notice>)> {
    let channel = link.open(Label::Control).await.context("cannot open the control channel")?;
    Ok(PeerClient::start(channel))
}

async fn listen(context: std::sync::Weak<Context>, link: u32, mut notices: mpsc::Receiver<Notice>) {
    while let Some(notice) = notices.recv().await {
        let Some(context) = context.upgrade() else { return };
        match notice {
            Notice::Loaded {} => context.hear(link, |heard| heard.loaded = true),
            Notice::Running {} => {
                context.note_running();
                context.hear(link, |heard| heard.running = true);
            }
            Notice::Failed { reason } => context.hear(link, |heard| heard.failed = Some(reason)),
        }
    }
    if let Some(context) = context.upgrade() {
        context.hear(link, |heard| heard.gone = true);
    }
}

/// Has the destination look at itself, keep room, and start what receives. `only_look`: it is asked only for its reasons,
/// because this host has some of its own.
pub async fn reserve(context: &Arc<Context>, only_look: bool) -> Result<()> {
    let request = request(context, only_look).await?;
    let reserved = ask(context, request).await?;
    context.event(format!("{}: reserved as {}", context.peer.name, reserved.reservation));
    let is_home = reserved.is_home;
    {
        let mut known = context.known();
        (known.reserved, known.to_home) = (Some(reserved), is_home);
    }
    if is_home {
        // A daemon after this one must not keep a tunnel whose other end is gone.
        context.keep_departure()?;
    }
    if context.options.cold { suspend(context).await } else { Ok(()) }
}

/// Asks the destination for room. An error: every reason of both hosts why the guest cannot move.
pub async fn ask(context: &Arc<Context>, request: Reserve) -> Result<Reserved> {
    let mut reasons = context.known().reasons.clone();
    match context.client()?.call(Request::Reserve(Box::new(request))).await {
        Ok(Answer::Reserved(reserved)) if reasons.is_empty() => {
            for warning in &reserved.warnings {
                context.warn(format!("{}: {warning}", context.peer.name));
            }
            return Ok(reserved);
        }
        Ok(Answer::Reserved(_)) => {}
        Ok(other) => return Err(PeerError::Unexpected(Box::new(other)).into()),
        Err(PeerError::Refused(theirs)) => {
            reasons.push(format!("{} refuses: {}", context.peer.name, theirs.join("; ")));
        }
        Err(error) => return Err(error.into()),
    }
    bail!("{}", reasons.join("; "))
}

/// A cold move: the guest stands still from here on, for nothing is left that would refuse it.
async fn suspend(context: &Arc<Context>) -> Result<()> {
    if !context.known().ran {
        return Ok(());
    }
    context.machine.qmp().stop().await.context("cannot suspend the guest")?;
    context.note_pause();
    context.keep_costs();
    context.event("the guest is suspended for the move");
    Ok(())
}

/// What the destination has to know.
pub async fn request(context: &Arc<Context>, dry_run: bool) -> Result<Reserve> {
    let mut disks = Vec::new();
    for (_, described, disk) in context.copied_disks() {
        let identity = disk.status().await?.identity;
        let allocated_bytes = allocated_bytes(&identity.image).unwrap_or(identity.size_bytes);
        disks.push(DiskSize { id: described.id, size_bytes: identity.size_bytes, allocated_bytes });
    }
    let (generation, accel, runs) = {
        let known = context.known();
        (known.generation, known.accel.clone(), known.ran)
    };
    Ok(Reserve {
        migration: context.handle.id().to_owned(),
        generation,
        guest: context.guest.for_a_peer(),
        disks,
        boot_digests: digests(context).map_err(|error| together(context, error))?,
        qemu_version: context.machine.qmp().version().to_string(),
        architecture: std::env::consts::ARCH.to_owned(),
        accel,
        wan: context.options.wan,
        runs,
        dry_run,
        given_addresses: given_addresses(context).await?,
    })
}

/// The addresses that sites have given the guest, of which the destination has to know whose they are when it changes the
/// guest's names. Not said to a host that would end the link for it.
async fn given_addresses(context: &Arc<Context>) -> Result<GivenAddresses> {
    let given = context.site.given_addresses(&context.guest).await;
    if given.is_empty() {
        return Ok(given);
    }
    let version = match context.client()?.call(Request::Introduce {}).await {
        Ok(Answer::Introduced { version }) => version,
        Ok(_) | Err(PeerError::Refused(_) | PeerError::Unknown(_)) => String::new(),
        Err(error) => return Err(error.into()),
    };
    Ok(if takes_new_fields(&version) { given } else { GivenAddresses::new() })
}

fn digests(context: &Arc<Context>) -> Result<Vec<String>> {
    let files = tokio::task::block_in_place(|| boot_digests(&context.site.config, &context.guest));
    let one = |(path, digest): (PathBuf, Result<String, String>)| {
        digest.map_err(|reason| anyhow!("boot file {}: {reason}", path.display()))
    };
    files.into_iter().map(one).collect()
}

fn allocated_bytes(image: &Path) -> Option<u64> {
    use std::os::unix::fs::MetadataExt;
    let metadata = std::fs::metadata(image).ok()?;
    metadata.is_file().then(|| metadata.blocks() * 512)
}

/// Has names lead to the guest's new place. What fails is told; the guest runs all the same.
pub async fn readdress(context: &Arc<Context>) -> Result<()> {
    if !context.options.wan {
        return Ok(());
    }
    let ((), renamed) = tokio::join!(path::reach(context), rename(context));
    renamed
}

async fn rename(context: &Arc<Context>) -> Result<()> {
    if !context.is_released_on_this_link().unwrap_or(false) {
        context.event("names: the destination sees to them, for the link was lost meanwhile");
        return Ok(());
    }
    match context.client()?.call(Request::Readdress {}).await? {
        Answer::Readdressed { names, troubles } => {
            for name in names {
                context.event(format!("names: {name}"));
            }
            if troubles.is_empty() { Ok(()) } else { bail!("{}", troubles.join("; ")) }
        }
        other => Err(PeerError::Unexpected(Box::new(other)).into()),
    }
}
