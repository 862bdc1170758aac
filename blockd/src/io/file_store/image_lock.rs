//! The locks that keep everybody else off an image that is served: other daemons, QEMU and its tools, and whoever claims a
//! block device.
//!
//! ```text
//! O_EXCL             of a block device: mounts, LVM, RAID, other daemons
//! byte LOCK_BYTE     ours (D12): another daemon, and the last requests of one that died
//! bytes from 100     QEMU's permissions that are used            ┐ taken as a QEMU takes them that opens the image,
//! bytes from 200     QEMU's permissions that nobody else may use ┘ then looked whether another's contradict
//! ```
//!
//! All are locks of the open file description that all I/O goes through: they go with its last request, whoever dies. The
//! two parts of [`FileStore::lock`] are apart because the first holds without exception, and the second may once have one:
//! a QEMU whose own image is put under a daemon while it runs.
//!
//! Refuses to serve beside anybody. Who writes and takes no lock at all is looked for once ([`FileStore::open_alone`]).

use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, fcntl};
use thiserror::Error;
use tracing::info;

use super::lease::{self, Written};
use super::{FileStore, OpenError, Options};
use crate::io::holders::Holders;

/// The byte that is locked: "blockd" read as a number (about 98 TiB), far from the bytes 100 to
/// 299 that QEMU locks and past the end of any image, where a lock is as good.
pub const LOCK_BYTE: i64 = 0x626c_6f63_6b64;

/// How often a lock that is held is tried again.
const RETRY_EVERY: Duration = Duration::from_millis(10);

/// Where QEMU locks what it does with an image, and where what it lets nobody else do
/// (`RAW_LOCK_PERM_BASE` and `RAW_LOCK_SHARED_BASE` in its block/file-posix.c).
const USED_FROM: i64 = 100;
const UNSHARED_FROM: i64 = 200;

/// A permission of QEMU's block layer (`BLK_PERM_*`); its number is that of its bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Permission {
    Read = 0,
    Write = 1,
    Resize = 3,
}

impl Permission {
    /// The word that QEMU has for it in its own messages.
    fn name(self) -> &'static str {
        match self {
            Permission::Read => "consistent read",
            Permission::Write => "write",
            Permission::Resize => "resize",
        }
    }
}

/// What is done with an image, and what nobody else may do meanwhile.
#[derive(Debug, PartialEq, Eq)]
struct Claim {
    used: &'static [Permission],
    unshared: &'static [Permission],
}

/// As a QEMU that opens the image for a guest: readers are let in, writers are not.
const WRITER: Claim = Claim {
    used: &[Permission::Read, Permission::Write],
    unshared: &[Permission::Write, Permission::Resize],
};
const READER: Claim = Claim { used: &[Permission::Read], ..WRITER };

impl Claim {
    fn bytes(&self) -> impl Iterator<Item = i64> {
        let at = |from: i64| move |permission: &Permission| from + *permission as i64;
        self.used.iter().map(at(USED_FROM)).chain(self.unshared.iter().map(at(UNSHARED_FROM)))
    }

    /// The bytes that nobody else may have locked, each with the permission that it is about.
    fn contradicted_by(&self) -> impl Iterator<Item = (i64, Permission)> {
        let at = |from: i64| move |permission: &Permission| (from + *permission as i64, *permission);
        self.used.iter().map(at(UNSHARED_FROM)).chain(self.unshared.iter().map(at(USED_FROM)))
    }
}

/// Why an image could not be locked.
#[derive(Debug, Error)]
pub enum LockError {
    /// Somebody else serves it.
    #[error(
        "another blockd serves the image {path} (its lock was held for {waited_ms} ms): {by}; stop it first"
    )]
    Held {
        /// Which image.
        path: PathBuf,
        /// How long this was tried, in milliseconds.
        waited_ms: u128,
        /// Who has it.
        by: Holders,
    },
    /// A QEMU or one of its tools has it.
    #[error(
        "the image {path} is in use by {by}: QEMU's \"{permission}\" lock on it was held for {waited_ms} ms; end that \
         first, for two that write to one image destroy it"
    )]
    InUse {
        /// Which image.
        path: PathBuf,
        /// How long this was tried, in milliseconds.
        waited_ms: u128,
        /// What is locked, in QEMU's word.
        permission: &'static str,
        /// Who has it.
        by: Holders,
    },
    /// Somebody writes to it without a lock.
    #[error(
        "the image {path} is open for writing by {by}; end that first, for two that write to one image destroy it"
    )]
    Written {
        /// Which image.
        path: PathBuf,
        /// Who has it.
        by: Holders,
    },
    /// It cannot be opened.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The file system has no such locks, or the like.
    #[error("cannot lock the image {path}")]
    Failed {
        /// Which image.
        path: PathBuf,
        /// What the system said.
        #[source]
        errno: Errno,
    },
}

impl FileStore {
    /// Opens an image; waits up to `timeout` for a device that the last requests of a predecessor still hold.
    pub fn open_within(path: &Path, options: Options, timeout: Duration) -> Result<Self, OpenError> {
        let mut wait = Wait::new(timeout);
        loop {
            match Self::open_once(path, options) {
                Err(OpenError::Busy { .. }) if wait.goes_on(path) => {}
                Err(OpenError::Busy { path, .. }) => {
                    return Err(OpenError::Busy { by: Holders::of(&path), path });
                }
                opened => return opened,
            }
        }
    }

