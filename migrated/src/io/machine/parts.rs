//! The parts of a guest on their way up and down: what was started is noted, so that it can be undone.

use std::collections::BTreeMap;
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::sys::signal::Signal;
use tokio::time::{interval, timeout};
use tracing::{info, warn};

use super::{Layout, MachineError, Start};
use crate::config::Config;
use crate::guest::{Guest, parse_mac};
use crate::io::disk::{Disk, Role};
use crate::io::inner_path::{PathError, inner_path};
use crate::io::log_file::LogFile;
use crate::io::process::Process;
use crate::io::qmp::Qmp;
use crate::io::run_as::RunAs;
use crate::io::tap::Tap;
use crate::qemu::{Accelerator, Backing, Paths, tap_name, words};

/// How long QEMU may take to answer on its monitor.
const START_TIMEOUT: Duration = Duration::from_secs(30);
/// How long a killed process may take to be gone.
const KILL_TIMEOUT: Duration = Duration::from_secs(10);
/// Pause between two looks at a socket that is not there yet.
const LOOK_EVERY: Duration = Duration::from_millis(5);

/// What the disks' daemons shall be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DiskRoles {
    /// The guest's disks.
    Primary,
    /// The other ends of copies: the sizes of the disks in bytes by their ids, for all that are not shared.
    Replica(BTreeMap<String, u64>),
}

/// What runs of a guest.
#[derive(Debug, Default)]
pub struct Parts {
    /// QEMU.
    pub qemu: Option<Process>,
    /// The disks with a daemon.
    pub disks: Vec<Disk>,
    /// The taps.
    pub taps: Vec<Tap>,
}

impl Parts {
    /// Starts all parts; QEMU answers and holds the guest. What was started before a failure is noted in `self`.
    pub async fn start(
        &mut self,
        config: &Config,
        guest: &Guest,
        layout: &Layout,
        how: &Start,
        roles: &DiskRoles,
        accelerator: Accelerator,
    ) -> Result<(Qmp, Process), MachineError> {
        let (kernel, initrd) = boot_files(config, guest)?;
        let disks = self.start_disks(config, guest, layout, roles).await?;
        let taps = self.make_taps(config, guest, layout)?;
        let paths =
            Paths { monitor: layout.monitor(), console: layout.console(), kernel, initrd, disks, taps };
        let incoming = *how != Start::Boot;
        let words = words(guest, &paths, accelerator, incoming);
        let log = LogFile::from_here(&layout.qemu_log());
        let program = &config.programs.qemu;
        let qemu = Process::spawn_as(layout.user(), program, &words, &layout.qemu_log())
            .map_err(|error| MachineError::Qemu(format!("cannot start {}: {error}", program.display())))?;
        self.qemu = Some(qemu.clone());
        info!(guest = guest.name, pid = qemu.pid(), accelerator = accelerator.name(), ?words, "started QEMU");
        tokio::select! {
            qmp = monitor(&paths.monitor) => Ok((qmp?, qemu)),
            status = qemu.ended() => {
                let status = status.map(|status| status.to_string()).unwrap_or_default();
                Err(MachineError::Qemu(format!("it ended at once ({status}): {}", log.reason())))
            }
        }
    }

    async fn start_disks(
        &mut self,
        config: &Config,
        guest: &Guest,
        layout: &Layout,
        roles: &DiskRoles,
    ) -> Result<Vec<Backing>, MachineError> {
        let mut backings = Vec::new();
        for disk in &guest.disks {
            let places = layout.disk(disk)?;
            if disk.shared {
                backings.push(shared(&places.image)?);
                continue;
            }
            let role = match roles {
                DiskRoles::Primary => Role::Primary,
                DiskRoles::Replica(sizes) => {
                    let size = sizes.get(&disk.id).copied();
                    let reason = || vec![format!("disk {}: its size is not given", disk.id)];
                    Role::Replica { size_bytes: size.ok_or_else(|| MachineError::Description(reason()))? }
                }
            };
            backings.push(Backing::Nbd(places.nbd.clone()));
            let name = guest.disk_name(disk);
            let socket = places.nbd.clone();
            let started = Disk::start(&config.programs.blockd, &disk.id, &name, &role, places).await?;
            self.disks.push(started.clone());
            layout.lend_socket(&socket)?;
            if role == Role::Primary {
                // The host may have lost power while the guest was to move, and writes were held.
                started.reclaim().await?;
            }
        }
        Ok(backings)
    }

