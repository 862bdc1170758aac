//! A second process that wakes all the time, and so makes the kernel change address spaces.
//!
//! QEMU's emulator (TCG; seen with 7.2) tells its migration of a write only where its cache of address translations
//! says that the page is clean, and does not mend that cache each time that it takes the list of written pages. The
//! cache is emptied when an address space is entered. A machine with one process, such as this one, hardly ever enters
//! one; pages of its kernel then arrived seconds old, and it died when it went on. KVM knows nothing of this.

use std::env;
use std::process::{Child, Command};
use std::thread;
use std::time::Duration;

/// The word on the command line that makes this program the second process.
pub const WORD: &str = "turns";

/// Between two turns.
const EVERY: Duration = Duration::from_millis(2);

/// Start it.
pub fn start() -> std::io::Result<Child> {
    Command::new(env::current_exe()?).arg(WORD).spawn()
}

/// Be it.
pub fn take() -> ! {
    loop {
        // Nobody wakes it before.
        thread::park_timeout(EVERY);
    }
}
