//! Small JSON files that outlive the daemon: one a thing, named after it, replaced as a whole.
//!
//! A file that cannot be read is left where it is, and said aloud: it may be all that is known of a guest.

use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use serde::Serialize;
use serde::de::DeserializeOwned;
use tracing::warn;

/// A folder of such files.
#[derive(Clone, Debug)]
pub struct Folder(PathBuf);

impl Folder {
    /// The folder at `path`, made if it is not there, for nobody else to read.
    pub fn open(path: PathBuf) -> io::Result<Self> {
        fs::DirBuilder::new().recursive(true).mode(0o700).create(&path)?;
        Ok(Self(path))
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.join(format!("{name}.json"))
    }

    /// Everything that can be read. Errors: the folder cannot be listed.
    pub fn load<T: DeserializeOwned>(&self) -> io::Result<Vec<T>> {
        let mut loaded = Vec::new();
        for entry in fs::read_dir(&self.0)? {
            let path = entry?.path();
            if path.extension().is_none_or(|extension| extension != "json") {
                continue;
            }
            match read(&path) {
                Ok(value) => loaded.push(value),
                Err(error) => {
                    warn!(file = %path.display(), %error, "cannot read this file; it is left alone")
                }
            }
        }
        Ok(loaded)
    }

    /// Writes a file, durable when this returns; a crash leaves the old one or the new one.
    pub fn save<T: Serialize>(&self, name: &str, value: &T) -> io::Result<()> {
        let next = self.0.join(format!("{name}.next"));
        let mut file = File::options().write(true).create(true).truncate(true).mode(0o600).open(&next)?;
        file.write_all(&serde_json::to_vec_pretty(value)?)?;
        file.sync_all()?;
        fs::rename(&next, self.path(name))?;
        File::open(&self.0)?.sync_all()
    }

    /// Removes a file; one that is not there is as good.
    pub fn remove(&self, name: &str) -> io::Result<()> {
        match fs::remove_file(self.path(name)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }
}

fn read<T: DeserializeOwned>(path: &Path) -> io::Result<T> {
    Ok(serde_json::from_slice(&fs::read(path)?)?)
}
