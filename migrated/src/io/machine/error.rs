//! Why a guest does not start, or does not do what it was told. Each says what, where, and what to do.

use std::io;
use std::path::PathBuf;

use thiserror::Error;

use crate::io::disk::DiskError;
use crate::io::host::HostError;
use crate::io::inner_path::PathError;
use crate::io::qmp::QmpError;
use crate::io::run_as::RunAsError;
use crate::io::tap::TapError;

/// What can go wrong with a guest of this host.
#[derive(Debug, Error)]
pub enum MachineError {
    /// Its description is wrong.
    #[error("the description is wrong: {}", .0.join("; "))]
    Description(Vec<String>),
    /// It runs already.
    #[error("the guest {0} runs here already; stop it first")]
    Running(String),
    /// A card's bridge has no bridge here.
    #[error(
        "nic {nic}: no bridge of this host is called {bridge:?}; add it under [bridges] in the configuration"
    )]
    Bridge {
        /// The card.
        nic: String,
        /// The description's name.
        bridge: String,
    },
    /// A path of the description is not to be had.
    #[error(transparent)]
    Path(#[from] PathError),
    /// Images are no disks for it.
    #[error("{}", .0.join("; "))]
    Images(Vec<String>),
    /// The user that QEMU shall run as is not to be had.
    #[error(transparent)]
    User(#[from] RunAsError),
    /// The host does not give what is needed.
    #[error(transparent)]
    Host(#[from] HostError),
    /// QEMU did not start, in its own words.
    #[error("QEMU: {0}")]
    Qemu(String),
    /// QEMU did not do something.
    #[error(transparent)]
    Qmp(#[from] QmpError),
    /// A disk's daemon did not do something.
    #[error(transparent)]
    Disk(#[from] DiskError),
    /// A tap is not as it should be.
    #[error(transparent)]
    Tap(#[from] TapError),
    /// A file could not be read or written.
    #[error("cannot {action} {}: {cause}", path.display())]
    File {
        /// What was tried.
        action: &'static str,
        /// Which file.
        path: PathBuf,
        /// What the system said.
        cause: io::Error,
    },
    /// A state was not saved, or not read.
    #[error("{0}")]
    Saved(String),
}

impl MachineError {
    /// A file that could not be read or written.
    pub fn file(action: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |cause| Self::File { action, path, cause }
    }
}
