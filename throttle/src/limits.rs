//! What a policy decides and the gate enforces: plain values, no behaviour.

use std::time::Duration;

/// How writes are slowed until the limits expire or are replaced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Writes that still pass undelayed, counted from the moment that the gate takes the limits.
    pub free_writes: u64,
    /// Delay of each further write; delays serialise (D14). Zero: nothing is delayed.
    pub delay: Duration,
    /// After this long without new limits the gate opens by itself. No reply waits longer than
    /// this, whatever the delay and the queue depth.
    pub valid_for: Duration,
}

impl Limits {
    /// Limits that delay nothing.
    pub const NONE: Limits =
        Limits { free_writes: u64::MAX, delay: Duration::ZERO, valid_for: Duration::ZERO };
}
