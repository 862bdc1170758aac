//! One guest-visible disk: every request from arrival to reply.
//!
//! ```text
//! request ─► [held] ─► [write order] ─► store ─► [flush] ─► [throttle delay] ─► reply
//!            D7, D8    recorder: intent │ pending   one at a time   D14
//! ```
//!
//! Pure: the data plane (or the simulation) hands in requests and finished store calls, and asks
//! for the next store call and the next reply. A request is an *op* from `handle_request` until
//! its [`Reply`] is polled; its buffer lives in the op, and does not move while the store has it.
//!
//! Without a recorder a write costs nothing beyond a plain server's. Knows nothing of NBD or of
//! sockets, and never runs a store call itself.

use std::collections::VecDeque;
use std::time::Duration;

use throttle::{Limits, WriteGate};

pub use crate::op::{Command, OpId, Reply, Request, StoreAction, StoreCall, StoreOutcome, Tag};
use crate::recorder::Recorder;
use crate::store::Trimmed;
use crate::tracker::Change;

/// Where an op is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// Held back until the volume is released.
    Held,
    /// Behind another write to the same blocks.
    Waiting,
    /// With the store; the recorder follows it or not.
    InStore { recorded: bool },
    /// Waits for a flush, which is what it asked for, or what makes its change durable.
    Flushing,
    /// Done; the reply is due now or at a time set.
    Done,
}

#[derive(Debug)]
struct Op {
    request: Request,
    stage: Stage,
    result: Result<(), i32>,
}

/// Totals since the process started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RequestCounts {
    /// Reads answered.
    pub reads_total: u64,
    /// Bytes that they returned.
    pub read_bytes_total: u64,
    /// Writes, trims and zeroings answered.
    pub writes_total: u64,
    /// Bytes that they changed.
    pub written_bytes_total: u64,
    /// Trims among the writes.
    pub trims_total: u64,
    /// Zeroings among the writes.
    pub zeroes_total: u64,
    /// Flushes answered.
    pub flushes_total: u64,
    /// Requests that the store failed.
    pub errors_total: u64,
}

/// The disk of one guest.
#[derive(Debug, Default)]
pub struct Volume {
    ops: Vec<Option<Op>>,
    free: Vec<usize>,
    calls: VecDeque<StoreCall>,
    holding: bool,
    held: VecDeque<OpId>,
    ready: VecDeque<OpId>,
    delayed: VecDeque<(Duration, OpId)>,
    gate: WriteGate,
    flushing: Vec<OpId>,
    to_flush: Vec<OpId>,
    recorder: Option<Recorder>,
    counts: RequestCounts,
    is_cached: bool,
    has_lost_writes: bool,
}

impl Volume {
    /// A volume that serves at once, on a store without a page cache.
    pub fn new() -> Self {
        Self::default()
    }

    /// The store's writes go through the page cache, or do not.
    ///
    /// If they do, a failed flush is final. The kernel counts pages that it could not write as written, and reports that
    /// once: the flush after it would succeed, for writes that are nowhere (Rebello et al., "Can Applications Recover from
    /// fsync Failures?", ATC'20). So nothing is called durable any more until the disk is opened anew.
    ///
    /// Whichever flush asks first is told, so nothing that makes durable is with such a store beside another: a durable
    /// write is a write and a flush.
    pub fn set_cached(&mut self, is_cached: bool) {
        self.is_cached = is_cached;
    }

    /// A flush failed, and nothing is called durable any more.
    pub fn has_lost_writes(&self) -> bool {
        self.has_lost_writes
    }

    /// Takes a request in.
    pub fn handle_request(&mut self, request: Request, _now: Duration) {
        let held = request.command.mutates() && self.holding;
        let op = Op { request, stage: Stage::Held, result: Ok(()) };
        let id = match self.free.pop() {
            Some(index) => {
                self.ops[index] = Some(op);
                OpId(index)
            }
            None => {
                self.ops.push(Some(op));
                OpId(self.ops.len() - 1)
            }
        };
        if held {
            self.held.push_back(id);
        } else {
            self.start(id);
        }
    }

    /// The next call that the store should run, if any.
    pub fn poll_store(&mut self) -> Option<StoreCall> {
        self.calls.pop_front()
    }

    /// The op's buffer, for the store call in hand. Empty where the command has no data.
    pub fn buffer_mut(&mut self, op: OpId) -> &mut [u8] {
        match &mut self.op_mut(op).request.buf {
            Some(buf) => buf,
            None => &mut [],
        }
    }

