//! Numbers of a device below `/proc/sys`, as the network namespace of this thread shows them.

use std::fs;
use std::io;

use crate::change::Setting;

/// What the setting is now.
pub fn read(device: &str, setting: Setting) -> io::Result<u32> {
    let path = setting.path(device);
    let text = fs::read_to_string(&path)?;
    text.trim().parse().map_err(|_| io::Error::other(format!("{path} holds no number: {text:?}")))
}

/// Make it `value`.
pub fn write(device: &str, setting: Setting, value: u32) -> io::Result<()> {
    fs::write(setting.path(device), value.to_string())
}
