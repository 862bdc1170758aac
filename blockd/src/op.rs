//! The words between a server, a volume and a store: what is asked, what is to be done, what came of it.

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
    /// One of several of which the client's request is made up.
    pub is_piece: bool,
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
