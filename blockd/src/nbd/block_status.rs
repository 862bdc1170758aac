//! The answer to BLOCK_STATUS: which parts of a range are data, holes, zeros.
//!
//! ```text
//! server: while map.wants() { look at what lies there; map.push(bytes, state) }    map.encode()
//! ```
//!
//! Neighbours of one state become one descriptor, the last one is clipped to the request, and the
//! number of descriptors is bounded: a client that wants more asks again from where the answer
//! ends. Does not look at the disk.

use crate::extent::Extent;
use crate::nbd::frame::{CHUNK_BYTES, ChunkHeader};
use crate::nbd::wire::{
    BASE_ALLOCATION_ID, NBD_REPLY_FLAG_DONE, NBD_REPLY_TYPE_BLOCK_STATUS, NBD_STATE_HOLE, NBD_STATE_ZERO,
};

/// The most descriptors in one reply: 32 KiB of them.
pub const DESCRIPTORS_MAX: usize = 4096;

/// What `base:allocation` says of a range.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Allocated, or not known: read it.
    Data,
    /// Allocated, reads as zeros.
    Zero,
    /// Not allocated, reads as zeros.
    Hole,
}

impl State {
    /// `NBD_STATE_*`.
    pub const fn flags(self) -> u32 {
        match self {
            State::Data => 0,
            State::Zero => NBD_STATE_ZERO,
            State::Hole => NBD_STATE_HOLE | NBD_STATE_ZERO,
        }
    }
}

/// The descriptors of one answer as they are found.
#[derive(Clone, Debug)]
pub struct StatusMap {
    extent: Extent,
    covered_bytes: u64,
    descriptors: Vec<(u32, State)>,
    descriptors_left: usize,
    /// Something was found that no longer fits.
    full: bool,
}

impl StatusMap {
    /// For a request as [`Command::BlockStatus`](super::request::Command::BlockStatus) has it.
    pub fn new(extent: Extent, request_one: bool) -> Self {
        let descriptors_left = if request_one { 1 } else { DESCRIPTORS_MAX };
        Self { extent, covered_bytes: 0, descriptors: Vec::new(), descriptors_left, full: false }
    }

    /// What to look at next; none when the answer is complete.
    pub fn wants(&self) -> Option<Extent> {
        let left = self.extent.len - self.covered_bytes;
        if left == 0 || self.full {
            return None;
        }
        Some(Extent::new(self.extent.offset + self.covered_bytes, left))
    }

    /// Adds the first `bytes` of what [`Self::wants`] asked for.
    pub fn push(&mut self, bytes: u64, state: State) {
        let bytes = bytes.min(self.extent.len - self.covered_bytes);
        // A request's length has 32 bits, and the sum of all descriptors stays within it.
        let length = u32::try_from(bytes).expect("clipped to the request");
        if length == 0 || self.full {
            return;
        }
        match self.descriptors.last_mut() {
            Some((last, same)) if *same == state => *last += length,
            _ if self.descriptors_left == 0 => {
                self.full = true;
                return;
            }
            _ => {
                self.descriptors_left -= 1;
                self.descriptors.push((length, state));
            }
        }
        self.covered_bytes += bytes;
    }

    /// Appends the reply to `out`. If nothing was pushed, the whole range is called data, which
    /// the specification always allows.
    pub fn encode(&self, out: &mut Vec<u8>, cookie: u64) {
        let whole = [(u32::try_from(self.extent.len).expect("a request's length"), State::Data)];
        let descriptors = if self.descriptors.is_empty() { &whole[..] } else { &self.descriptors };
        let length = 4 + 8 * descriptors.len() as u32;
        let chunk =
            ChunkHeader { flags: NBD_REPLY_FLAG_DONE, kind: NBD_REPLY_TYPE_BLOCK_STATUS, cookie, length };
        out.reserve(CHUNK_BYTES + length as usize);
        out.extend_from_slice(&chunk.encode());
        out.extend_from_slice(&BASE_ALLOCATION_ID.to_be_bytes());
        for (bytes, state) in descriptors {
            out.extend_from_slice(&bytes.to_be_bytes());
            out.extend_from_slice(&state.flags().to_be_bytes());
        }
    }
}
