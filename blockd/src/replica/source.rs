//! The source's side of a replica: what to send next.
//!
//! ```text
//! Disconnected ─► Greeting ─► Streaming ─────────► Sealing ─► Sealed
//!       ▲            │            │    ◄─ unseal ─────┴─────────┘
//!       └────────────┴────────────┴─── stream lost: what was on the way is pending again (D4)
//! ```
//!
//! A shell asks [`Source::poll`] for the next [`Step`], takes it without holding any lock, and
//! reports back. One sender makes one ordered stream (D6): data is in it before the digest that
//! covers it, and whatever is newer comes later. As long as more is left of the bulk than of the
//! deltas, these wait for what coalesces with them; then the two take turns, so that neither stalls
//! the other (S4-24). Small changes are gathered until they fill a batch or are old enough.
//!
//! The window bounds what is sent and not acknowledged; no data is kept for it, because D4 turns
//! it into bits. Reads no disk, compresses nothing, and does not dial.

mod answers;
mod compare;
mod step;

use std::collections::VecDeque;
use std::ops::Range;
use std::time::Duration;

use super::batch::{ITEMS_MAX, Item, RAW_BYTES_MAX};
use super::wire::{self, FrameType};
use crate::delta::{Content, DataSlice};
use crate::extent::{Extent, LEAF_BYTES};
use crate::tracker::{Taken, Tracker};

pub use step::{Failures, Found, Hashed, Outgoing, SealState, SentCounts, SourceConfig, Step, StreamError};

/// Changes are gathered until there are this many bytes, or until they are old enough.
const GATHER_BYTES: u64 = 64 << 10;
/// The longest range that is looked at in one step for holes, in bytes.
const LOOK_BYTES_MAX: u64 = 1 << 30;
/// The most leaves that are looked at in one step, at first and where one hole follows another:
/// choosing them takes time under the lock that guest writes need.
const LEAVES_MIN: u64 = 16;
const LEAVES_MAX: u64 = 4096;
/// After a failed read of the source's own disk, nothing is read for this long.
const READ_RETRY: Duration = Duration::from_secs(1);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Disconnected,
    Greeting { said: bool },
    Streaming,
}

#[derive(Debug)]
struct Sent {
    seq: u64,
    bytes: u64,
    /// Leaves that this batch asked about, and whether they were offers.
    asked: Vec<(Range<u64>, bool)>,
}

/// What to send next.
#[derive(Debug)]
pub struct Source {
    config: SourceConfig,
    generation: u64,
    phase: Phase,
    epoch: u64,
    /// The session from which the tracker's bits count (0: none yet).
    known_epoch: u64,
    seq: u64,
    items: Vec<Item>,
    items_bytes: u64,
    asked: Vec<(Range<u64>, bool)>,
    reading: Option<Extent>,
    hashing: Option<(Range<u64>, bool, Duration)>,
    sent: VecDeque<Sent>,
    sent_bytes: u64,
    waiting_since: Option<Duration>,
    leaves_at_once: u64,
    rest_until: Duration,
    read_retry_at: Duration,
    bulk_turn: bool,
    seal: SealState,
    unseal_to_say: bool,
    last_error: Option<String>,
    failures: Failures,
    counts: SentCounts,
}

impl Source {
    /// A source without a stream.
    pub fn new(config: SourceConfig) -> Self {
        let batch_bytes = config.batch_bytes.clamp(LEAF_BYTES, RAW_BYTES_MAX as u64);
        Self {
            config: SourceConfig { batch_bytes, ..config },
            generation: 0,
            phase: Phase::Disconnected,
            epoch: 0,
            known_epoch: 0,
            seq: 0,
            items: Vec::new(),
            items_bytes: 0,
            asked: Vec::new(),
            reading: None,
            hashing: None,
            sent: VecDeque::new(),
            sent_bytes: 0,
            waiting_since: None,
            leaves_at_once: LEAVES_MIN,
            rest_until: Duration::ZERO,
            read_retry_at: Duration::ZERO,
            bulk_turn: false,
            seal: SealState::Open,
            unseal_to_say: false,
            last_error: None,
            failures: Failures::default(),
            counts: SentCounts::default(),
        }
    }

    /// A stream was opened, as session `epoch` (durable in the sidecar before it is used, D13). The
    /// tracker's bits count from session `known_epoch`.
    pub fn handle_connected(&mut self, epoch: u64, known_epoch: u64, generation: u64) {
        (self.epoch, self.known_epoch, self.generation) = (epoch, known_epoch, generation);
        self.phase = Phase::Greeting { said: false };
        self.seq = 1;
    }

    /// The stream is gone. Everything on the way is pending again (D4).
    pub fn handle_disconnected(&mut self, tracker: &mut Tracker) {
        self.phase = Phase::Disconnected;
        self.items.clear();
        self.asked.clear();
        self.sent.clear();
        (self.items_bytes, self.sent_bytes) = (0, 0);
        (self.reading, self.hashing, self.waiting_since) = (None, None, None);
        self.unseal_to_say = false;
        if let SealState::Told(generation) = self.seal {
            self.seal = SealState::Sealing(generation);
        }
        tracker.lose_stream();
    }

