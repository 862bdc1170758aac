//! One guest-visible disk: every request from arrival to reply.
//!
//! ```text
//! request ─► [held] ─► [write order] ─► store ─► [throttle delay] ─► reply
//! ```
//!
//! Pure: the data plane (or the simulation) hands in requests and finished store calls, and asks
//! for the next store call and the next reply. A request is an *op* from `handle_request` until
//! its [`Reply`] is polled; its buffer lives in the op, and does not move while the store has it.
//!
//! Knows nothing of NBD or of sockets, and never runs a store call itself.

use std::collections::VecDeque;
use std::time::Duration;

use throttle::{Limits, WriteGate};

use crate::buffer::PageBuf;
use crate::extent::Extent;
use crate::store::Trimmed;

/// What a guest asks of its disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Command {
    /// Fill the buffer from the disk.
    Read,
    /// Put the buffer on the disk; durable before the reply where `fua`.
    Write {
        /// Force unit access.
        fua: bool,
    },
    /// Make every write that was answered durable (D9).
    Flush,
    /// Discard the range.
    Trim {
        /// Force unit access.
        fua: bool,
    },
    /// Make the range read as zeros.
    Zero {
        /// Force unit access.
        fua: bool,
        /// Keep the range allocated.
        allocate: bool,
    },
}

impl Command {
    /// True for commands that change the disk.
    pub fn mutates(&self) -> bool {
        !matches!(self, Command::Read | Command::Flush)
    }
}

/// Who asked: opaque to the volume, handed back in the reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Tag {
    /// The connection.
    pub connection: u64,
    /// The client's own name for the request.
    pub cookie: u64,
}

/// A validated request: the range lies on the disk, the buffer has the range's length.
#[derive(Debug)]
pub struct Request {
    /// Who asked.
    pub tag: Tag,
    /// What for.
    pub command: Command,
    /// Where; empty for a flush.
    pub extent: Extent,
    /// The data of a write, or the space for a read; else none.
    pub buf: Option<PageBuf>,
}

/// The answer to a request.
#[derive(Debug)]
pub struct Reply {
    /// Who asked.
    pub tag: Tag,
    /// What for.
    pub command: Command,
    /// Where.
    pub extent: Extent,
    /// Done, or the errno of the store.
    pub result: Result<(), i32>,
    /// A read's data; or a write's buffer on its way back to the pool.
    pub buf: Option<PageBuf>,
}

/// Names an op between `poll_store` and `handle_store`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct OpId(pub usize);

/// What the store should do for an op.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StoreAction {
    /// Read into the op's buffer.
    Read,
    /// Write the op's buffer.
    Write {
        /// Durable before it is reported done.
        durable: bool,
    },
    /// Make what was reported done durable.
    Flush,
    /// Discard the range.
    Trim,
    /// Zero the range.
    Zero {
        /// Keep it allocated.
        allocate: bool,
    },
}

/// A call to be made of the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StoreCall {
    /// For which op.
    pub op: OpId,
    /// What.
    pub action: StoreAction,
    /// Where.
    pub extent: Extent,
}

/// How a store call ended: done (for a trim, with what), or an errno. A short read or write is
/// carried on by whoever runs the call and is not an outcome.
pub type StoreOutcome = Result<Trimmed, i32>;

#[derive(Debug)]
struct Op {
    request: Request,
    result: Result<(), i32>,
}

/// The disk of one guest.
#[derive(Debug, Default)]
pub struct Volume {
    ops: Vec<Option<Op>>,
    free: Vec<usize>,
    calls: VecDeque<StoreCall>,
    held: VecDeque<OpId>,
    holding: bool,
    ready: VecDeque<OpId>,
    delayed: VecDeque<(Duration, OpId)>,
    gate: WriteGate,
}

impl Volume {
    /// A volume that serves at once.
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes a request in.
    pub fn handle_request(&mut self, request: Request, _now: Duration) {
        let mutates = request.command.mutates();
        let op = Op { request, result: Ok(()) };
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
        if mutates && self.holding { self.held.push_back(id) } else { self.start(id) }
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
        op.result = outcome.map(|_| ());
        let command = op.request.command;
        if command.mutates() {
            let release = self.gate.handle_write(now);
            if release > now {
                self.delayed.push_back((release, id));
                return;
            }
        }
        self.ready.push_back(id);
    }

    /// The next reply that may go out, if any.
    pub fn poll_reply(&mut self, now: Duration) -> Option<Reply> {
        while self.delayed.front().is_some_and(|(release, _)| *release <= now) {
            let (_, id) = self.delayed.pop_front()?;
            self.ready.push_back(id);
        }
        let id = self.ready.pop_front()?;
        let op = self.ops[id.0].take().expect("a ready op exists");
        self.free.push(id.0);
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

    fn start(&mut self, id: OpId) {
        let Request { command, extent, .. } = &self.op_mut(id).request;
        let (command, extent) = (*command, *extent);
        let action = match command {
            Command::Read => StoreAction::Read,
            Command::Write { fua } => StoreAction::Write { durable: fua },
            Command::Flush => StoreAction::Flush,
            Command::Trim { .. } => StoreAction::Trim,
            Command::Zero { allocate, .. } => StoreAction::Zero { allocate },
        };
        self.calls.push_back(StoreCall { op: id, action, extent });
    }

    fn op_mut(&mut self, id: OpId) -> &mut Op {
        self.ops[id.0].as_mut().expect("an op exists until its reply is polled")
    }
}
