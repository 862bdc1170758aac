//! Hold points of the daemons: an operation of a move waits before it begins until the test lets it go.
//!
//! ```ignore
//! let sealing = hosts.hold(End::SiteA, "source-seal");
//! let sending = hosts.send(End::SiteA, &["--wan", "web", "site-b"]);
//! sealing.wait();              // the guest is paused, and nothing of it is handed over
//! hosts.world.wan.cut(End::SiteB);
//! sealing.let_go();
//! ```

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use super::Hosts;
use super::sending::MOVE_LIMIT;
use crate::site::Site;
use crate::wait::wait_until;
use crate::wan::End;

/// A site's folder of files that hold.
pub(super) const FOLDER: &str = "holds";

/// The daemon wants it to be root's alone.
pub(super) fn close(site: &Site) {
    fs::set_permissions(site.join(FOLDER), Permissions::from_mode(0o700)).expect("close a folder");
}

/// Whatever comes to one point of one host waits there; until this value is dropped, or lets it go.
#[derive(Debug)]
pub struct Hold {
    file: PathBuf,
    point: String,
}

impl Hosts {
    /// Hold whatever comes to a point of a host's daemon: `source-OPERATION`, `destination-REQUEST`, `destination-look` or
    /// `destination-start`.
    pub fn hold(&self, end: End, point: &str) -> Hold {
        let file = self.site(end).join(FOLDER).join(point);
        fs::write(&file, "").expect("make a file that holds");
        Hold { file, point: point.to_owned() }
    }
}

impl Hold {
    /// Wait until something is held.
    #[track_caller]
    pub fn wait(&self) {
        let held = self.file.with_file_name(format!("{}.held", self.point));
        wait_until(MOVE_LIMIT, &format!("something to be held at {}", self.point), || held.exists());
    }

    /// What is held goes on, and what comes later passes.
    pub fn let_go(self) {}
}

impl Drop for Hold {
    fn drop(&mut self) {
        // The folder of a world that is gone is gone too.
        let _ = fs::remove_file(&self.file);
    }
}
