//! The daemon at its boundary: clients that others wrote, against the real binary (S4-10).
//!
//! What is common to both data planes is tried on both; the protocol logic is the same code, the handling of
//! sockets and files is not.

mod qemu;
mod libnbd;
mod load;
mod image;
mod faults;

use tests::daemon::Daemon;
use tests::program::Tool;

/// The two ways in which the daemon moves bytes.
pub const PLANES: [&str; 2] = ["ring", "pool"];

/// One mebibyte.
const MIB: u64 = 1 << 20;

/// Run a script against the disk with libnbd's Python binding; `nbd`, `errno` and `uri` are defined.
///
/// This is what `nbdsh` does. It is not used itself because it takes the first Python on the path, and the
/// binding belongs to the system's own.
pub fn nbdsh(disk: &Daemon, script: &str) -> String {
    let prelude = format!("import nbd, errno\nuri = '{}'\n", disk.uri());
    Tool::new("/usr/bin/python3").args(["-c", &(prelude + script)]).run()
}
