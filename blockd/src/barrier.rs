//! Barriers: "everything that was written before now is durable at the replica".
//!
//! A barrier notes what is pending when it is set. It waits until each of those blocks was taken
//! into a batch after that moment (in whatever newer form), and until the last such batch is
//! durable. Writes that come later cannot hold it up.

use std::ops::Range;

use crate::bitmap::Bitmap;

#[derive(Debug)]
struct Barrier {
    id: u64,
    left: Bitmap,
    last_seq: Option<u64>,
    lost: Vec<Range<u64>>,
}

/// The barriers that somebody waits for.
#[derive(Debug, Default)]
pub struct Barriers {
    barriers: Vec<Barrier>,
    settled_seq: u64,
    next_id: u64,
}

impl Barriers {
    /// Sets a barrier over the blocks of `left` and over every batch up to `last_seq`.
    pub fn add(&mut self, left: Bitmap, last_seq: Option<u64>) -> u64 {
        self.next_id += 1;
        self.barriers.push(Barrier { id: self.next_id, left, last_seq, lost: Vec::new() });
        self.next_id
    }

    /// `blocks` were taken into batch `seq`.
    pub fn take(&mut self, seq: u64, blocks: &Range<u64>) {
        for barrier in &mut self.barriers {
            if barrier.left.remove(blocks.clone()) > 0 {
                barrier.last_seq = Some(seq);
            }
        }
    }

    /// `blocks` were taken and have to be taken again.
    pub fn put_back(&mut self, blocks: &Range<u64>) {
        for barrier in &mut self.barriers {
            barrier.left.insert(blocks.clone());
        }
    }

    /// Everything up to `seq` is durable.
    pub fn settle(&mut self, seq: u64) {
        self.settled_seq = seq;
    }

    /// `blocks` were on the way when the stream was lost, and are pending again.
    pub fn return_blocks(&mut self, blocks: &Range<u64>) {
        for barrier in &mut self.barriers {
            barrier.lost.push(blocks.clone());
        }
    }

    /// The stream was lost: barriers that waited for an acknowledgement wait for what came back.
    pub fn lose_stream(&mut self) {
        for barrier in &mut self.barriers {
            let waited = barrier.last_seq.is_some_and(|seq| seq > self.settled_seq);
            for blocks in barrier.lost.drain(..) {
                if waited {
                    barrier.left.insert(blocks);
                }
            }
            barrier.last_seq = None;
        }
        self.settled_seq = 0;
    }

    /// True if the barrier was passed (or does not exist).
    pub fn passed(&self, id: u64) -> bool {
        let settled = |barrier: &Barrier| {
            barrier.left.is_empty() && barrier.last_seq.is_none_or(|seq| seq <= self.settled_seq)
        };
        self.barriers.iter().find(|barrier| barrier.id == id).is_none_or(settled)
    }

    /// Forgets a barrier; true if it was passed.
    pub fn end(&mut self, id: u64) -> bool {
        let passed = self.passed(id);
        self.barriers.retain(|barrier| barrier.id != id);
        passed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bits(range: Range<u64>) -> Bitmap {
        let mut bitmap = Bitmap::new(100);
        bitmap.insert(range);
        bitmap
    }

    #[test]
    fn a_barrier_waits_for_the_batch_that_carries_its_last_block() {
        let mut barriers = Barriers::default();
        let id = barriers.add(bits(3..5), Some(7));
        barriers.take(8, &(3..4));
        barriers.take(9, &(0..50));
        barriers.take(10, &(3..4));
        barriers.settle(8);
        assert!(!barriers.passed(id));
        barriers.settle(9);
        assert!(barriers.end(id), "a later batch with the same block does not hold it up");
    }

    #[test]
    fn what_was_on_the_way_when_the_stream_was_lost_has_to_be_taken_again() {
        let mut barriers = Barriers::default();
        let id = barriers.add(bits(3..5), None);
        barriers.take(8, &(3..5));
        barriers.return_blocks(&(3..5));
        barriers.lose_stream();
        assert!(!barriers.passed(id));
        barriers.take(1, &(3..5));
        barriers.settle(1);
        assert!(barriers.passed(id));
    }

    #[test]
    fn a_barrier_with_nothing_before_it_is_passed_at_once() {
        let mut barriers = Barriers::default();
        let id = barriers.add(Bitmap::new(100), None);
        assert!(barriers.passed(id));
    }
}
