//! What the daemon says of itself. Totals only grow while the process lives; the rest are gauges.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::sidecar::Role;

/// Everything, at one moment.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Status {
    /// Which disk, and as what.
    pub identity: Identity,
    /// How far the replica is behind.
    pub replication: Replication,
    /// How far this replica is, where it is one.
    pub receiving: Option<Receiving>,
    /// What the guest does.
    pub requests: Requests,
    /// How the guest is slowed.
    pub throttle: Throttle,
}

impl Status {
    /// The guest's writes wait: the disk is sealed, or is being sealed.
    pub fn holds_writes(&self) -> bool {
        self.identity.sealed != 0 || self.replication.sealing
    }
}

/// Which disk, and as what it is served.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Identity {
    /// The image's path.
    pub image: PathBuf,
    /// The guest disk's name, the same at every host.
    pub disk_id: String,
    /// Size of the disk in bytes.
    pub size_bytes: u64,
    /// primary, replica, promoted or fenced.
    pub role: String,
    /// Moves of the disk so far.
    pub generation: u64,
    /// The generation that it is sealed for; 0: not sealed.
    pub sealed: u64,
    /// ring or pool.
    pub data_plane: String,
    /// direct or buffered.
    pub cache: String,
    /// What the daemon has given up, like "landlock 7, seccomp, no capabilities"; or "off".
    pub confinement: String,
}

impl Identity {
    /// It is a copy that is being received: no disk yet.
    pub fn is_replica(&self) -> bool {
        self.role == Role::Replica.name()
    }
}

/// The replica, seen from the source.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Replication {
    /// Writes are recorded.
    pub recording: bool,
    /// Writes are held for a seal that is not complete.
    pub sealing: bool,
    /// A replica is connected.
    pub connected: bool,
    /// The session's number (D13).
    pub epoch: u64,
    /// Blocks of 4 KiB in the bitmap.
    pub dirty_blocks: u64,
    /// Deltas in the queue.
    pub queued_deltas: u64,
    /// Bytes of the queue.
    pub queued_bytes: u64,
    /// Deltas wait while more than that is left to be read from the disk: what is sent now is bulk.
    pub deltas_wait: bool,
    /// Bytes sent and not acknowledged.
    pub unacknowledged_bytes: u64,
    /// Bytes that the replica lacks: bitmap, queue and unacknowledged.
    pub backlog_bytes: u64,
    /// Leaves of 64 KiB to hash again.
    pub stale_leaves: u64,
    /// Leaves that were found to differ.
    pub mismatched_leaves: u64,
    /// Deltas recorded.
    pub deltas_total: u64,
    /// Bytes of deltas recorded.
    pub delta_bytes_total: u64,
    /// Queued blocks that a later delta made needless.
    pub coalesced_total: u64,
    /// Bytes sent, as on the wire.
    pub sent_bytes_total: u64,
    /// Bytes sent, before encoding.
    pub raw_bytes_total: u64,
    /// Raw bytes a sent byte; 0: nothing was sent.
    pub ratio: f64,
    /// Deltas that did not fit the queue's budget and became bits, in blocks.
    pub overflowed_total: u64,
    /// Batches sent.
    pub batches_total: u64,
    /// Bytes of the disk that the batches spoke of, holes included.
    pub covered_bytes_total: u64,
    /// Bytes of data that the replica acknowledged as durable.
    pub acknowledged_bytes_total: u64,
    /// Leaves that the replica had already.
    pub spared_leaves_total: u64,
    /// What the link is believed to carry.
    pub link_bytes_per_s: u64,
    /// Deltas recorded in each of the last whole seconds, oldest first.
    pub deltas_per_second: Vec<u64>,
    /// Where the replica is; empty: nowhere.
    pub replicate_to: String,
    /// Why the last session ended; empty: it did not.
    pub last_error: String,
    /// Reads of this disk that failed; they are tried again.
    pub read_failures_total: u64,
    /// Sessions that the replica ended because it could not go on.
    pub replica_failures_total: u64,
    /// Why the last of these failed; empty: none has.
    pub last_failure: String,
}

/// The replica, seen from itself.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Receiving {
    /// The session's number (D13); 0: no source is connected.
    pub epoch: u64,
    /// The last batch applied.
    pub applied_seq: u64,
    /// The last batch that is durable here.
    pub durable_seq: u64,
    /// Bytes applied and not yet durable.
    pub unflushed_bytes: u64,
    /// Bytes applied, since the process started.
    pub applied_bytes_total: u64,
    /// Leaves compared, since the process started.
    pub compared_leaves_total: u64,
}

/// What the guest asked for since the process began.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Requests {
    /// NBD connections now.
    pub connections: u64,
    /// Requests that are not answered yet, held and delayed ones among them.
    pub in_flight: u64,
    /// Reads answered.
    pub reads_total: u64,
    /// Bytes read.
    pub read_bytes_total: u64,
    /// Writes answered.
    pub writes_total: u64,
    /// Bytes written.
    pub written_bytes_total: u64,
    /// Flushes answered.
    pub flushes_total: u64,
    /// Trims answered.
    pub trims_total: u64,
    /// Zeroings answered.
    pub zeroes_total: u64,
    /// Requests that ended in an error.
    pub errors_total: u64,
    /// A flush failed: what was written since the last one may be lost, and nothing is called durable until the daemon is
    /// started again.
    pub has_lost_writes: bool,
}

/// How the guest is slowed.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Throttle {
    /// Who decides.
    pub policy: String,
    /// The policy's step; 0: none.
    pub level: u64,
    /// Delay of a write now, in microseconds.
    pub delay_us: u64,
    /// Writes that were delayed.
    pub delayed_writes_total: u64,
}
