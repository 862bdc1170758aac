//! Where the things of a guest are on this host, and how paths of a description become paths of the host.

use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};

use tracing::warn;

use super::MachineError;
use crate::config::Config;
use crate::guest::{Disk, Guest};
use crate::io::disk::Places;
use crate::io::inner_path::{PathError, inner_path};
use crate::io::run_as::RunAs;

/// The longest path of a UNIX socket in bytes.
const SOCKET_PATH_BYTES_MAX: usize = 107;

/// The places of one guest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layout {
    runtime: PathBuf,
    state: PathBuf,
    images: PathBuf,
    /// Who QEMU is, where it is not who we are.
    user: Option<RunAs>,
}

impl Layout {
    /// The places of `guest` on this host. The error names a socket whose path would be too long.
    pub fn of(config: &Config, guest: &Guest) -> Result<Self, MachineError> {
        let layout = Self {
            runtime: config.runtime_dir.join(&guest.name),
            state: config.state_dir.join("guests").join(&guest.name),
            images: config.images_dir.clone(),
            user: config.qemu.user.as_deref().map(RunAs::find).transpose()?,
        };
        let sockets = guest.disks.iter().map(|disk| layout.socket(&disk.id, "nbd"));
        for path in sockets.chain([layout.monitor(), layout.stream()]) {
            let bytes = path.as_os_str().as_bytes().len();
            if bytes > SOCKET_PATH_BYTES_MAX {
                let reason = format!(
                    "a socket's path has at most {SOCKET_PATH_BYTES_MAX} bytes, this one has {bytes}; \
                     use a shorter runtime_dir, or shorter names"
                );
                return Err(PathError { path, reason }.into());
            }
        }
        Ok(layout)
    }

    /// QEMU's monitor.
    pub fn monitor(&self) -> PathBuf {
        self.runtime.join("monitor")
    }

    /// The socket through which a saved state goes.
    pub fn stream(&self) -> PathBuf {
        self.runtime.join("stream")
    }

    /// The folder of this boot: other sockets of the guest may lie here too, and go with it.
    pub fn runtime(&self) -> &Path {
        &self.runtime
    }

    /// The folder that outlives a reboot.
    pub fn state(&self) -> &Path {
        &self.state
    }

    /// What the guest says on its serial console.
    pub fn console(&self) -> PathBuf {
        self.state.join("console.log")
    }

    /// What QEMU says.
    pub fn qemu_log(&self) -> PathBuf {
        self.state.join("qemu.log")
    }

    /// The places of a disk. The image may not be there yet, but may not lie outside of `images_dir` either.
    pub fn disk(&self, disk: &Disk) -> Result<Places, MachineError> {
        Ok(Places {
            image: inner_path(&self.images, &disk.image)?,
            nbd: self.socket(&disk.id, "nbd"),
            control: self.socket(&disk.id, "ctl"),
            replica: self.socket(&disk.id, "rep"),
            log: self.state.join(format!("{}.log", disk.id)),
        })
    }

    fn socket(&self, disk: &str, kind: &str) -> PathBuf {
        self.runtime.join(format!("{disk}.{kind}"))
    }

    /// Makes the folders, for nobody's eyes but ours.
    pub fn make(&self) -> Result<(), MachineError> {
        for folder in [&self.runtime, &self.state] {
            let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(folder);
            made.map_err(MachineError::file("make", folder))?;
        }
        let Some(user) = &self.user else { return Ok(()) };
        // Through the folders above it only leads the way; what lies in them is for nobody else to read.
        for folder in self.state.ancestors().skip(1).take(2) {
            let mode =
                fs::metadata(folder).map_err(MachineError::file("look at", folder))?.permissions().mode();
            let open = fs::set_permissions(folder, fs::Permissions::from_mode(mode | 0o011));
            open.map_err(MachineError::file("open to QEMU's user", folder))?;
        }
        for (folder, mode) in [(&self.runtime, 0o770), (&self.state, 0o710)] {
            user.lend(folder, mode).map_err(MachineError::file("lend to QEMU's user", folder))?;
        }
        let console = self.console();
        user.give_file(&console).map_err(MachineError::file("make", &console))
    }

    /// Who QEMU runs as, where that is another user.
    pub fn user(&self) -> Option<&RunAs> {
        self.user.as_ref()
    }

    /// Lets QEMU connect to a socket below [`Self::runtime`], whoever it runs as.
    pub fn lend_socket(&self, socket: &Path) -> Result<(), MachineError> {
        let Some(user) = &self.user else { return Ok(()) };
        user.lend(socket, 0o660).map_err(MachineError::file("lend to QEMU's user", socket))
    }

    /// Keeps the description, so that a later life of this program finds the guest again.
    pub fn keep(&self, guest: &Guest) -> Result<(), MachineError> {
        let text = toml::to_string(guest).expect("a description can be written as TOML");
        let (path, fresh) = (self.state.join("guest.toml"), self.state.join("guest.toml.new"));
        fs::write(&fresh, text).map_err(MachineError::file("write", &fresh))?;
        fs::rename(&fresh, &path).map_err(MachineError::file("write", &path))
    }

    /// Removes the sockets. Nothing may listen on them any more.
    pub fn remove(&self) {
        if let Err(error) = fs::remove_dir_all(&self.runtime)
            && error.kind() != std::io::ErrorKind::NotFound
        {
            warn!(path = %self.runtime.display(), %error, "cannot remove a guest's sockets");
        }
    }
}

/// The guests of which this host keeps a description, whether they run or not. What cannot be read is told in the log.
pub fn known_guests(config: &Config) -> Vec<Guest> {
    let mut guests = Vec::new();
    let Ok(folders) = fs::read_dir(config.state_dir.join("guests")) else { return guests };
    for folder in folders.flatten() {
        let path = folder.path().join("guest.toml");
        let Ok(text) = fs::read_to_string(&path) else { continue };
        match Guest::parse(&text) {
            Ok(guest) => guests.push(guest),
            Err(error) => warn!(path = %path.display(), %error, "a kept description cannot be read"),
        }
    }
    guests.sort_by(|a, b| a.name.cmp(&b.name));
    guests
}
