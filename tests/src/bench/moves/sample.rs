//! What one move cost, whoever did it; and how the figures are asked of the record and the router.

use std::time::Duration;

use crate::prober::figures::Figures;
use crate::wan::{End, Wan};

/// How long one step may take over the slowest link.
pub const LONG: Duration = Duration::from_secs(1800);

/// One move.
#[derive(Debug, Clone, PartialEq)]
pub struct Sample {
    /// From the order to the guest running at the destination, the start of the destination's QEMU included.
    pub total_s: f64,
    /// Bytes that the router passed to the destination meanwhile, in millions: whole Ethernet frames.
    pub wire_mb: f64,
    /// From QEMU's STOP at the source to the guest running at the destination.
    pub downtime_ms: f64,
    /// The longest time for which the client heard nothing in its session.
    pub gap_ms: f64,
    /// Lines of the session that were never answered, and connections that broke.
    pub harm: u64,
    /// Where the time went, in words.
    pub course: String,
}

impl Sample {
    /// Add what the client felt.
    #[must_use]
    pub fn felt(mut self, figures: &Figures) -> Self {
        self.gap_ms = figures.longest_gap_us as f64 / 1e3;
        self.harm = figures.lost_lines + figures.resets + figures.closed;
        if self.harm > 0 {
            eprintln!("a session was harmed: {figures:?}");
        }
        self
    }
}

/// Bytes that the router has passed to the destination so far.
pub fn wire_bytes(wan: &Wan) -> u64 {
    wan.passed(End::SiteB).to_end_bytes
}

/// Bytes as millions.
pub fn mb(bytes: u64) -> f64 {
    bytes as f64 / 1e6
}
