//! Files that people wrote, as text, with errors that name them.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

/// More than any configuration or description has.
const BYTES_MAX: u64 = 1024 * 1024;

/// A file's text. The error names the file.
pub fn text(path: &Path) -> io::Result<String> {
    let named = |error: io::Error| io::Error::new(error.kind(), format!("{}: {error}", path.display()));
    let mut text = String::new();
    let read =
        File::open(path).map_err(named)?.take(BYTES_MAX + 1).read_to_string(&mut text).map_err(named)?;
    if read as u64 > BYTES_MAX {
        return Err(named(io::Error::new(
            io::ErrorKind::InvalidData,
            "longer than 1 MiB; is it the right file?",
        )));
    }
    Ok(text)
}

/// The same path from the root: the daemon's own folder is another one.
pub fn absolute(path: &Path) -> io::Result<std::path::PathBuf> {
    std::path::absolute(path)
}
