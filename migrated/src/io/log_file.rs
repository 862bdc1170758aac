//! The end of a program's log, for whoever has to say why it did not start.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use crate::said;

/// Bytes of a log in which a reason is looked for.
const TAIL_BYTES: u64 = 64 << 10;

/// A log file, from the place where a program began to write.
#[derive(Clone, Debug)]
pub struct LogFile {
    path: PathBuf,
    from: u64,
}

impl LogFile {
    /// What is written to the file at `path` from now on.
    pub fn from_here(path: &Path) -> Self {
        let from = std::fs::metadata(path).map(|file| file.len()).unwrap_or_default();
        Self { path: path.into(), from }
    }

    /// Why the program ended, as far as it says so.
    pub fn reason(&self) -> String {
        let text = self.read().unwrap_or_default();
        said::reason(&text).unwrap_or_else(|| format!("(nothing; see {})", self.path.display()))
    }

    fn read(&self) -> std::io::Result<String> {
        let mut file = File::open(&self.path)?;
        let end = file.metadata()?.len();
        file.seek(SeekFrom::Start(self.from.max(end.saturating_sub(TAIL_BYTES))))?;
        let mut bytes = Vec::new();
        file.take(TAIL_BYTES).read_to_end(&mut bytes)?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }
}
