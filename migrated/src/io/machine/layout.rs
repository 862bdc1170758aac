//! Where the things of a guest are on this host, and how paths of a description become paths of the host.

use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use tracing::warn;

use super::MachineError;
use crate::config::Config;
use crate::guest::{Disk, Guest};
use crate::io::disk::Places;

/// The longest path of a UNIX socket in bytes.
const SOCKET_PATH_BYTES_MAX: usize = 107;

/// The places of one guest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layout {
    runtime: PathBuf,
    state: PathBuf,
    images: PathBuf,
}

impl Layout {
    /// The places of `guest` on this host. The error names a socket whose path would be too long.
    pub fn of(config: &Config, guest: &Guest) -> Result<Self, MachineError> {
        let layout = Self {
            runtime: config.runtime_dir.join(&guest.name),
            state: config.state_dir.join("guests").join(&guest.name),
            images: config.images_dir.clone(),
        };
        let sockets = guest.disks.iter().map(|disk| layout.socket(&disk.id, "nbd"));
        for path in sockets.chain([layout.monitor(), layout.stream()]) {
            let bytes = path.as_os_str().as_bytes().len();
            if bytes > SOCKET_PATH_BYTES_MAX {
                let reason = format!(
                    "a socket's path has at most {SOCKET_PATH_BYTES_MAX} bytes, this one has {bytes}; \
                     use a shorter runtime_dir, or shorter names"
                );
                return Err(MachineError::Path { path, reason });
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
        Ok(())
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

/// The path of the host that `inner` means below `folder`. Links are followed, but not out of the folder; the last
/// part need not exist.
pub fn inner_path(folder: &Path, inner: &Path) -> Result<PathBuf, MachineError> {
    let path = folder.join(inner);
    let refuse = |reason: String| MachineError::Path { path: path.clone(), reason };
    if !crate::guest::is_inner_path(inner) {
        return Err(refuse("this is no path below a folder".into()));
    }
    let root = fs::canonicalize(folder)
        .map_err(|error| refuse(format!("the folder {} is not there: {error}", folder.display())))?;
    let found = match fs::canonicalize(&path) {
        Ok(found) => found,
        // Not there, or a link to what is not there.
        Err(_) if fs::symlink_metadata(&path).is_ok() => {
            return Err(refuse("this is a link to nothing".into()));
        }
        Err(_) => {
            let (parent, name) = (path.parent().unwrap_or(folder), path.file_name().unwrap_or_default());
            let parent = fs::canonicalize(parent)
                .map_err(|error| refuse(format!("its folder is not there: {error}; make it")))?;
            parent.join(name)
        }
    };
    if !found.starts_with(&root) {
        return Err(refuse(format!("it leads out of {}, which is not allowed", root.display())));
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;
    use std::path::Path;

    use super::inner_path;

    #[test]
    fn a_path_stays_in_its_folder_through_links_too() {
        let root = std::env::temp_dir().join(format!("layout-{}", std::process::id()));
        let images = root.join("images");
        fs::create_dir_all(images.join("sub")).unwrap();
        fs::write(images.join("a.raw"), "").unwrap();
        fs::write(root.join("outside"), "").unwrap();
        symlink(images.join("a.raw"), images.join("good")).unwrap();
        symlink("../outside", images.join("bad")).unwrap();
        symlink("..", images.join("up")).unwrap();
        symlink("nowhere", images.join("dangling")).unwrap();
        let path = |inner: &str| inner_path(&images, Path::new(inner)).map_err(|error| error.to_string());
        let real = fs::canonicalize(&images).unwrap();
        assert_eq!(path("a.raw").unwrap(), real.join("a.raw"));
        assert_eq!(path("good").unwrap(), real.join("a.raw"));
        assert_eq!(path("sub/new.raw").unwrap(), real.join("sub/new.raw"));
        let cases = [
            ("bad", "leads out of"),
            ("up/new", "leads out of"),
            ("dangling", "link to nothing"),
            ("no/new", "make it"),
            ("../outside", "no path below"),
        ];
        for (inner, reason) in cases {
            assert!(path(inner).is_err_and(|error| error.contains(reason)), "{inner}: {:?}", path(inner));
        }
        fs::remove_dir_all(&root).unwrap();
    }
}
