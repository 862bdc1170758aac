//! The destination's side of a replica: what a frame asks of the disk, in order.
//!
//! ```text
//! frame ─► ops, one at a time ─► store ─► … flush ─► ack(seq, leaves that differ)
//! ```
//!
//! One session at a time, and a session is new only if its epoch is (D13): the shell ends the old
//! session and its work in hand before it feeds a new hello in. An acknowledgement goes out only
//! after a flush that covers it. A seal is recorded durably before it is answered, and is void as
//! soon as another change comes. What the disk should hold is compared with what it does hold.
//!
//! Does no I/O: it names the next [`Op`], and is told how it went. Holds at most one batch.

use std::collections::VecDeque;
use std::fmt;

use thiserror::Error;

use super::batch::{self, Digest, Told};
use super::wire::{self, DIFFERING_MAX, FrameType, Header, Hello, Malformed, RefusalCode, Refused};
use crate::extent::{Extent, LEAF_BYTES};

/// A flush is due after this many bytes, even while more input waits.
const FLUSH_BYTES: u64 = 16 << 20;

/// What the replica knows of itself, from its sidecar.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// Size of the disk in bytes.
    pub size: u64,
    /// Which guest disk.
    pub disk_id: String,
    /// Moves of the disk that this copy knows of (M1).
    pub generation: u64,
    /// Epoch of the last session that was welcomed.
    pub epoch: u64,
    /// The image may hold data.
    pub existing: bool,
    /// The generation it is sealed for, or 0.
    pub sealed: u64,
    /// The generation that it was promoted to, if it was.
    pub promoted: Option<u64>,
}

/// The next thing to do with the disk or its sidecar.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Op {
    /// Write the payload's bytes from this place on.
    Write(Extent, usize),
    /// Make the range read as zeros; keep it allocated where asked.
    Zero {
        /// Where.
        extent: Extent,
        /// Keep it allocated.
        allocate: bool,
    },
    /// Hash the leaf from the disk and compare.
    Compare(Extent, Digest),
    /// See whether the leaves of the range are all zeros on the disk.
    CompareZeros(Extent),
    /// Make everything written durable.
    Flush,
    /// Record the session's epoch, durably.
    RecordEpoch(u64),
    /// Record the generation that the disk is sealed for (0: none), durably.
    RecordSeal(u64),
}

impl fmt::Display for Op {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (verb, extent) = match self {
            Op::Write(extent, _) => ("write", extent),
            Op::Zero { extent, .. } => ("zero", extent),
            Op::Compare(extent, _) | Op::CompareZeros(extent) => ("read", extent),
            Op::Flush => return f.write_str("make it durable"),
            Op::RecordEpoch(_) | Op::RecordSeal(_) => return f.write_str("write the sidecar"),
        };
        write!(f, "{verb} {} bytes at {}", extent.len, extent.offset)
    }
}