    /// Takes in how a store call ended.
    pub fn handle_store(&mut self, id: OpId, outcome: StoreOutcome, now: Duration) {
        let op = self.op_mut(id);
        if op.stage == Stage::Flushing {
            return self.finish_flush(outcome.map(drop), now);
        }
        op.result = outcome.map(drop);
        if op.stage == (Stage::InStore { recorded: true }) {
            self.finish_recorded(id, outcome, now);
        }
        let is_cached = self.is_cached;
        let op = self.op_mut(id);
        let wants_flush = match op.request.command {
            Command::Write { fua } => fua && is_cached,
            Command::Trim { fua } | Command::Zero { fua, .. } => fua,
            Command::Read | Command::Flush => false,
        };
        if wants_flush && op.result.is_ok() {
            return self.flush(id);
        }
        self.complete(id, now);
    }

    /// Has an op wait for a flush that starts after now. One is with the store at a time; all that wait share the next.
    fn flush(&mut self, id: OpId) {
        self.op_mut(id).stage = Stage::Flushing;
        self.to_flush.push(id);
        self.start_flush();
    }

    fn start_flush(&mut self) {
        if !self.flushing.is_empty() {
            return;
        }
        std::mem::swap(&mut self.flushing, &mut self.to_flush);
        if let Some(&op) = self.flushing.first() {
            let extent = self.op_mut(op).request.extent;
            self.calls.push_back(StoreCall { op, action: StoreAction::Flush, extent });
        }
    }

    fn finish_flush(&mut self, result: Result<(), i32>, now: Duration) {
        let result = if self.has_lost_writes { result.and(Err(libc::EIO)) } else { result };
        self.has_lost_writes |= self.is_cached && result.is_err();
        for id in std::mem::take(&mut self.flushing) {
            self.op_mut(id).result = result;
            self.complete(id, now);
        }
        self.start_flush();
    }

    /// The next reply that may go out, if any.
    pub fn poll_reply(&mut self, now: Duration) -> Option<Reply> {
        // An open gate keeps nobody to an earlier promise.
        let open = self.gate.is_open(now);
        while self.delayed.front().is_some_and(|(release, _)| open || *release <= now) {
            let (_, id) = self.delayed.pop_front()?;
            self.ready.push_back(id);
        }
        let id = self.ready.pop_front()?;
        let op = self.take(id);
        let Request { tag, command, extent, buf } = op.request;
        Some(Reply { tag, command, extent, result: op.result, buf })
    }

    /// When `poll_reply` should be asked again although nothing happened.
    pub fn poll_timeout(&self) -> Option<Duration> {
        self.delayed.front().map(|(release, _)| *release)
    }

    /// Sets how writes are slowed.
    pub fn set_limits(&mut self, limits: Limits, now: Duration) {
        self.gate.set_limits(limits, now);
    }

    /// How writes are slowed, and how many were.
    pub fn gate(&self) -> &WriteGate {
        &self.gate
    }

    /// Requests that are not answered yet, held and delayed ones among them.
    pub fn in_flight(&self) -> u64 {
        (self.ops.len() - self.free.len()) as u64
    }

    /// Totals.
    pub fn counts(&self) -> RequestCounts {
        self.counts
    }

    /// Holds every write from now on (D7, D8); delayed replies go out at once (D14). Writes that
    /// have started go on.
    pub fn hold(&mut self) {
        self.holding = true;
        self.gate.release_all();
        self.ready.extend(self.delayed.drain(..).map(|(_, id)| id));
    }

    /// Lets held writes start, in the order in which they came.
    pub fn release(&mut self) {
        self.holding = false;
        std::mem::take(&mut self.held).into_iter().for_each(|id| self.start(id));
    }

    /// Takes back the held writes of a connection that is gone: nobody was told of them, and
    /// nobody waits for them.
    pub fn drop_held(&mut self, connection: u64) -> Vec<Request> {
        let held = std::mem::take(&mut self.held);
        let (dropped, kept): (VecDeque<_>, _) =
            held.into_iter().partition(|id| self.op_mut(*id).request.tag.connection == connection);
        self.held = kept;
        dropped.into_iter().map(|id| self.take(id).request).collect()
    }

    /// Starts to record: every write from now on, and those that the store has in hand.
    pub fn attach(&mut self, recorder: Recorder) {
        let in_store: Vec<OpId> = self.ids(|op| matches!(op.stage, Stage::InStore { .. })).collect();
        let mut guard = recorder.lock();
        for id in in_store {
            let op = self.op_mut(id);
            if op.request.command.mutates() {
                op.stage = Stage::InStore { recorded: true };
                guard.tracker.adopt(id, &op.request.extent);
            }
        }
        drop(guard);
        self.recorder = Some(recorder);
    }

