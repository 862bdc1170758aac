//! What a policy sees of a disk: counters and gauges, never a single write.

use std::time::Duration;

/// One disk's recent past, as counters that only grow and gauges.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Observation {
    /// When this was seen.
    pub now: Duration,
    /// Guest writes completed since the disk was opened. A smaller value than last time means
    /// that the disk was opened anew.
    pub writes_total: u64,
    /// Bytes of guest writes completed since the disk was opened.
    pub written_bytes_total: u64,
    /// Bytes that the replica does not have yet (queue, bitmap, unacknowledged).
    pub backlog_bytes: u64,
    /// Bytes that the replica acknowledged since the disk was opened.
    pub acknowledged_bytes_total: u64,
}
