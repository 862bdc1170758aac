//! The daemon's folders and its socket, held by locks: never two daemons for one host.
//!
//! ```text
//! state_dir/lock    flock, for as long as the process lives
//! runtime_dir/lock  flock, likewise: the socket below it is ours to replace
//! runtime_dir/api.sock  mode 0600; in place at once with its mode, gone at an orderly end
//! ```

use std::fs::{self, DirBuilder, File, Permissions};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};
use tokio::net::UnixListener;

use crate::config::Config;

/// The locks of a running daemon.
#[derive(Debug)]
pub(super) struct Taken {
    socket: PathBuf,
    _locks: [Flock<File>; 2],
}

impl Taken {
    /// Makes the folders where they are missing, and takes them for this process.
    pub(super) fn take(config: &Config) -> Result<Self> {
        let locks = [
            lock("state_dir", &config.state_dir, 0o700)?,
            // Not only for us: QEMU may run as another user, and finds its sockets below.
            lock("runtime_dir", &config.runtime_dir, 0o711)?,
        ];
        Ok(Self { socket: config.runtime_dir.join("api.sock"), _locks: locks })
    }

    /// Where the API is.
    pub(super) fn socket(&self) -> &Path {
        &self.socket
    }

    /// Listens at the API's socket. One that a dead daemon left is replaced.
    pub(super) fn listen(&self) -> Result<UnixListener> {
        let next = self.socket.with_extension("next");
        let place = || format!("cannot listen at {}", self.socket.display());
        if next.exists() {
            fs::remove_file(&next).with_context(place)?;
        }
        let listener = UnixListener::bind(&next).with_context(place)?;
        fs::set_permissions(&next, Permissions::from_mode(0o600)).with_context(place)?;
        fs::rename(&next, &self.socket).with_context(place)?;
        Ok(listener)
    }
}

impl Drop for Taken {
    fn drop(&mut self) {
        // Still ours: the locks go after this.
        let _ = fs::remove_file(&self.socket);
    }
}

fn lock(key: &str, folder: &Path, mode: u32) -> Result<Flock<File>> {
    DirBuilder::new()
        .recursive(true)
        .mode(mode)
        .create(folder)
        .with_context(|| format!("{key}: cannot make {}", folder.display()))?;
    let path = folder.join("lock");
    let file = File::options().write(true).create(true).truncate(false).mode(0o600).open(&path);
    let file = file.with_context(|| format!("{key}: cannot open {}", path.display()))?;
    match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
        Ok(lock) => Ok(lock),
        Err((_, Errno::EWOULDBLOCK)) => {
            bail!(
                "{key}: another migrated uses {}; end it, or give this one a folder of its own",
                folder.display()
            )
        }
        Err((_, errno)) => bail!("{key}: cannot lock {}: {errno}", path.display()),
    }
}
