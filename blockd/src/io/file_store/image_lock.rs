//! The lock that keeps two daemons, or a daemon and its predecessor's last writes, off one image
//! (D12).

use std::path::PathBuf;
use std::thread;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, fcntl};
use thiserror::Error;
use tracing::info;

use super::FileStore;

/// The byte that is locked: "blockd" read as a number (about 98 TiB), far from the bytes 100 to
/// 299 that QEMU locks and past the end of any image, where a lock is as good.
pub const LOCK_BYTE: i64 = 0x626c_6f63_6b64;

/// How often a lock that is held is tried again.
const RETRY_EVERY: Duration = Duration::from_millis(10);

/// Why an image could not be locked.
#[derive(Debug, Error)]
pub enum LockError {
    /// Somebody else serves it.
    #[error("another blockd serves the image {path} (its lock was held for {waited_ms} ms); stop it first")]
    Held {
        /// Which image.
        path: PathBuf,
        /// How long this was tried, in milliseconds.
        waited_ms: u128,
    },
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
    /// Locks the image for this store alone, or among readers where it is read-only; waits up to
    /// `timeout` for a predecessor's last requests. The lock goes with the store.
    pub fn lock(&self, timeout: Duration) -> Result<(), LockError> {
        let failed = |errno| LockError::Failed { path: self.path.clone(), errno };
        let wanted = self.lock_request();
        let started = Instant::now();
        let mut told = false;
        loop {
            match fcntl(&self.file, FcntlArg::F_OFD_SETLK(&wanted)) {
                Ok(_) => return Ok(()),
                Err(Errno::EAGAIN | Errno::EACCES | Errno::EINTR) => {}
                Err(errno) => return Err(failed(errno)),
            }
            if started.elapsed() >= timeout && self.lock_is_held().map_err(failed)? {
                let waited_ms = started.elapsed().as_millis();
                return Err(LockError::Held { path: self.path.clone(), waited_ms });
            }
            if !told {
                info!(image = %self.path.display(), "waiting for the image's lock: another blockd, or the last requests of one that died");
                told = true;
            }
            thread::sleep(RETRY_EVERY);
        }
    }

    fn lock_is_held(&self) -> Result<bool, Errno> {
        let mut found = self.lock_request();
        fcntl(&self.file, FcntlArg::F_OFD_GETLK(&mut found))?;
        Ok(i32::from(found.l_type) != libc::F_UNLCK)
    }

    fn lock_request(&self) -> libc::flock {
        let kind = if self.read_only { libc::F_RDLCK } else { libc::F_WRLCK };
        libc::flock {
            l_type: kind as _,
            l_whence: libc::SEEK_SET as _,
            l_start: LOCK_BYTE,
            l_len: 1,
            l_pid: 0, // required for locks of an open file description
        }
    }
}
