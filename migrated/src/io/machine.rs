//! A guest that runs here: its QEMU, its disks' daemons and its taps, as one thing.
//!
//! ```text
//! start ─► disks ─► taps ─► QEMU (held) ─► [restore] ─► cont          any failure: all of it is undone
//! adopt ─► the same, found again by its sockets after this program was started anew
//! quit  ─► QEMU ─► disks ─► taps ─► sockets                           bounded, whatever is dead already
//!
//! <runtime_dir>/<guest>/  monitor  <disk>.nbd  <disk>.ctl  <disk>.rep
//! <state_dir>/guests/<guest>/  guest.toml  console.log  qemu.log  <disk>.log
//! ```
//!
//! All of it outlives this program, which only holds the ends. Nothing here decides where a guest should be.

mod error;
mod images;
mod layout;
mod parts;
mod saved;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use serde_json::json;
use tokio::net::UnixStream;
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::watch;
use tracing::{info, warn};

pub use error::MachineError;
pub use layout::{Layout, known_guests};
pub use parts::DiskRoles;

use crate::config::Config;
use crate::guest::Guest;
use crate::io::disk::Disk;
use crate::io::host;
use crate::io::process::Process;
use crate::io::qmp::{Qmp, QmpError};
use crate::io::tap::{Tap, TapError};
use crate::qemu::Accelerator;
use crate::qmp::RunState;

/// How long QEMU may take to end once it was told.
const QUIT_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a pause or an end waits for QEMU to find a disk's daemon again.
const WAKE_TIMEOUT: Duration = Duration::from_secs(5);

/// How a guest begins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Start {
    /// From its disk or its kernel; it runs.
    Boot,
    /// From a file that [`Machine::save`] wrote; it runs.
    Restore(PathBuf),
    /// Held, until `migrate-incoming` and `cont`.
    Incoming,
}

/// Why a QEMU has ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ExitReason {
    /// The guest switched itself off.
    GuestShutdown,
    /// Somebody told QEMU to end: QEMU's word for who ("host-qmp-quit", "host-signal").
    Told(String),
    /// It died; what is known of it.
    Died(String),
}

/// A guest that runs here; clones are the same one.
#[derive(Clone, Debug)]
pub struct Machine {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    guest: Guest,
    accelerator: Accelerator,
    layout: Layout,
    qmp: Qmp,
    qemu: Process,
    disks: Vec<Disk>,
    taps: Vec<Tap>,
    ended: watch::Receiver<Option<ExitReason>>,
}

impl Machine {
    /// Starts a guest. On failure nothing of it is left but its logs.
    pub async fn start(
        config: &Config,
        guest: &Guest,
        how: Start,
        roles: DiskRoles,
    ) -> Result<Self, MachineError> {
        guest.check().map_err(MachineError::Description)?;
        let layout = Layout::of(config, guest)?;
        if listens(&layout.monitor()).await {
            return Err(MachineError::Running(guest.name.clone()));
        }
        if how != Start::Incoming {
            images::check(config, guest)?;
        }
        let accelerator = host::accelerator(config, guest.accel).await?;
        layout.make()?;
        let mut parts = parts::Parts::default();
        let started = parts.start(config, guest, &layout, &how, &roles, accelerator).await;
        let begun = match started {
            Ok((qmp, qemu)) => {
                let machine = Self::assemble(guest, accelerator, layout.clone(), qmp, qemu, &parts);
                machine.begin(&how).await.map(|()| machine)
            }
            Err(error) => Err(error),
        };
        if let Err(error) = &begun {
            warn!(guest = guest.name, %error, "the guest does not start; what was started is ended");
            parts.undo().await;
            layout.remove();
        }
        begun
    }