    fn make_taps(
        &mut self,
        config: &Config,
        guest: &Guest,
        layout: &Layout,
    ) -> Result<Vec<String>, MachineError> {
        let owner = layout.user().map_or(0, RunAs::uid);
        for nic in &guest.nics {
            let unmapped = || MachineError::Bridge { nic: nic.id.clone(), bridge: nic.bridge.clone() };
            let bridge = config.bridges.get(&nic.bridge).ok_or_else(unmapped)?;
            let mac = parse_mac(&nic.mac).expect("the description was checked");
            let name = tap_name(&config.runtime_dir, &guest.name, &nic.id);
            self.taps.push(Tap::create(&name, &nic.id, bridge, mac, owner)?);
        }
        Ok(self.taps.iter().map(|tap| tap.name.clone()).collect())
    }

    /// The parts of a guest that an earlier life of this program has started, but for QEMU.
    pub fn found(config: &Config, guest: &Guest, layout: &Layout) -> Self {
        let mut parts = Self::default();
        for disk in guest.disks.iter().filter(|disk| !disk.shared) {
            if let Ok(places) = layout.disk(disk)
                && places.control.exists()
            {
                parts.disks.push(Disk::adopt(&disk.id, places));
            }
        }
        for nic in &guest.nics {
            let name = tap_name(&config.runtime_dir, &guest.name, &nic.id);
            let bridge = config.bridges.get(&nic.bridge).cloned().unwrap_or_default();
            parts.taps.push(Tap { name, nic: nic.id.clone(), bridge });
        }
        parts
    }

    /// Ends what runs, in order. Bounded; what does not end is told in the log.
    pub async fn undo(&self) {
        if let Some(qemu) = &self.qemu {
            kill(qemu).await;
        }
        for disk in &self.disks {
            disk.end().await;
        }
        for tap in &self.taps {
            if let Err(error) = tap.remove() {
                warn!(%error, "a tap stays");
            }
        }
    }
}

/// Ends a process at once, if it has not ended.
pub async fn kill(process: &Process) {
    if process.ended_within(Duration::ZERO).await {
        return;
    }
    process.signal(Signal::SIGKILL);
    if !process.ended_within(KILL_TIMEOUT).await {
        warn!(pid = process.pid(), "a killed process does not end: the kernel holds it");
    }
}

/// The monitor, as soon as it answers.
async fn monitor(path: &Path) -> Result<Qmp, MachineError> {
    let looking = async {
        let mut tick = interval(LOOK_EVERY);
        loop {
            tick.tick().await;
            if let Ok(qmp) = Qmp::connect(path).await {
                return qmp;
            }
        }
    };
    let late =
        || MachineError::Qemu(format!("its monitor does not answer within {} s", START_TIMEOUT.as_secs()));
    timeout(START_TIMEOUT, looking).await.map_err(|_| late())
}

fn boot_files(config: &Config, guest: &Guest) -> Result<(Option<PathBuf>, Option<PathBuf>), MachineError> {
    let Some(boot) = &guest.boot else { return Ok((None, None)) };
    let file = |inner: &Path| {
        let path = inner_path(&config.boot_dir, inner)?;
        match path.is_file() {
            true => Ok(path),
            false => Err(PathError { path, reason: "there is no such file to boot from".into() }),
        }
    };
    Ok((Some(file(&boot.kernel)?), boot.initrd.as_deref().map(file).transpose()?))
}

fn shared(image: &Path) -> Result<Backing, MachineError> {
    let found = std::fs::metadata(image).map_err(MachineError::file("open", image))?;
    Ok(match found.file_type().is_block_device() {
        true => Backing::Device(image.into()),
        false => Backing::File(image.into()),
    })
}
