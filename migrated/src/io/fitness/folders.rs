//! The configured folders: there, folders, for this user to use, and for nobody else to change.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use nix::fcntl::AtFlags;
use nix::unistd::{AccessFlags, faccessat, geteuid};

use crate::config::Config;
use crate::finding::Finding;

/// What a folder is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Use {
    /// The daemon makes it, and writes there.
    Made,
    /// It has to be there, and is written to.
    Written,
    /// It has to be there, and is read.
    Read,
}

/// What is at its place.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Found {
    /// Nothing; the nearest folder above it, and whether something can be made there.
    Absent { above: PathBuf, is_writable: bool },
    /// Something else.
    NoFolder,
    /// A folder.
    Folder { owner: u32, mode: u32, is_usable: bool },
    /// It cannot be looked at.
    Hidden(String),
}

/// All of them.
pub fn look(config: &Config) -> Vec<Finding> {
    let folders = [
        ("state_dir", &config.state_dir, Use::Made),
        ("runtime_dir", &config.runtime_dir, Use::Made),
        ("images_dir", &config.images_dir, Use::Written),
        ("boot_dir", &config.boot_dir, Use::Read),
    ];
    let us = geteuid().as_raw();
    folders
        .into_iter()
        .filter_map(|(key, path, purpose)| judge(key, path, purpose, find(path, purpose), us))
        .collect()
}

fn find(path: &Path, purpose: Use) -> Found {
    match fs::metadata(path) {
        Ok(found) if !found.is_dir() => Found::NoFolder,
        Ok(found) => {
            let is_usable = may(path, purpose != Use::Read);
            Found::Folder { owner: found.uid(), mode: found.mode() & 0o7777, is_usable }
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let above = path.ancestors().skip(1).find(|above| above.exists()).unwrap_or(Path::new("/"));
            Found::Absent { above: above.to_owned(), is_writable: above.is_dir() && may(above, true) }
        }
        Err(error) => Found::Hidden(error.to_string()),
    }
}

/// Whether this process may use a folder, as the kernel would say: also of a file system that is read-only.
fn may(path: &Path, write: bool) -> bool {
    let wanted = AccessFlags::R_OK | AccessFlags::X_OK;
    let wanted = if write { wanted | AccessFlags::W_OK } else { wanted };
    faccessat(nix::fcntl::AT_FDCWD, path, wanted, AtFlags::AT_EACCESS).is_ok()
}

fn judge(key: &str, path: &Path, purpose: Use, found: Found, us: u32) -> Option<Finding> {
    let shown = path.display();
    let finding = |what: String, remedy: String| Some(Finding::new(key, what, remedy));
    match found {
        Found::Absent { is_writable: true, .. } if purpose == Use::Made => None,
        Found::Absent { above, .. } if purpose == Use::Made => finding(
            format!("{shown} is not there, and cannot be made in {}", above.display()),
            format!("mkdir -p {shown}, or name another"),
        ),
        Found::Absent { .. } => finding(format!("{shown} is not there"), format!("mkdir -p {shown}")),
        Found::NoFolder => finding(format!("{shown} is no folder"), "name a folder".to_owned()),
        Found::Hidden(why) => finding(
            format!("{shown} cannot be looked at: {why}"),
            "look at the folders above it, and at the user that runs this".to_owned(),
        ),
        Found::Folder { owner, .. } if owner != us && owner != 0 => finding(
            format!("{shown} belongs to user {owner}, who could change what lies there"),
            format!("chown root {shown}"),
        ),
        Found::Folder { mode, .. } if mode & 0o022 != 0 => finding(
            format!("{shown} can be written to by others (mode {mode:o})"),
            format!("chmod go-w {shown}"),
        ),
        Found::Folder { is_usable: false, .. } => finding(
            format!(
                "{shown} cannot be {} by user {us}",
                if purpose == Use::Read { "read" } else { "written to" }
            ),
            "mount it to be written to, or run this as root".to_owned(),
        ),
        Found::Folder { .. } => None,
    }
}

#[cfg(test)]
mod tests {
    use super::{Found, Use, judge};
    use std::path::{Path, PathBuf};

    fn told(purpose: Use, found: Found) -> String {
        judge("images_dir", Path::new("/srv/x"), purpose, found, 0)
            .map_or(String::new(), |finding| finding.to_string())
    }

    #[test]
    fn a_folder_is_there_and_only_ours() {
        let folder = |owner, mode, is_usable| Found::Folder { owner, mode, is_usable };
        let absent = |is_writable| Found::Absent { above: PathBuf::from("/srv"), is_writable };
        for (purpose, found, what) in [
            (Use::Written, folder(0, 0o755, true), ""),
            (Use::Made, folder(0, 0o700, true), ""),
            (Use::Made, absent(true), ""),
            (
                Use::Made,
                absent(false),
                "images_dir: /srv/x is not there, and cannot be made in /srv; mkdir -p /srv/x, or name another",
            ),
            (Use::Written, absent(true), "images_dir: /srv/x is not there; mkdir -p /srv/x"),
            (Use::Read, absent(false), "images_dir: /srv/x is not there; mkdir -p /srv/x"),
            (Use::Written, Found::NoFolder, "images_dir: /srv/x is no folder; name a folder"),
            (
                Use::Written,
                folder(1000, 0o755, true),
                "images_dir: /srv/x belongs to user 1000, who could change what lies there; chown root /srv/x",
            ),
            (
                Use::Written,
                folder(0, 0o1777, true),
                "images_dir: /srv/x can be written to by others (mode 1777); chmod go-w /srv/x",
            ),
            (
                Use::Written,
                folder(0, 0o755, false),
                "images_dir: /srv/x cannot be written to by user 0; mount it to be written to, or run this as root",
            ),
        ] {
            assert_eq!(told(purpose, found), what);
        }
    }
}