    /// Opens and locks an image that nobody else writes to, lock or no lock; waits up to `timeout` for each who may be about to
    /// end. For the first start alone: a guest that runs gets its disk again all the same.
    pub fn open_alone(path: &Path, options: Options, timeout: Duration) -> Result<Self, LockError> {
        let mut wait = Wait::new(timeout);
        loop {
            // Before the image is open here, which would be a writer too.
            let by = unlocked_writers(path);
            let store = Self::open_within(path, options, timeout)?;
            // Who has a lock is named by it.
            store.lock(timeout)?;
            match by {
                None => return Ok(store),
                Some(_) if wait.goes_on(path) => {}
                Some(by) => return Err(LockError::Written { path: path.into(), by }),
            }
        }
    }

    /// Locks the image for this store alone, or among readers where it is read-only; waits up to
    /// `timeout` for a predecessor's last requests. The locks go with the store.
    pub fn lock(&self, timeout: Duration) -> Result<(), LockError> {
        let mut wait = Wait::new(timeout);
        let locked = self.lock_own_byte(&mut wait).and_then(|()| self.lock_against_qemu(&mut wait));
        if locked.is_err() {
            // What the system answers to this changes nothing: without them the store is of no use.
            let _ = self.set_lock(libc::F_UNLCK, 0, 0);
        }
        locked
    }

    /// Locks against other daemons alone: for who does not touch the image, but what is said of it.
    pub fn lock_against_daemons(&self, timeout: Duration) -> Result<(), LockError> {
        self.lock_own_byte(&mut Wait::new(timeout))
    }

    fn lock_own_byte(&self, wait: &mut Wait) -> Result<(), LockError> {
        let kind = if self.read_only { libc::F_RDLCK } else { libc::F_WRLCK };
        loop {
            match self.set_lock(kind, LOCK_BYTE, 1) {
                Ok(()) => return Ok(()),
                Err(Errno::EAGAIN | Errno::EACCES | Errno::EINTR) => {}
                Err(errno) => return Err(self.lock_failed(errno)),
            }
            if !wait.goes_on(&self.path) && self.is_locked(kind, LOCK_BYTE)? {
                let (path, waited_ms) = (self.path.clone(), wait.waited_ms());
                return Err(LockError::Held { waited_ms, by: Holders::of(&path), path });
            }
        }
    }

    /// In QEMU's order: first the locks, then the look. So of two that come at once none overlooks the other. The locks
    /// are kept while somebody is waited for: a QEMU that comes meanwhile gives up, and we do not.
    fn lock_against_qemu(&self, wait: &mut Wait) -> Result<(), LockError> {
        let claim = if self.read_only { READER } else { WRITER };
        for byte in claim.bytes() {
            self.set_lock(libc::F_RDLCK, byte, 1).map_err(|errno| self.lock_failed(errno))?;
        }
        loop {
            let mut contradicted = None;
            for (byte, permission) in claim.contradicted_by() {
                if self.is_locked(libc::F_WRLCK, byte)? {
                    contradicted = Some(permission.name());
                }
            }
            let Some(permission) = contradicted else { return Ok(()) };
            if !wait.goes_on(&self.path) {
                let (path, waited_ms) = (self.path.clone(), wait.waited_ms());
                return Err(LockError::InUse { waited_ms, permission, by: Holders::of(&path), path });
            }
        }
    }

    fn set_lock(&self, kind: libc::c_int, start: i64, len: i64) -> Result<(), Errno> {
        fcntl(&self.file, FcntlArg::F_OFD_SETLK(&request(kind, start, len))).map(drop)
    }

    /// Whether somebody else has a lock that keeps one of this kind off the byte.
    fn is_locked(&self, kind: libc::c_int, byte: i64) -> Result<bool, LockError> {
        let mut found = request(kind, byte, 1);
        fcntl(&self.file, FcntlArg::F_OFD_GETLK(&mut found)).map_err(|errno| self.lock_failed(errno))?;
        Ok(i32::from(found.l_type) != libc::F_UNLCK)
    }

    fn lock_failed(&self, errno: Errno) -> LockError {
        LockError::Failed { path: self.path.clone(), errno }
    }
}

/// Who has it open for writing, or a loop device made of it; none: nobody, as far as the kernel tells.
fn unlocked_writers(image: &Path) -> Option<Holders> {
    match lease::written(image) {
        Written::ByNobody => None,
        Written::BySomebody => Some(Holders::of(image).writers()),
        Written::Unknown => Some(Holders::of(image).writers()).filter(|by| !by.0.is_empty()),
    }
}

fn request(kind: libc::c_int, start: i64, len: i64) -> libc::flock {
    libc::flock {
        l_type: kind as _,
        l_whence: libc::SEEK_SET as _,
        l_start: start,
        l_len: len, // 0: to the end of all
        l_pid: 0,   // required for locks of an open file description
    }
}

/// Patience for somebody who may be about to end, told once.
struct Wait {
    started: Instant,
    timeout: Duration,
    told: bool,
}

impl Wait {
    fn new(timeout: Duration) -> Self {
        Self { started: Instant::now(), timeout, told: false }
    }

    /// Waits a moment; false once the time is over.
    fn goes_on(&mut self, image: &Path) -> bool {
        if self.started.elapsed() >= self.timeout {
            return false;
        }
        if !self.told {
            info!(image = %image.display(), "waiting for the image: somebody uses it, or the last requests of one that died do");
            self.told = true;
        }
        thread::sleep(RETRY_EVERY);
        true
    }

    fn waited_ms(&self) -> u128 {
        self.started.elapsed().as_millis()
    }
}

#[cfg(test)]
mod tests;
