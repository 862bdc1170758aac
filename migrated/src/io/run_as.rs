//! The user that QEMU runs as, where the configuration names one: `[qemu] user`.
//!
//! ```text
//! migrated, root ── fork ── groups, group, user ── exec ──► QEMU, that user from its first instruction
//!     └── lends it: the guest's folder of sockets, each socket that it connects to, its console, its taps
//! ```
//!
//! QEMU is not root for a moment. It never owns what migrated relies on: folders and sockets stay root's and are lent
//! to the user's group, for the confined blockd of a disk is root without the right to pass by what modes forbid.

use std::ffi::CString;
use std::fs::{OpenOptions, Permissions, set_permissions};
use std::io;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt, chown};
use std::path::Path;

use nix::unistd::{Gid, Uid, User, getgrouplist};
use thiserror::Error;

/// Why QEMU cannot run as a user.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum RunAsError {
    /// There is none of that name.
    #[error(
        "qemu.user: there is no user {0:?} on this host; make it (useradd --system {0}), or leave qemu.user out"
    )]
    Unknown(String),
    /// It is root.
    #[error("qemu.user: {0:?} is root; name another user, or leave qemu.user out")]
    Root(String),
    /// The users cannot be looked up.
    #[error("qemu.user: cannot look up {0:?}: {1}")]
    Lookup(String, nix::errno::Errno),
}

/// A user to run as.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RunAs {
    pub(super) uid: Uid,
    pub(super) gid: Gid,
    /// All groups that it belongs to: /dev/kvm is one's.
    pub(super) groups: Vec<Gid>,
}

impl RunAs {
    /// The user of that name.
    pub fn find(name: &str) -> Result<Self, RunAsError> {
        let failed = |errno| RunAsError::Lookup(name.to_owned(), errno);
        let unknown = || RunAsError::Unknown(name.to_owned());
        let user = User::from_name(name).map_err(failed)?.ok_or_else(unknown)?;
        if user.uid.is_root() {
            return Err(RunAsError::Root(name.to_owned()));
        }
        let cname = CString::new(name).map_err(|_| unknown())?;
        let groups = getgrouplist(&cname, user.gid).map_err(failed)?;
        Ok(Self { uid: user.uid, gid: user.gid, groups })
    }

    /// The user's number.
    pub fn uid(&self) -> u32 {
        self.uid.as_raw()
    }

    /// Lets the user's group into a folder or at a socket; the owner stays.
    pub fn lend(&self, path: &Path, mode: u32) -> io::Result<()> {
        chown(path, None, Some(self.gid.as_raw()))?;
        set_permissions(path, Permissions::from_mode(mode))
    }

    /// Makes a file that the user may append to, and nobody else but root reads.
    pub fn give_file(&self, path: &Path) -> io::Result<()> {
        OpenOptions::new().append(true).create(true).mode(0o600).open(path)?;
        chown(path, Some(self.uid.as_raw()), Some(self.gid.as_raw()))
    }
}

#[cfg(test)]
mod tests {
    use super::{RunAs, RunAsError};

    #[test]
    fn a_user_is_found_or_the_reason_says_what_to_do() {
        let nobody = RunAs::find("nobody").unwrap();
        assert!(nobody.uid() != 0 && nobody.groups.contains(&nobody.gid));
        let missing = RunAs::find("no-such-user").unwrap_err();
        assert!(missing.to_string().contains("useradd --system no-such-user"), "{missing}");
        assert_eq!(RunAs::find("root").unwrap_err(), RunAsError::Root("root".into()));
        assert_eq!(RunAs::find("a\0b").unwrap_err(), RunAsError::Unknown("a\0b".into()));
    }
}