    /// Finds a guest that runs already. None if its QEMU does not; what is left of it then is cleared away.
    pub async fn adopt(config: &Config, guest: &Guest) -> Result<Option<Self>, MachineError> {
        let layout = Layout::of(config, guest)?;
        let parts = parts::Parts::found(config, guest, &layout);
        if !listens(&layout.monitor()).await {
            parts.undo().await;
            layout.remove();
            return Ok(None);
        }
        let qmp = Qmp::connect(&layout.monitor()).await?;
        let pid =
            qmp.pid().ok_or_else(|| MachineError::Qemu("the monitor does not say whose it is".into()))?;
        let qemu = Process::adopt(pid).map_err(|error| MachineError::Qemu(error.to_string()))?;
        let answer = qmp.call("query-kvm", json!({})).await?;
        let kvm = answer["enabled"].as_bool().unwrap_or_default();
        let accelerator = if kvm { Accelerator::Kvm } else { Accelerator::Tcg };
        info!(guest = guest.name, pid, "found a running guest");
        Ok(Some(Self::assemble(guest, accelerator, layout, qmp, qemu, &parts)))
    }

    fn assemble(
        guest: &Guest,
        accelerator: Accelerator,
        layout: Layout,
        qmp: Qmp,
        qemu: Process,
        parts: &parts::Parts,
    ) -> Self {
        let mut guest = guest.clone();
        guest.accel = accelerator.into();
        let ended = watch_end(&guest.name, &qmp, &qemu, &layout);
        let (disks, taps) = (parts.disks.clone(), parts.taps.clone());
        Self { inner: Arc::new(Inner { guest, accelerator, layout, qmp, qemu, disks, taps, ended }) }
    }

    async fn begin(&self, how: &Start) -> Result<(), MachineError> {
        match how {
            Start::Boot => self.cont().await?,
            Start::Restore(path) => {
                saved::restore(&self.inner.qmp, &self.inner.layout, path).await?;
                self.cont().await?;
            }
            Start::Incoming => {}
        }
        self.inner.layout.keep(&self.inner.guest)
    }

    /// The description, with the accelerator that was chosen: so it travels, for a guest cannot change it.
    pub fn guest(&self) -> &Guest {
        &self.inner.guest
    }

    /// What runs the guest's code.
    pub fn accelerator(&self) -> Accelerator {
        self.inner.accelerator
    }

    /// QEMU's monitor.
    pub fn qmp(&self) -> &Qmp {
        &self.inner.qmp
    }

    /// QEMU's process.
    pub fn pid(&self) -> u32 {
        self.inner.qemu.pid().unsigned_abs()
    }

    /// The disks that have a daemon: all but shared ones, in the description's order.
    pub fn disks(&self) -> &[Disk] {
        &self.inner.disks
    }

    /// The taps, in the order of the description's cards.
    pub fn taps(&self) -> &[Tap] {
        &self.inner.taps
    }

    /// Where its sockets and files are.
    pub fn layout(&self) -> &Layout {
        &self.inner.layout
    }

    /// The guest's state.
    pub async fn state(&self) -> Result<RunState, QmpError> {
        self.inner.qmp.state().await
    }

    /// Sees to it that QEMU has all its disks, as it must before it pauses or ends the guest.
    pub async fn wake_disks(&self) -> Result<(), MachineError> {
        for disk in self.disks() {
            disk.wake(&self.inner.qmp, WAKE_TIMEOUT).await?;
        }
        Ok(())
    }

    /// Pauses the guest; its disks are flushed when this returns.
    pub async fn pause(&self) -> Result<(), MachineError> {
        self.wake_disks().await?;
        Ok(self.inner.qmp.stop().await?)
    }

    /// Lets the guest go on.
    pub async fn cont(&self) -> Result<(), MachineError> {
        Ok(self.inner.qmp.cont().await?)
    }

    /// Asks the guest to switch itself off, as its power button would; [`Self::ended`] says when it has.
    pub async fn ask_to_shut_down(&self) -> Result<(), MachineError> {
        Ok(self.inner.qmp.call("system_powerdown", json!({})).await.map(drop)?)
    }

    /// Pauses the guest, writes its state into the file at `path`, and ends it. On failure it goes on as before.
    pub async fn save(&self, path: &Path) -> Result<(), MachineError> {
        let was_running = self.state().await? == RunState::Running;
        self.pause().await?;
        let saved = saved::save(&self.inner.qmp, &self.inner.layout, path).await;
        match &saved {
            Ok(()) => self.quit().await,
            Err(error) if was_running => {
                warn!(guest = self.inner.guest.name, %error, "not saved; the guest goes on");
                self.cont().await?;
            }
            Err(_) => {}
        }
        saved
    }

