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

#[cfg(test)]
mod tests {
    use super::{DESCRIPTORS_MAX, State, StatusMap};
    use crate::extent::Extent;

    #[test]
    fn a_reply_has_its_golden_bytes() {
        let mut map = StatusMap::new(Extent::new(0x1000, 0x4000), false);
        assert_eq!(map.wants(), Some(Extent::new(0x1000, 0x4000)));
        map.push(0x1000, State::Data);
        map.push(0x1000, State::Data);
        assert_eq!(map.wants(), Some(Extent::new(0x3000, 0x2000)));
        map.push(0x800, State::Zero);
        map.push(1 << 40, State::Hole);
        assert_eq!(map.wants(), None);
        let mut out = Vec::new();
        map.encode(&mut out, 9);
        let golden = [
            &[0x66, 0x8e, 0x33, 0xef, 0, 1, 0, 5, 0, 0, 0, 0, 0, 0, 0, 9, 0, 0, 0, 28][..],
            &[0, 0, 0, 1],
            &[0, 0, 0x20, 0, 0, 0, 0, 0],
            &[0, 0, 0x08, 0, 0, 0, 0, 2],
            &[0, 0, 0x18, 0, 0, 0, 0, 3],
        ]
        .concat();
        assert_eq!(out, golden);
    }

    #[test]
    fn a_request_for_one_descriptor_gets_one_as_long_as_it_lasts() {
        let mut map = StatusMap::new(Extent::new(0, u64::from(u32::MAX)), true);
        map.push(4096, State::Hole);
        map.push(4096, State::Hole);
        assert!(map.wants().is_some());
        map.push(4096, State::Data);
        assert_eq!(map.wants(), None);
        map.push(4096, State::Hole);
        let mut out = Vec::new();
        map.encode(&mut out, 0);
        assert_eq!(out[20..], [0, 0, 0, 1, 0, 0, 0x20, 0, 0, 0, 0, 3]);
    }

    #[test]
    fn the_number_of_descriptors_is_bounded() {
        let mut map = StatusMap::new(Extent::new(0, 1 << 31), false);
        let mut states = [State::Data, State::Hole].into_iter().cycle();
        let mut pushed = 0;
        while map.wants().is_some() {
            map.push(512, states.next().expect("endless"));
            pushed += 1;
        }
        assert_eq!(pushed, DESCRIPTORS_MAX + 1);
        let mut out = Vec::new();
        map.encode(&mut out, 0);
        assert_eq!(out.len(), 20 + 4 + 8 * DESCRIPTORS_MAX);
    }

    #[test]
    fn a_range_of_which_nothing_is_known_is_data() {
        let mut out = Vec::new();
        StatusMap::new(Extent::new(0, 4096), false).encode(&mut out, 0);
        assert_eq!(out[20..], [0, 0, 0, 1, 0, 0, 0x10, 0, 0, 0, 0, 0]);
    }
}