    /// What to do next. Call again after each step, and whenever a change was recorded.
    pub fn poll(&mut self, tracker: &mut Tracker, now: Duration) -> Step {
        match self.phase {
            Phase::Disconnected | Phase::Greeting { said: true } => Step::Wait(None),
            Phase::Greeting { said: false } => {
                self.phase = Phase::Greeting { said: true };
                self.frame(FrameType::Hello, 0, &self.hello())
            }
            Phase::Streaming if self.unseal_to_say => {
                self.unseal_to_say = false;
                self.frame(FrameType::Unseal, 0, &wire::encode_generation(self.generation))
            }
            Phase::Streaming if self.reading.is_some() || self.hashing.is_some() => Step::Wait(None),
            Phase::Streaming if self.window_is_full() => Step::Wait(None),
            Phase::Streaming => self.poll_stream(tracker, now),
        }
    }

    /// Answers [`Step::ReadBack`]: what the start of that range holds. The rest is put back.
    pub fn handle_read_back(&mut self, tracker: &mut Tracker, found: Found, now: Duration) {
        let Some(extent) = self.reading.take() else { return };
        let (content, len) = match found {
            Found::Data(buf) => {
                let len = buf.len() as u64;
                (Content::Data(DataSlice::whole(buf)), len)
            }
            Found::Hole(len) => (Content::Hole, len),
            Found::Failed(reason) => {
                tracker.put_back(self.seq, &extent);
                // The rest of the disk first: one bad place must not hold it up.
                tracker.go_on_at(extent.offset + extent.len.min(self.config.batch_bytes));
                return self.rest_after_failure(reason, now);
            }
        };
        let len = len.min(extent.len);
        tracker.note_read(&Extent::new(extent.offset, len));
        self.push(Item::Change(Extent::new(extent.offset, len), content));
        if len < extent.len {
            tracker.put_back(self.seq, &Extent::new(extent.offset + len, extent.len - len));
        }
    }

    /// Starts a seal for `generation`; the caller holds the guest's writes. With `verify_all`
    /// every leaf is compared again, else those that changed since they were.
    pub fn seal(&mut self, tracker: &mut Tracker, generation: u64, verify_all: bool) {
        let agreement = tracker.agreement();
        agreement.begin_count();
        if verify_all {
            agreement.forget();
        }
        self.seal = SealState::Sealing(generation);
    }

    /// Undoes a seal, or gives one up.
    pub fn unseal(&mut self) {
        let told = matches!(self.seal, SealState::Told(_) | SealState::Sealed(_));
        self.unseal_to_say = told && self.phase == Phase::Streaming;
        self.seal = SealState::Open;
    }

    /// Takes up a seal that was complete when the process before this one ended.
    pub fn restore_seal(&mut self, generation: u64) {
        self.seal = SealState::Sealed(generation);
    }

    /// True if a change that was just recorded is a reason to poll: the sender is not woken for
    /// every write while it gathers, nor while the window is full.
    pub fn wakes_for_change(&self, tracker: &Tracker) -> bool {
        let gathering = self.waiting_since.is_some() && self.seal == SealState::Open;
        let enough = tracker.pending().queue_bytes() >= GATHER_BYTES || tracker.pending().dirty_blocks() > 0;
        self.is_streaming() && !self.window_is_full() && (!gathering || enough)
    }

    /// The last batch that is durable at the replica.
    pub fn acknowledged_seq(&self) -> u64 {
        self.sent.front().map_or(self.seq, |sent| sent.seq).saturating_sub(1)
    }

    /// True while no batch may leave before one is acknowledged.
    pub fn window_is_full(&self) -> bool {
        self.sent_bytes >= self.config.window_bytes
    }

    /// How far the seal has come.
    pub fn seal_state(&self) -> SealState {
        self.seal
    }

    /// The session from which the tracker's bits count; to be recorded when it changes.
    pub fn known_epoch(&self) -> u64 {
        self.known_epoch
    }

    /// True while batches may flow.
    pub fn is_streaming(&self) -> bool {
        self.phase == Phase::Streaming
    }

    /// Bytes sent and not yet durable at the replica.
    pub fn unacknowledged_bytes(&self) -> u64 {
        self.sent_bytes
    }

    /// Totals.
    pub fn counts(&self) -> SentCounts {
        self.counts
    }

