//! Keeps the guest changing address spaces, as every guest with more than one process does.
//!
//! An emulated CPU writes to a page that is in its TLB without noting it, until the TLB is flushed; in a guest of one
//! process hardly anything flushes it. QEMU 7.2 does not do so either when a migration asks what was written. Such
//! a guest arrives with old pages after a long copy, and panics (seen in two of two moves over 20 Mbit/s). KVM notes
//! writes in another way, and is not concerned.

use std::process::Command;
use std::time::Duration;
use std::{io, thread};

/// The word that makes this program one of the two.
pub const WORD: &str = "switch";

/// Time between two turns of one of them.
const TURN: Duration = Duration::from_millis(4);

/// Start two processes that take turns.
pub fn start() -> io::Result<()> {
    for _ in 0..2 {
        Command::new("/proc/self/exe").arg(WORD).spawn()?;
    }
    Ok(())
}

/// Be one of them.
pub fn take_turns() -> ! {
    loop {
        thread::park_timeout(TURN);
    }
}
