//! The order of writes: overlapping ones go to the disk one after another (D1, D3).
//!
//! Two writes to one block that are in flight together may land in either order, and nobody could
//! say which content a delta should carry. So a write that overlaps one in flight, or one that
//! waits already, waits; across connections too. Ranges are whole blocks, because deltas are.
//!
//! Knows nothing of data; does not order reads, nor anything outside of record mode.

use std::collections::VecDeque;
use std::ops::Range;

use crate::op::OpId;
use crate::rules::Rules;
use crate::span_map::SpanMap;

/// Writes in flight and writes that wait for them.
#[derive(Debug, Default)]
pub struct WriteOrder {
    in_flight: SpanMap<()>,
    waiting: VecDeque<(OpId, Range<u64>)>,
    /// In flight since before the order began: these may overlap each other.
    adopted: Vec<(OpId, Range<u64>)>,
    rules: Rules,
}

impl WriteOrder {
    /// Nothing in flight, nothing waiting.
    pub fn new(rules: Rules) -> Self {
        Self { rules, ..Self::default() }
    }

    /// Asks to write `blocks`: true if the write may start now, else it waits its turn.
    pub fn begin(&mut self, op: OpId, blocks: Range<u64>) -> bool {
        if !self.rules.d1 {
            return true;
        }
        if self.in_flight(&blocks) || self.waiting.iter().any(|(_, other)| overlap(other, &blocks)) {
            self.waiting.push_back((op, blocks));
            return false;
        }
        self.in_flight.insert(blocks, ());
        true
    }

    /// Takes note of a write that was started before the order began.
    pub fn adopt(&mut self, op: OpId, blocks: Range<u64>) {
        self.adopted.push((op, blocks));
    }

    /// Ends a write; true if it was an adopted one, whose place among others is unknown.
    pub fn finish(&mut self, op: OpId, blocks: Range<u64>) -> bool {
        match self.adopted.iter().position(|(other, _)| *other == op) {
            Some(index) => {
                self.adopted.swap_remove(index);
                true
            }
            None => {
                self.in_flight.remove(blocks);
                false
            }
        }
    }

    /// The next waiting write whose way is free; it counts as started.
    pub fn poll_start(&mut self) -> Option<(OpId, Range<u64>)> {
        let free = |index: usize| {
            let blocks = &self.waiting[index].1;
            let behind = self.waiting.iter().take(index).any(|(_, other)| overlap(other, blocks));
            !behind && !self.in_flight(blocks)
        };
        let index = (0..self.waiting.len()).find(|index| free(*index))?;
        let (op, blocks) = self.waiting.remove(index)?;
        self.in_flight.insert(blocks.clone(), ());
        Some((op, blocks))
    }

    /// True if a write to any of `blocks` has started and not ended.
    pub fn in_flight(&self, blocks: &Range<u64>) -> bool {
        self.in_flight.overlaps(blocks) || self.adopted.iter().any(|(_, other)| overlap(other, blocks))
    }

    /// The parts of `blocks` over which writes are in flight.
    pub fn busy(&self, blocks: &Range<u64>) -> Vec<Range<u64>> {
        let adopted =
            self.adopted.iter().map(|(_, other)| other.clone()).filter(|other| overlap(other, blocks));
        self.in_flight.overlapping(blocks.clone()).map(|(span, ())| span).chain(adopted).collect()
    }

    /// True if nothing is in flight and nothing waits.
    pub fn is_idle(&self) -> bool {
        self.in_flight.is_empty() && self.waiting.is_empty() && self.adopted.is_empty()
    }

    /// Ends the order: every waiting write is to be started.
    pub fn dissolve(&mut self) -> Vec<OpId> {
        self.in_flight.drain().for_each(drop);
        self.adopted.clear();
        self.waiting.drain(..).map(|(op, _)| op).collect()
    }
}

fn overlap(a: &Range<u64>, b: &Range<u64>) -> bool {
    a.start < b.end && b.start < a.end
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn overlapping_writes_start_in_the_order_in_which_they_came() {
        let mut order = WriteOrder::default();
        assert!(order.begin(OpId(0), 0..4));
        assert!(!order.begin(OpId(1), 3..6));
        assert!(!order.begin(OpId(2), 5..7), "it overlaps one that waits");
        assert!(order.begin(OpId(3), 7..9));
        assert_eq!(order.poll_start(), None);
        order.finish(OpId(0), 0..4);
        assert_eq!(order.poll_start(), Some((OpId(1), 3..6)));
        assert_eq!(order.poll_start(), None);
        order.finish(OpId(1), 3..6);
        assert_eq!(order.poll_start(), Some((OpId(2), 5..7)));
    }

    #[test]
    fn an_adopted_write_holds_back_what_overlaps_it() {
        let mut order = WriteOrder::default();
        order.adopt(OpId(0), 0..2);
        order.adopt(OpId(1), 1..3);
        assert!(!order.begin(OpId(2), 2..5));
        assert!(!order.finish(OpId(7), 50..51));
        assert!(order.finish(OpId(1), 1..3));
        assert_eq!(order.poll_start(), Some((OpId(2), 2..5)));
        assert!(order.finish(OpId(0), 0..2));
        assert!(!order.finish(OpId(2), 2..5));
        assert!(order.is_idle());
    }

    #[test]
    fn dissolving_hands_back_what_waits() {
        let mut order = WriteOrder::default();
        order.begin(OpId(0), 0..4);
        order.begin(OpId(1), 0..4);
        assert_eq!(order.dissolve(), vec![OpId(1)]);
        assert!(order.is_idle());
    }
}
