//! A delta: what one write changed, where, and how much of it.
//!
//! A delta covers whole 4 KiB blocks (the last block of a disk may be short). Its data is the very
//! buffer that the guest's write came in; cutting a delta shares the buffer and copies nothing.

use std::sync::Arc;

use crate::buffer::PageBuf;
use crate::extent::BLOCK_BYTES;
use crate::span_map::Span;

/// What a range holds now.
#[derive(Clone, Debug)]
pub enum Content {
    /// These bytes.
    Data(DataSlice),
    /// Zeros; allocated, because the guest asked for that.
    ZeroesAllocated,
    /// Zeros that need no space.
    Hole,
}

/// A part of a buffer.
#[derive(Clone, Debug)]
pub struct DataSlice {
    buf: Arc<PageBuf>,
    start: usize,
    end: usize,
}

impl DataSlice {
    /// All of a buffer.
    pub fn whole(buf: PageBuf) -> Self {
        let end = buf.len();
        Self { buf: Arc::new(buf), start: 0, end }
    }

    /// The part `from..to` of this part, in bytes.
    ///
    /// # Panics
    /// If the part is not inside.
    pub fn part(&self, from: usize, to: usize) -> Self {
        assert!(from <= to && self.start + to <= self.end, "{from}..{to} of {} bytes", self.end - self.start);
        Self { buf: Arc::clone(&self.buf), start: self.start + from, end: self.start + to }
    }

    /// The bytes.
    pub fn bytes(&self) -> &[u8] {
        &self.buf[self.start..self.end]
    }
}

impl Content {
    /// The content of the blocks from the `at`-th on.
    fn after_block(&self, at: u64) -> Content {
        match self {
            Content::Data(slice) => {
                let len = slice.end - slice.start;
                Content::Data(slice.part(((at * BLOCK_BYTES) as usize).min(len), len))
            }
            other => other.clone(),
        }
    }

    /// The content of the first `at` blocks.
    fn up_to_block(&self, at: u64) -> Content {
        match self {
            Content::Data(slice) => {
                Content::Data(slice.part(0, ((at * BLOCK_BYTES) as usize).min(slice.end - slice.start)))
            }
            other => other.clone(),
        }
    }
}

/// A recorded change that waits to be sent.
#[derive(Clone, Debug)]
pub struct Delta {
    /// When it joined the queue: lower is older.
    pub age: u64,
    /// What the blocks hold.
    pub content: Content,
}

impl Span for Delta {
    fn split_off(&mut self, at: u64) -> Self {
        let rest = Delta { age: self.age, content: self.content.after_block(at) };
        self.content = self.content.up_to_block(at);
        rest
    }
}
