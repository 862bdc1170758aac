//! The words between a source and its shell: what to do, and what came of it.

use std::ops::Range;
use std::time::Duration;

use thiserror::Error;

use crate::buffer::PageBuf;
use crate::extent::Extent;
use crate::replica::batch::{Digest, Item};
use crate::replica::wire::{Malformed, RefusalCode, Refused};

/// What a stream is made with.
#[derive(Clone, Debug)]
pub struct SourceConfig {
    /// Size of the disk in bytes.
    pub size: u64,
    /// Which guest disk.
    pub disk_id: String,
    /// A batch is closed at this many bytes.
    pub batch_bytes: u64,
    /// A change waits at most this long for company.
    pub batch_age: Duration,
    /// At most this many bytes are sent and not acknowledged.
    pub window_bytes: u64,
}

/// What the shell should do next.
#[derive(Debug)]
pub enum Step {
    /// Encode and send this.
    Send(Outgoing),
    /// See what the disk holds at the start of this range; answer by `handle_read_back` with a
    /// hole of any length, or with at most so many bytes of data.
    ReadBack(Extent, u64),
    /// Hash leaves from the disk, as many from the start as is convenient; answer by `handle_hashed`.
    Hash(Range<u64>),
    /// Nothing to do until something changes, or until this time.
    Wait(Option<Duration>),
}

/// A frame to be sent.
#[derive(Debug)]
pub enum Outgoing {
    /// A frame that is ready.
    Frame(Vec<u8>),
    /// A batch that is yet to be encoded.
    Batch {
        /// Its session.
        epoch: u64,
        /// Its place.
        seq: u64,
        /// What it says.
        items: Vec<Item>,
    },
}

/// What the start of a range was found to hold.
#[derive(Debug)]
pub enum Found {
    /// These bytes.
    Data(PageBuf),
    /// So many bytes of hole.
    Hole(u64),
    /// The disk could not be read; the message says why.
    Failed(String),
}

/// What hashing found, from the first leaf on.
#[derive(Debug)]
pub enum Hashed {
    /// One digest a leaf.
    Digests(Vec<Digest>),
    /// So many leaves of hole.
    Zeros(u64),
    /// The disk could not be read; the message says why.
    Failed(String),
}

/// Why a stream cannot go on.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum StreamError {
    /// The other side does not speak the protocol.
    #[error("the replica sent a malformed frame: {0}")]
    Malformed(#[from] Malformed),
    /// The other side breaks the protocol's order.
    #[error("the replica broke the protocol: {0}")]
    Protocol(&'static str),
    /// The other side refused, for good unless something is changed.
    #[error("the replica refused: {}", .0.text)]
    Refused(Refused),
    /// The other side gave up.
    #[error("the replica failed: {0}")]
    Failed(String),
}

/// How far a seal has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SealState {
    /// Nobody asked.
    Open,
    /// Asked for; the rest is on its way.
    Sealing(u64),
    /// The replica was told, its word is awaited.
    Told(u64),
    /// Both sides hold the same, durably.
    Sealed(u64),
    /// The disks differ, in this leaf first.
    Differs(u64),
}

/// What could not be done, since the process started: it is tried again, however often it fails.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Failures {
    /// Reads of the source's own disk.
    pub reads_total: u64,
    /// Sessions that the replica ended because it could not go on.
    pub replica_total: u64,
    /// Why the last of them failed.
    pub last: String,
}

/// Totals of what was sent, since the process started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SentCounts {
    /// Batches.
    pub batches_total: u64,
    /// Bytes of the disk that the batches spoke of, holes included.
    pub covered_bytes_total: u64,
    /// Bytes of the disk acknowledged as durable.
    pub acknowledged_bytes_total: u64,
    /// Leaves that the replica had already.
    pub spared_leaves_total: u64,
}

impl StreamError {
    /// The epoch that a new session has to exceed, if that was the trouble.
    pub fn stale_epoch(&self) -> Option<u64> {
        match self {
            StreamError::Refused(refused) if refused.code == RefusalCode::StaleEpoch => Some(refused.detail),
            _ => None,
        }
    }
}