    /// Switches all taps on.
    pub fn tap_up(&self) -> Result<(), TapError> {
        self.taps().iter().try_for_each(Tap::up)
    }

    /// Switches all taps off: when this returns, no frame of the guest leaves this host any more (S3-36).
    pub fn tap_down(&self) -> Result<(), TapError> {
        self.taps().iter().try_for_each(Tap::down)
    }

    /// Ends QEMU, then the disks' daemons, then removes taps and sockets. Never hangs, whatever is dead.
    pub async fn quit(&self) {
        // A QEMU without one of its disks would wait for it for minutes: that one is ended by force.
        if self.wake_disks().await.is_ok() {
            // The answer may be lost, for QEMU ends.
            let _ = self.inner.qmp.call_within("quit", json!({}), QUIT_TIMEOUT).await;
            self.inner.qemu.ended_within(QUIT_TIMEOUT).await;
        }
        parts::kill(&self.inner.qemu).await;
        parts::Parts { qemu: None, disks: self.inner.disks.clone(), taps: self.inner.taps.clone() }
            .undo()
            .await;
        self.inner.layout.remove();
        info!(guest = self.inner.guest.name, "the guest is ended");
    }

    /// Whether QEMU has ended.
    pub fn has_ended(&self) -> bool {
        self.inner.ended.borrow().is_some()
    }

    /// Comes back when QEMU has ended, with the reason. The disks and taps are still there then: `quit` ends them.
    pub async fn ended(&self) -> ExitReason {
        let mut ended = self.inner.ended.clone();
        match ended.wait_for(Option::is_some).await {
            Ok(reason) => reason.clone().expect("it was waited for"),
            Err(_) => ExitReason::Died("it is not known how".into()),
        }
    }
}

/// Whether a process holds a socket. A monitor that talks to somebody else does not greet, and is there all the same.
async fn listens(socket: &Path) -> bool {
    match UnixStream::connect(socket).await {
        Ok(_) => true,
        // QEMU has not yet taken those who came before.
        Err(error) => error.kind() == std::io::ErrorKind::WouldBlock,
    }
}

/// Notes how QEMU ends: by its last words on the monitor, else by its status and its log.
fn watch_end(guest: &str, qmp: &Qmp, qemu: &Process, layout: &Layout) -> watch::Receiver<Option<ExitReason>> {
    let (sender, receiver) = watch::channel(None);
    let (mut events, qemu, guest) = (qmp.events(), qemu.clone(), guest.to_owned());
    let log = crate::io::log_file::LogFile::from_here(&layout.qemu_log());
    let closed = qmp.closed();
    tokio::spawn(async move {
        let mut closed = std::pin::pin!(closed);
        let mut reason = None;
        let mut note = |event: crate::qmp::Event| {
            if event.name == "SHUTDOWN" {
                reason = Some(match event.fields["guest"].as_bool() {
                    Some(true) => ExitReason::GuestShutdown,
                    _ => ExitReason::Told(event.word("reason").to_owned()),
                });
            }
        };
        loop {
            tokio::select! {
                biased;
                event = events.recv() => match event {
                    Ok(event) => note(event),
                    Err(RecvError::Lagged(_)) => {}
                    Err(RecvError::Closed) => break,
                },
                () = &mut closed => break,
            }
        }
        while let Ok(event) = events.try_recv() {
            note(event);
        }
        let status = qemu.ended().await;
        let reason = match (reason, status) {
            (Some(reason), _) => reason,
            (None, Some(status)) => ExitReason::Died(format!("{status}; it says: {}", log.reason())),
            (None, None) => ExitReason::Died(format!("it says: {}", log.reason())),
        };
        info!(guest, ?reason, "QEMU has ended");
        sender.send_replace(Some(reason));
    });
    receiver
}