    fn poll_stream(&mut self, tracker: &mut Tracker, now: Duration) -> Step {
        loop {
            if self.items_bytes + LEAF_BYTES > self.config.batch_bytes || self.items.len() + 1 >= ITEMS_MAX {
                return self.close_batch();
            }
            if self.items.is_empty()
                && let Some(until) = self.gathering(tracker, now)
            {
                return Step::Wait(Some(until));
            }
            match self.take(tracker, now) {
                Some(Taken::Delta(extent, content)) => self.push(Item::Change(extent, content)),
                Some(Taken::ReadBack(extent)) => {
                    self.reading = Some(extent);
                    return Step::ReadBack(extent, self.config.batch_bytes - self.items_bytes);
                }
                Some(Taken::Offer(leaves)) => {
                    self.hashing = Some((leaves.clone(), true, now));
                    return Step::Hash(leaves);
                }
                None if !self.items.is_empty() => return self.close_batch(),
                None => return self.poll_idle(tracker, now),
            }
        }
    }

    /// Until when small changes may wait for company; `None` if it is time to send.
    fn gathering(&mut self, tracker: &Tracker, now: Duration) -> Option<Duration> {
        let pending = tracker.pending();
        let few = pending.dirty_blocks() == 0 && pending.queue_bytes() < GATHER_BYTES && !pending.is_empty();
        if !few || self.seal != SealState::Open {
            self.waiting_since = None;
            return None;
        }
        let until = *self.waiting_since.get_or_insert(now) + self.config.batch_age;
        if until > now {
            return Some(until);
        }
        self.waiting_since = None;
        None
    }

    /// Takes from the bits as long as the deltas may wait, then from both in turn.
    fn take(&mut self, tracker: &mut Tracker, now: Duration) -> Option<Taken> {
        let room = self.config.batch_bytes - self.items_bytes;
        let delta = |tracker: &mut Tracker| tracker.take_delta(self.seq, room);
        let may_read = now >= self.read_retry_at;
        // A range of bits may turn out to be a hole: let it be long, the shell reads only the room.
        let bulk = |tracker: &mut Tracker| may_read.then(|| tracker.take_dirty(self.seq, LOOK_BYTES_MAX))?;
        let taken = match self.bulk_turn || tracker.pending().deltas_may_wait() {
            true => bulk(tracker).or_else(|| delta(tracker)),
            false => delta(tracker).or_else(|| bulk(tracker)),
        };
        self.bulk_turn = matches!(taken, Some(Taken::Delta(..)));
        taken
    }

    /// Nothing is pending that could be taken: compare, seal, or wait.
    fn poll_idle(&mut self, tracker: &mut Tracker, now: Duration) -> Step {
        let sealing = self.seal != SealState::Open;
        if !tracker.pending().is_empty() {
            return Step::Wait(Some(self.read_retry_at).filter(|until| *until > now));
        }
        if let SealState::Sealing(generation) = self.seal
            && let Some(step) = self.poll_seal(tracker, generation)
        {
            return step;
        }
        if tracker.agreement().unverified_leaves() == 0 {
            return Step::Wait(None);
        }
        let until = if sealing { self.read_retry_at } else { self.rest_until.max(self.read_retry_at) };
        if until > now {
            return Step::Wait(Some(until));
        }
        match tracker.take_stale(self.leaves_at_once) {
            Some(leaves) => {
                self.hashing = Some((leaves.clone(), false, now));
                Step::Hash(leaves)
            }
            None => Step::Wait(None),
        }
    }

    /// D8: sealed = writes held, nothing pending or on the way, every leaf compared and the same.
    fn poll_seal(&mut self, tracker: &mut Tracker, generation: u64) -> Option<Step> {
        if !tracker.is_idle() || !tracker.is_settled() || tracker.agreement().unverified_leaves() > 0 {
            return None;
        }
        if let Some(leaf) = tracker.agreement().first_mismatch() {
            self.seal = SealState::Differs(leaf);
            return None;
        }
        self.seal = SealState::Told(generation);
        Some(self.frame(FrameType::Seal, self.seq, &wire::encode_generation(generation)))
    }

    fn push(&mut self, item: Item) {
        if let Item::Change(extent, content) = &item {
            self.counts.covered_bytes_total += extent.len;
            if matches!(content, Content::Data(_)) {
                self.items_bytes += extent.len;
            }
        }
        self.items.push(item);
    }

    fn close_batch(&mut self) -> Step {
        let (epoch, seq) = (self.epoch, self.seq);
        self.seq += 1;
        self.sent.push_back(Sent { seq, bytes: self.items_bytes, asked: std::mem::take(&mut self.asked) });
        self.sent_bytes += self.items_bytes;
        self.items_bytes = 0;
        self.counts.batches_total += 1;
        Step::Send(Outgoing::Batch { epoch, seq, items: std::mem::take(&mut self.items) })
    }

    fn hello(&self) -> Vec<u8> {
        wire::Hello {
            version_min: wire::VERSION,
            version_max: wire::VERSION,
            size: self.config.size,
            generation: self.generation,
            disk_id: self.config.disk_id.clone(),
        }
        .encode()
    }

    fn frame(&self, frame_type: FrameType, seq: u64, body: &[u8]) -> Step {
        Step::Send(Outgoing::Frame(wire::frame(frame_type, self.epoch, seq, body)))
    }
}

#[cfg(test)]
mod tests;