/// Why a session ends.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum SessionError {
    /// The source does not speak the protocol.
    #[error("the source sent a malformed frame: {0}")]
    Malformed(#[from] Malformed),
    /// The source breaks the protocol's order.
    #[error("the source broke the protocol: {0}")]
    Protocol(&'static str),
    /// The hello was refused.
    #[error("refused the source: {0}")]
    Refused(String),
    /// The disk or the sidecar failed.
    #[error("cannot apply what the source sent: {0}")]
    Disk(String),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    AwaitingHello,
    Streaming,
    Over,
}

/// One session of a replica.
#[derive(Debug)]
pub struct Destination {
    identity: Identity,
    phase: Phase,
    epoch: u64,
    ops: VecDeque<Op>,
    payload: Vec<u8>,
    batch_seq: u64,
    durable_seq: u64,
    unflushed_bytes: u64,
    differing: Vec<u64>,
    answers: VecDeque<Vec<u8>>,
}

impl Destination {
    /// A session that awaits its hello.
    pub fn new(identity: Identity) -> Self {
        Self {
            identity,
            phase: Phase::AwaitingHello,
            epoch: 0,
            ops: VecDeque::new(),
            payload: Vec::new(),
            batch_seq: 0,
            durable_seq: 0,
            unflushed_bytes: 0,
            differing: Vec::new(),
            answers: VecDeque::new(),
        }
    }

    /// Takes a frame in. Only when [`Destination::poll_op`] has nothing more. An error ends the
    /// session, and the source is told why.
    pub fn handle_frame(&mut self, header: &Header, body: &[u8]) -> Result<(), SessionError> {
        assert!(self.ops.is_empty(), "D6: a frame is applied whole before the next");
        let taken = self.take_frame(header, body);
        if let Err(error) = &taken
            && self.phase != Phase::Over
        {
            // Also a frame that came instead of a hello is answered under its own epoch.
            self.epoch = if self.phase == Phase::AwaitingHello { header.epoch } else { self.epoch };
            self.phase = Phase::Over;
            self.answer(FrameType::Failed, 0, &wire::encode_text(&error.to_string()));
        }
        taken
    }

    fn take_frame(&mut self, header: &Header, body: &[u8]) -> Result<(), SessionError> {
        if self.phase == Phase::Streaming && header.epoch != self.epoch {
            return Err(SessionError::Protocol("a frame carries another epoch"));
        }
        match (header.frame_type, self.phase) {
            (FrameType::Hello, Phase::AwaitingHello) => {
                self.handle_hello(header.epoch, &Hello::decode(body)?)
            }
            (FrameType::Batch, Phase::Streaming) => self.handle_batch(header.seq, body),
            (FrameType::Seal, Phase::Streaming) => {
                let generation = wire::decode_generation(body)?;
                if generation == 0 {
                    return Err(SessionError::Protocol("a seal needs a generation"));
                }
                self.ops.extend([Op::Flush, Op::RecordSeal(generation)]);
                Ok(())
            }
            (FrameType::Unseal, Phase::Streaming) => {
                wire::decode_generation(body)?;
                self.ops.push_back(Op::RecordSeal(0));
                Ok(())
            }
            _ => Err(SessionError::Protocol("a frame came out of turn")),
        }
    }

    /// What to do next with the disk; report by [`Destination::handle_done`]. With nothing queued,
    /// a flush is due when `idle` (no more input waits), or when much is unflushed. Nothing is due
    /// once the session is over.
    pub fn poll_op(&mut self, idle: bool) -> Option<Op> {
        if self.ops.is_empty() && self.durable_seq < self.batch_seq && self.phase != Phase::Over {
            let much = self.unflushed_bytes >= FLUSH_BYTES || self.differing.len() > DIFFERING_MAX / 2;
            if idle || much {
                self.ops.push_back(Op::Flush);
            }
        }
        self.ops.front().cloned()
    }

    /// The bytes of the batch in hand, from `start` on, as many as `extent` is long.
    pub fn payload(&self, extent: &Extent, start: usize) -> &[u8] {
        &self.payload[start..start + extent.len as usize]
    }

    /// Takes in how the op at the front went: the leaves that were found to differ (none for all
    /// but comparisons), or why it failed. A failure ends the session.
    pub fn handle_done(&mut self, outcome: Result<Vec<u64>, String>) -> Result<(), SessionError> {
        let op = self.ops.pop_front().expect("an op was in hand");
        let differing = outcome.map_err(|reason| {
            self.phase = Phase::Over;
            self.ops.clear();
            self.answer(FrameType::Failed, 0, &wire::encode_text(&reason));
            SessionError::Disk(reason)
        })?;
        match op {
            Op::Write(extent, _) | Op::Zero { extent, .. } => self.unflushed_bytes += extent.len,
            Op::Compare(..) | Op::CompareZeros(_) => self.differing.extend(differing),
            Op::Flush => self.acknowledge(),
            Op::RecordEpoch(epoch) => {
                self.phase = Phase::Streaming;
                let Identity { existing, epoch: previous_epoch, .. } = self.identity;
                let welcome = wire::Welcome { version: wire::VERSION, existing, previous_epoch };
                self.identity.epoch = epoch;
                self.answer(FrameType::Welcome, 0, &welcome.encode());
            }
            Op::RecordSeal(generation) => {
                self.identity.sealed = generation;
                if generation != 0 {
                    self.answer(FrameType::Sealed, 0, &wire::encode_generation(generation));
                }
            }
        }
        Ok(())
    }

    /// The next frame for the source, as bytes.
    pub fn poll_transmit(&mut self) -> Option<Vec<u8>> {
        self.answers.pop_front()
    }

    /// Everything up to this batch is applied.
    pub fn applied_seq(&self) -> u64 {
        let recording = |op: &Op| matches!(op, Op::Flush | Op::RecordEpoch(_) | Op::RecordSeal(_));
        if self.ops.iter().all(recording) { self.batch_seq } else { self.batch_seq - 1 }
    }

    /// Everything up to this batch is durable.
    pub fn durable_seq(&self) -> u64 {
        self.durable_seq
    }

    /// Bytes applied and not yet durable.
    pub fn unflushed_bytes(&self) -> u64 {
        self.unflushed_bytes
    }

    /// True once the source was welcomed.
    pub fn is_streaming(&self) -> bool {
        self.phase == Phase::Streaming
    }

    fn handle_hello(&mut self, epoch: u64, hello: &Hello) -> Result<(), SessionError> {
        if epoch > wire::EPOCH_MAX {
            return Err(SessionError::Protocol("the session's number is out of bounds"));
        }
        self.epoch = epoch;
        match self.objection(epoch, hello) {
            Some(refused) => {
                self.phase = Phase::Over;
                self.answer(FrameType::Refused, 0, &refused.encode());
                Err(SessionError::Refused(refused.text))
            }
            None => {
                self.ops.push_back(Op::RecordEpoch(epoch));
                Ok(())
            }
        }
    }

    fn objection(&self, epoch: u64, hello: &Hello) -> Option<Refused> {
        let mine = &self.identity;
        let refuse = |code, detail, text| Some(Refused { code, detail, text });
        if !(hello.version_min..=hello.version_max).contains(&wire::VERSION) {
            let (min, max) = (hello.version_min, hello.version_max);
            let text = format!("this replica speaks version {} and the source {min} to {max}", wire::VERSION);
            return refuse(RefusalCode::Version, u64::from(wire::VERSION), text);
        }
        if hello.disk_id != mine.disk_id {
            let text = format!("this is a replica of disk {:?}, not of {:?}", mine.disk_id, hello.disk_id);
            return refuse(RefusalCode::WrongDisk, 0, text);
        }
        if hello.size != mine.size {
            let text = format!("this replica has {} bytes and the source's disk {}", mine.size, hello.size);
            return refuse(RefusalCode::WrongSize, mine.size, text);
        }
        if let Some(generation) = mine.promoted {
            let text =
                format!("this copy was promoted in generation {generation} and is a disk of its own now");
            return refuse(RefusalCode::Promoted, generation, text);
        }
        if hello.generation < mine.generation {
            let (theirs, ours) = (hello.generation, mine.generation);
            let text = format!(
                "the source's disk is of generation {theirs}, and this copy of {ours}: it moved since"
            );
            return refuse(RefusalCode::StaleGeneration, ours, text);
        }
        if epoch <= mine.epoch {
            let text =
                format!("session {epoch} is not newer than session {}, which was here before", mine.epoch);
            return refuse(RefusalCode::StaleEpoch, mine.epoch, text);
        }
        None
    }

    fn handle_batch(&mut self, seq: u64, body: &[u8]) -> Result<(), SessionError> {
        if seq != self.batch_seq + 1 {
            return Err(SessionError::Protocol("a batch is missing or repeated"));
        }
        let received = batch::decode(body, self.identity.size)?;
        let changes = |told: &Told| !matches!(told, Told::Digest(..) | Told::AllZeros(_));
        if self.identity.sealed != 0 && received.items.iter().any(changes) {
            self.ops.push_back(Op::RecordSeal(0));
        }
        self.batch_seq = seq;
        self.payload = received.payload;
        self.ops.extend(received.items.into_iter().map(|told| match told {
            Told::Data(extent, start) => Op::Write(extent, start),
            Told::Hole(extent) => Op::Zero { extent, allocate: false },
            Told::ZeroesAllocated(extent) => Op::Zero { extent, allocate: true },
            Told::Digest(extent, digest) => Op::Compare(extent, digest),
            Told::AllZeros(extent) => Op::CompareZeros(extent),
        }));
        Ok(())
    }

    fn acknowledge(&mut self) {
        if self.durable_seq == self.batch_seq {
            return;
        }
        self.durable_seq = self.batch_seq;
        self.unflushed_bytes = 0;
        let mut differing = std::mem::take(&mut self.differing);
        differing.sort_unstable();
        differing.dedup();
        self.answer(FrameType::Ack, self.durable_seq, &wire::encode_differing(&differing));
    }

    fn answer(&mut self, frame_type: FrameType, seq: u64, body: &[u8]) {
        self.answers.push_back(wire::frame(frame_type, self.epoch, seq, body));
    }
}

/// The leaf that `extent` starts with.
pub fn leaf_of(extent: &Extent) -> u64 {
    extent.offset / LEAF_BYTES
}

#[cfg(test)]
mod tests;
