//! Reads the key of a zone: base64 in a file that only its owner can read.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use anyhow::{Context as _, Result, bail};
use data_encoding::BASE64;

/// The secret in the file at `path`.
pub fn read(path: &Path) -> Result<Vec<u8>> {
    let place = || format!("cannot read the DNS key {}", path.display());
    let mode = fs::metadata(path).with_context(place)?.permissions().mode();
    if mode & 0o077 != 0 {
        bail!("the DNS key {} can be read by others (mode {:o}); chmod 600 it", path.display(), mode & 0o777);
    }
    let text = fs::read_to_string(path).with_context(place)?;
    BASE64.decode(text.trim().as_bytes()).with_context(|| {
        format!("the DNS key {} is not base64, as keymgr and tsig-keygen write it", path.display())
    })
}
