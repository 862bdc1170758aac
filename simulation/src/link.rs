//! One byte stream each way between the two hosts, which can be cut at any byte.

use std::collections::VecDeque;

use super::rng::Rng;

/// One direction: what was sent and has not arrived.
#[derive(Debug, Default)]
pub struct Pipe {
    bytes: VecDeque<u8>,
}

impl Pipe {
    /// Sends bytes; they arrive when somebody takes them.
    pub fn send(&mut self, bytes: &[u8]) {
        self.bytes.extend(bytes);
    }

    /// Bytes that are on their way.
    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    /// True if nothing is on its way.
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// Lets up to `most` bytes arrive.
    pub fn take(&mut self, most: usize) -> Vec<u8> {
        let count = most.min(self.bytes.len());
        self.bytes.drain(..count).collect()
    }

    /// The stream is cut: a part of what is on its way still arrives.
    fn cut(&mut self, rng: &mut Rng) {
        let keep = rng.below(self.bytes.len() as u64 + 1) as usize;
        self.bytes.truncate(keep);
    }
}

/// A connection. Each end notices the cut in its own time.
#[derive(Debug, Default)]
pub struct Link {
    /// From source to replica.
    pub down: Pipe,
    /// From replica to source.
    pub up: Pipe,
    /// Nothing more enters.
    pub cut: bool,
    /// The source has noticed.
    pub source_gone: bool,
}

impl Link {
    /// Cuts both directions.
    pub fn cut(&mut self, rng: &mut Rng) {
        if !self.cut {
            self.cut = true;
            self.down.cut(rng);
            self.up.cut(rng);
        }
    }
}
