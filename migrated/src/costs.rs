//! What a move has cost so far, over all its attempts and all its links: time in which the guest stood still, and bytes.
//!
//! ```text
//! attempt 1   paused ── goes on at the source ──┐
//! attempt 2   paused ── runs at the destination ┴─► pauses: every one counts
//! counters of blockd (older than the move), of the memory and of the link (one for each attempt) ─► tally: what they grew by
//! ```
//!
//! A daemon that takes a move up goes on with what the one before it has kept. Nothing is decided by it.

mod pauses;
mod tally;

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::phase::{Copies, Phase};

pub use pauses::Pauses;
pub use tally::{DiskTally, Tally};

/// The costs of one move.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Costs {
    /// When it was asked for, in milliseconds of this host's monotonic clock; none: an earlier version began it.
    pub begun_ms: Option<u64>,
    /// Since when its disks have been recorded, from `begun_ms` on.
    pub recorded_since: Option<Duration>,
    /// When the guest stood still.
    pub pauses: Pauses,
    /// What was sent.
    pub tally: Tally,
}

impl Costs {
    /// The move has come to this phase.
    pub fn enter(&mut self, phase: Phase, now: Duration) {
        self.pauses.enter(phase);
        if phase.row().copies > Copies::Nothing {
            self.recorded_since.get_or_insert(now);
        }
    }

    /// Nothing is known of it, as of a move that an earlier version has begun.
    pub fn is_unknown(&self) -> bool {
        *self == Self::default()
    }
}