    /// Ends the recording; returns its recorder.
    pub fn detach(&mut self) -> Option<Recorder> {
        let recorder = self.recorder.take()?;
        let waiting = recorder.lock().tracker.dissolve();
        for op in self.ops.iter_mut().flatten() {
            if let Stage::InStore { recorded } = &mut op.stage {
                *recorded = false;
            }
        }
        waiting.into_iter().for_each(|id| self.submit(id, false));
        Some(recorder)
    }

    fn ids(&self, wanted: impl Fn(&Op) -> bool) -> impl Iterator<Item = OpId> {
        let present = self.ops.iter().enumerate().filter_map(|(index, op)| Some((index, op.as_ref()?)));
        present.filter(move |(_, op)| wanted(op)).map(|(index, _)| OpId(index))
    }

    fn start(&mut self, id: OpId) {
        let Request { command, extent, .. } = &self.op_mut(id).request;
        let (mutates, extent) = (command.mutates(), *extent);
        let Some(recorder) = self.recorder.as_ref().filter(|_| mutates) else {
            return self.submit(id, false);
        };
        if recorder.lock().tracker.begin(id, &extent) {
            self.submit(id, true);
        } else {
            self.op_mut(id).stage = Stage::Waiting;
        }
    }

    fn submit(&mut self, id: OpId, recorded: bool) {
        let is_cached = self.is_cached;
        let op = self.op_mut(id);
        op.stage = Stage::InStore { recorded };
        let action = match op.request.command {
            Command::Flush => return self.flush(id),
            Command::Read => StoreAction::Read,
            Command::Write { fua } => StoreAction::Write { durable: fua && !is_cached },
            Command::Trim { .. } => StoreAction::Trim,
            Command::Zero { allocate, .. } => StoreAction::Zero { allocate },
        };
        let extent = op.request.extent;
        self.calls.push_back(StoreCall { op: id, action, extent });
    }

    /// Tells the recorder what became of a write, and starts what waited for it.
    fn finish_recorded(&mut self, id: OpId, outcome: StoreOutcome, now: Duration) {
        let Some(recorder) = self.recorder.clone() else { return };
        let mut guard = recorder.lock();
        guard.deltas.record(1, now);
        let op = self.op_mut(id);
        let extent = op.request.extent;
        let change = match (op.request.command, outcome, op.request.buf.take()) {
            (Command::Write { .. }, Ok(_), Some(buf)) => Change::Written(buf),
            (Command::Zero { allocate, .. }, Ok(_), _) => Change::Zeroed { allocated: allocate },
            (Command::Trim { .. }, Ok(Trimmed::ReadsZero), _) => Change::Zeroed { allocated: false },
            (_, _, buf) => {
                op.request.buf = buf;
                Change::Unknown
            }
        };
        if let Some(buf) = guard.tracker.finish(id, &extent, change) {
            op.request.buf = Some(buf);
        }
        while let Some(next) = guard.tracker.poll_start() {
            self.submit(next, true);
        }
        recorder.wake_for_change(guard);
    }

    fn complete(&mut self, id: OpId, now: Duration) {
        let op = self.op_mut(id);
        op.stage = Stage::Done;
        let (command, bytes, failed) = (op.request.command, op.request.extent.len, op.result.is_err());
        self.count(command, bytes, failed);
        if command.mutates() && !self.holding {
            let release = self.gate.handle_write(now);
            if release > now {
                self.delayed.push_back((release, id));
                return;
            }
        }
        self.ready.push_back(id);
    }

    fn count(&mut self, command: Command, bytes: u64, failed: bool) {
        let counts = &mut self.counts;
        counts.errors_total += u64::from(failed);
        match command {
            Command::Read => {
                counts.reads_total += 1;
                counts.read_bytes_total += bytes;
            }
            Command::Flush => counts.flushes_total += 1,
            Command::Write { .. } | Command::Trim { .. } | Command::Zero { .. } => {
                counts.writes_total += 1;
                counts.trims_total += u64::from(matches!(command, Command::Trim { .. }));
                counts.zeroes_total += u64::from(matches!(command, Command::Zero { .. }));
                counts.written_bytes_total += bytes;
            }
        }
    }

    fn take(&mut self, id: OpId) -> Op {
        self.free.push(id.0);
        self.ops[id.0].take().expect("an op exists until its reply is polled")
    }

    fn op_mut(&mut self, id: OpId) -> &mut Op {
        self.ops[id.0].as_mut().expect("an op exists until its reply is polled")
    }
}

#[cfg(test)]
mod tests;
