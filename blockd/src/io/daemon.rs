//! The daemon itself: opens the disk, serves it, and ends without losing anything.
//!
//! ```text
//! open: lock (D12) ─► sidecar ─► may it start so? (D11) ─► volume, held where it must be
//! serve:  main thread    data plane (ring or pool)  ◄── mailbox ── control connections, signals
//! end:  connections dropped, no errors answered ─► flush ─► the client that asked hears of it
//! ```
//!
//! Knows how to start and end, not what commands mean: that is [`service`].

mod open;
mod replication;
mod throttling;
mod service;

use std::io;
use std::os::unix::net::UnixListener;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result};
use nix::sys::signal::{SigSet, Signal};
use tracing::{info, warn};

use crate::config::{DataPlaneFlag, Serve};
use crate::io::confine::{Needs, confine};
use crate::io::control_server;
use crate::io::data_plane::{self, Prepared};
use crate::io::listen::Listeners;
use crate::io::mailbox::{self, Mailbox};
use crate::io::replica_destination::Receiver;
use crate::io::sidecar_file::{SidecarBits, SidecarFile};
use crate::io::supervisor::tell_ready;
use crate::nbd::export::Export;
use crate::server::Server;
use crate::sidecar::{Header, Role};
use crate::store::BlockStore;
use crate::volume::Volume;

use self::open::Disk;
use self::replication::Replication;
use self::service::{Daemon, identity};
use self::throttling::Throttling;

/// How long the answer to a shutdown may take to reach its client.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(2);

/// How this daemon came to be started.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Start {
    /// A supervisor waits for word on stdout.
    pub supervised: bool,
    /// It ran before and died.
    pub restarted: bool,
}

/// Serves until it is told to end. To be called while there is one thread only.
pub fn run(serve: &Serve, listeners: Listeners, start: Start) -> Result<()> {
    // Until the disk is open a signal may simply kill: nothing is served yet.
    let disk = open::open(serve, start)?;
    let signals = block_signals()?;
    let plane = choose_plane(serve.data_plane)?;
    // Everything is open, and nobody has been heard yet. The threads that follow inherit it.
    let confined = confine(serve.confine, &needs(serve, start)).context("cannot give up rights")?;
    let store: Arc<dyn BlockStore> = disk.store.clone();
    let (mailbox, letters) = mailbox::channel().context("cannot make a mailbox")?;
    let mut server = Server::new(export(serve, &*store)?, volume(&disk), Arc::clone(&store));
    stop_on_signal(signals, mailbox.clone())?;
    let identity = identity(serve, &disk, &plane, &confined);
    info!(image = %serve.image.display(), disk = disk.header.disk_id, role = disk.header.role.name(), %plane, "serving");
    let (sidecar, replication) =
        replication(serve, &disk.header, disk.sidecar, &store, &mailbox, &mut server)?;
    let receiver = receive(listeners.replica, sidecar.as_ref(), &store)?;
    let throttling = Throttling::start(serve.throttle.policy(), mailbox.clone(), replication.clone())
        .context("cannot start the throttle")?;
    let header = disk.header;
    let daemon = Daemon { identity, header, sidecar, mailbox, replication, receiver, throttling };
    let control = control_server::serve(listeners.control, Arc::new(daemon));
    let control = control.context("cannot serve the control socket")?;
    tell_ready(start.supervised);
    let served = data_plane::run(plane, server, Arc::clone(&store), &listeners.nbd, &letters);
    drop(served.context("the data plane failed")?);
    store.flush().context("cannot flush the disk at the end")?;
    control.drain(DRAIN_TIMEOUT);
    info!("ended as told");
    Ok(())
}

type SharedSidecar = Arc<Mutex<SidecarFile>>;

