//! How much may wait to be sent, and how long a frame is: in time of the link, not in bytes.

use std::time::Duration;

use super::Session;
use crate::link::wire::{BODY_BYTES_MAX, HEADER_BYTES};
use crate::link::{Class, Label};

/// The pacing of memory: what may wait to be sent, in time.
pub const RAM_UNSENT: Duration = Duration::from_millis(20);
/// The pacing of disks.
const DISK_UNSENT: Duration = Duration::from_millis(50);
/// What a control channel may have waiting, in bytes.
const CONTROL_UNSENT_BYTES: u64 = 256 << 10;
/// The most that pacing allows on the fastest link, in bytes.
const UNSENT_BYTES_MAX: u64 = 4 << 20;
/// The body of a data frame in time, so that what is more urgent does not wait long behind it.
const FRAME: Duration = Duration::from_millis(10);
/// The smallest body by that rule, in bytes.
const FRAME_BYTES_MIN: u64 = 4 << 10;
/// The largest: with its header it fills four records of TLS, and leaves nothing for a fifth.
const FRAME_BYTES_MAX: u64 = (BODY_BYTES_MAX - HEADER_BYTES) as u64;
/// The body as long as the link's speed is not known, in bytes.
const FRAME_BYTES_UNKNOWN: u64 = 16 << 10;

impl Session {
    /// What may wait to be sent on a channel of this label: bytes that wait are blackout.
    pub fn unsent_bytes_max(&self, label: Label) -> u64 {
        let one = self.frame_bytes();
        match label.class() {
            Class::Control => CONTROL_UNSENT_BYTES,
            Class::Disk => self.bytes_in(DISK_UNSENT).unwrap_or(0).clamp(4 * one, UNSENT_BYTES_MAX),
            Class::Ram => self.bytes_in(RAM_UNSENT).unwrap_or(0).clamp(one, UNSENT_BYTES_MAX),
        }
    }

    /// What the kernel should hold unsent for a lane: as much as a frame, not more than pacing allows.
    pub fn socket_unsent_bytes(&self) -> u64 {
        self.bytes_in(RAM_UNSENT).unwrap_or(128 << 10).clamp(16 << 10, 1 << 20)
    }

    pub(super) fn frame_bytes(&self) -> u64 {
        self.bytes_in(FRAME).unwrap_or(FRAME_BYTES_UNKNOWN).clamp(FRAME_BYTES_MIN, FRAME_BYTES_MAX)
    }

    /// What the link carries in a time; none: not known yet.
    fn bytes_in(&self, time: Duration) -> Option<u64> {
        self.goodput_bytes_per_s().map(|rate| (rate as f64 * time.as_secs_f64()) as u64)
    }
}
