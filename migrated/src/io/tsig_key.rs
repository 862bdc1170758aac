//! Reads the key of a zone from a file that only its owner can read; what may stand in it is in [`key_file`].

use std::fs;
use std::os::unix::fs::PermissionsExt;

use anyhow::{Context as _, Result, bail};
use tunnel::TsigKey;

use crate::config::Zone;
use crate::key_file;

/// The key of a zone.
///
/// # Errors
/// It cannot be read, others can read it as well, or it is no key; names the file, and the line where there is one.
pub fn read(zone: &Zone) -> Result<TsigKey> {
    let path = zone.key_file.display();
    let place = || format!("cannot read the DNS key {path}");
    let found = fs::metadata(&zone.key_file).with_context(place)?;
    if !found.is_file() {
        bail!("the DNS key {path} is no file");
    }
    let mode = found.permissions().mode();
    if mode & 0o077 != 0 {
        bail!("the DNS key {path} can be read or changed by others (mode {:o}); chmod 600 it", mode & 0o777);
    }
    let text = fs::read_to_string(&zone.key_file).with_context(place)?;
    let parsed = key_file::parse(&text, &zone.key_name);
    let (algorithm, secret) = parsed.map_err(|fault| match fault.line {
        0 => anyhow::anyhow!("the DNS key {path}: {fault}"),
        line => anyhow::anyhow!("the DNS key {path}, line {line}: {fault}"),
    })?;
    Ok(TsigKey { name: zone.key_name.clone(), algorithm, secret })
}