/// The source's side of the disk; takes up a recording that the process before this one made.
fn replication(
    serve: &Serve,
    header: &Header,
    sidecar: Option<(SidecarFile, SidecarBits)>,
    store: &Arc<dyn BlockStore>,
    mailbox: &Mailbox,
    server: &mut Server,
) -> Result<(Option<SharedSidecar>, Option<Arc<Replication>>)> {
    let Some((file, bits)) = sidecar else { return Ok((None, None)) };
    let sidecar = Arc::new(Mutex::new(file));
    let replication =
        Replication::new(Arc::clone(store), Arc::clone(&sidecar), mailbox.clone(), serve.deltas);
    if header.recording && matches!(header.role, Role::Primary | Role::Promoted) {
        server.volume_mut().attach(replication.resume(Box::new(bits))?);
    }
    Ok((Some(sidecar), Some(Arc::new(replication))))
}

/// The destination's side, where there is a socket for it.
fn receive(
    listener: Option<UnixListener>,
    sidecar: Option<&SharedSidecar>,
    store: &Arc<dyn BlockStore>,
) -> Result<Option<Arc<Receiver>>> {
    let (Some(listener), Some(sidecar)) = (listener, sidecar) else { return Ok(None) };
    let receiver = Receiver::new(Arc::clone(store), Arc::clone(sidecar));
    receiver.listen(listener).context("cannot listen for a source")?;
    Ok(Some(receiver))
}

/// What serving needs beside what is open.
fn needs(serve: &Serve, start: Start) -> Needs {
    let replica = serve.replica.as_ref().map(|target| &target.socket);
    let sockets = [Some(&serve.nbd), Some(&serve.control), replica].into_iter().flatten();
    let told = std::env::var_os("NOTIFY_SOCKET").unwrap_or_default();
    Needs {
        // A supervisor removes them.
        sockets: if start.supervised { Vec::new() } else { sockets.cloned().collect() },
        abstract_sockets: told.as_encoded_bytes().starts_with(b"@"),
    }
}

/// Settled before the start: what cannot be is refused in time, and the status can say what is.
fn choose_plane(flag: DataPlaneFlag) -> Result<Prepared> {
    if flag == DataPlaneFlag::Pool {
        return Ok(Prepared::Pool);
    }
    match (flag, Prepared::ring()) {
        (_, Ok(ring)) => Ok(ring),
        (DataPlaneFlag::Ring, Err(error)) => {
            Err(error).context("there is no io_uring here; use --data-plane pool or auto")
        }
        (_, Err(error)) => {
            warn!(%error, "there is no io_uring here; serving with threads, which is slower");
            Ok(Prepared::Pool)
        }
    }
}

fn export(serve: &Serve, store: &dyn BlockStore) -> Result<Export> {
    let geometry = store.geometry();
    let mut export = Export::new(serve.export.as_str(), geometry.size);
    export.read_only = serve.read_only;
    export.block_size_min = geometry.alignment;
    export.block_size_preferred = export.block_size_preferred.max(geometry.alignment);
    export.validate()?;
    Ok(export)
}

/// D7, D8: writes wait at a replica that is not promoted and at a disk that is sealed.
fn volume(disk: &Disk) -> Volume {
    let mut volume = Volume::new();
    volume.set_cached(disk.store.geometry().is_buffered());
    if disk.header.role == Role::Replica || disk.header.sealed != 0 {
        volume.hold();
    }
    volume
}

/// The signals that mean an end, kept from every thread that is started from here on.
fn block_signals() -> Result<SigSet> {
    let mut signals = SigSet::empty();
    [Signal::SIGTERM, Signal::SIGINT].into_iter().for_each(|signal| signals.add(signal));
    signals.thread_block()?;
    Ok(signals)
}

fn stop_on_signal(signals: SigSet, mailbox: Mailbox) -> io::Result<()> {
    let wait = move || {
        while let Ok(signal) = signals.wait() {
            info!(%signal, "ending");
            if mailbox.stop().is_err() {
                return; // already ending
            }
        }
    };
    thread::Builder::new().name("signals".into()).spawn(wait).map(drop)
}
