//! A random model of the structure, and the cases that the rules name.

use proptest::prelude::*;

use super::*;

const BLOCKS: u64 = 24;

fn filled(blocks: &Range<u64>, value: u8) -> PageBuf {
    PageBuf::copy_of(&vec![value; ((blocks.end - blocks.start) * BLOCK_BYTES) as usize])
}

fn pending(budget_bytes: u64) -> Pending {
    Pending::new(BLOCKS * BLOCK_BYTES, budget_bytes, Rules::ALL)
}

fn free(_: &Range<u64>) -> Vec<Range<u64>> {
    Vec::new()
}

#[derive(Clone, Debug)]
enum Step {
    Write(u64, u64),
    Zero(u64, u64),
    Mark(u64, u64),
    TakeDelta(u64),
    TakeDirty(u64),
}

fn step() -> impl Strategy<Value = Step> {
    let range = || (0..BLOCKS, 1u64..6);
    prop_oneof![
        4 => range().prop_map(|(a, n)| Step::Write(a, n)),
        1 => range().prop_map(|(a, n)| Step::Zero(a, n)),
        1 => range().prop_map(|(a, n)| Step::Mark(a, n)),
        2 => (1u64..5).prop_map(Step::TakeDelta),
        2 => (1u64..5).prop_map(Step::TakeDirty),
    ]
}

/// Source disk and replica as one byte a block; pending moves one to the other.
struct Model {
    disk: Vec<u8>,
    replica: Vec<u8>,
    pending: Pending,
}

impl Model {
    fn apply(&mut self, step: &Step, value: u8) {
        let range = |a: u64, n: u64| a..(a + n).min(BLOCKS);
        match *step {
            Step::Write(a, n) => {
                let blocks = range(a, n);
                self.disk[blocks.start as usize..blocks.end as usize].fill(value);
                let buf = filled(&blocks, value);
                self.pending.add_data(blocks, buf);
            }
            Step::Zero(a, n) => {
                let blocks = range(a, n);
                self.disk[blocks.start as usize..blocks.end as usize].fill(0);
                self.pending.add_zeroes(blocks, Content::Hole);
            }
            Step::Mark(a, n) => self.pending.mark(range(a, n)),
            Step::TakeDelta(n) => {
                if let Some((blocks, content)) = self.pending.take_delta(n) {
                    self.send(blocks, &content);
                }
            }
            Step::TakeDirty(n) => {
                if let Some(blocks) = self.pending.take_dirty(n, free) {
                    for block in blocks {
                        self.replica[block as usize] = self.disk[block as usize];
                    }
                }
            }
        }
    }

    fn send(&mut self, blocks: Range<u64>, content: &Content) {
        for (index, block) in blocks.clone().enumerate() {
            self.replica[block as usize] = match content {
                Content::Data(slice) => slice.bytes()[index * BLOCK_BYTES as usize],
                _ => 0,
            };
        }
        if let Content::Data(slice) = content {
            assert_eq!(slice.bytes().len() as u64, (blocks.end - blocks.start) * BLOCK_BYTES);
        }
    }

    fn check(&self) -> Result<(), TestCaseError> {
        for block in 0..BLOCKS {
            let one = block..block + 1;
            let queued = self.pending.queue.overlaps(&one);
            let dirty = self.pending.dirty.contains(block);
            prop_assert!(!(queued && dirty), "D2: block {block} is in both places");
            if !queued && !dirty {
                prop_assert_eq!(
                    self.disk[block as usize],
                    self.replica[block as usize],
                    "block {} forgotten",
                    block
                );
            }
        }
        let indexed: Vec<u64> = self.pending.by_age.iter().map(|(_, start)| *start).collect();
        let mut spans: Vec<u64> =
            self.pending.queue.overlapping(0..BLOCKS).map(|(span, _)| span.start).collect();
        let mut sorted = indexed.clone();
        sorted.sort_unstable();
        spans.sort_unstable();
        prop_assert_eq!(sorted, spans, "the two indexes agree");
        Ok(())
    }
}

proptest! {
    #[test]
    fn nothing_is_forgotten_and_no_block_is_pending_twice(
        steps in prop::collection::vec(step(), 1..60),
        budget_blocks in 0u64..30,
    ) {
        let pending = pending(budget_blocks * (BLOCK_BYTES + ENTRY_BYTES));
        let mut model = Model { disk: vec![0; BLOCKS as usize], replica: vec![0; BLOCKS as usize], pending };
        for (index, step) in steps.iter().enumerate() {
            model.apply(step, 1 + (index % 250) as u8);
            model.check()?;
            prop_assert!(model.pending.queue_bytes() <= model.pending.budget_bytes, "D5");
        }
        while !model.pending.is_empty() {
            model.apply(&Step::TakeDelta(3), 0);
            model.apply(&Step::TakeDirty(3), 0);
        }
        prop_assert_eq!(model.disk, model.replica);
    }
}

/// S4-25: there is no older bulk data that could overwrite a delta.
#[test]
fn a_write_to_a_block_that_is_still_to_be_copied_adds_nothing() {
    let mut pending = pending(1 << 20);
    pending.mark(0..BLOCKS);
    assert!(pending.add_data(3..5, filled(&(3..5), 1)).is_some(), "the buffer comes back");
    assert_eq!(pending.queued_deltas(), 0);
    assert_eq!(pending.dirty_blocks(), BLOCKS);
}

#[test]
fn a_superseded_delta_is_coalesced_and_keeps_its_turn() {
    let mut pending = pending(1 << 20);
    pending.add_data(3..5, filled(&(3..5), 1));
    pending.add_data(9..10, filled(&(9..10), 2));
    pending.add_data(3..5, filled(&(3..5), 3));
    assert_eq!(pending.counts().coalesced_blocks_total, 2);
    let (blocks, content) = pending.take_delta(64).unwrap();
    assert_eq!(blocks, 3..5);
    assert!(matches!(content, Content::Data(slice) if slice.bytes().iter().all(|byte| *byte == 3)));
}

#[test]
fn zeroes_cancel_what_waits_for_their_range_bits_too() {
    let mut pending = pending(1 << 20);
    pending.mark(0..8);
    pending.add_data(10..12, filled(&(10..12), 1));
    pending.add_zeroes(4..11, Content::Hole);
    assert_eq!(pending.dirty_blocks(), 4);
    let (blocks, content) = pending.take_delta(1).unwrap();
    assert_eq!(blocks, 4..11, "zeros are never cut, and took the age of the delta under them");
    assert!(matches!(content, Content::Hole));
    assert_eq!(pending.take_delta(8).unwrap().0, 11..12);
}

#[test]
fn past_the_budget_a_write_becomes_a_bit() {
    let mut pending = pending(2 * (BLOCK_BYTES + ENTRY_BYTES));
    for block in 0..5 {
        pending.add_data(block..block + 1, filled(&(block..block + 1), 1));
    }
    assert_eq!(pending.queued_deltas(), 2);
    assert_eq!(pending.dirty_blocks(), 3);
    assert_eq!(pending.counts().overflowed_blocks_total, 3);
}

#[test]
fn busy_blocks_are_left_for_later() {
    let mut pending = pending(0);
    pending.mark(0..6);
    assert_eq!(pending.take_dirty(6, |_| vec![0..2, 4..5]), Some(2..4));
    assert_eq!(pending.take_dirty(6, |_| vec![0..2, 4..5]), Some(5..6));
    assert_eq!(pending.take_dirty(6, |_| vec![0..2, 4..5]), None);
    assert_eq!(pending.take_dirty(6, free), Some(0..2));
}

#[test]
fn a_short_last_block_is_queued_whole() {
    let mut pending = Pending::new(2 * BLOCK_BYTES + 100, 1 << 20, Rules::ALL);
    pending.add_data(1..3, PageBuf::copy_of(&[5; BLOCK_BYTES as usize + 100]));
    pending.add_data(1..2, PageBuf::copy_of(&[6; BLOCK_BYTES as usize]));
    let first = pending.take_delta(8).unwrap();
    assert_eq!(first.0, 1..2);
    let (blocks, content) = pending.take_delta(8).unwrap();
    assert_eq!(blocks, 2..3);
    assert!(matches!(content, Content::Data(slice) if slice.bytes() == [5; 100]));
}

#[test]
fn deltas_wait_while_more_is_left_of_the_bulk_and_the_queue_has_room() {
    let mut pending = pending(6 * BLOCK_BYTES);
    pending.mark(8..BLOCKS);
    assert!(pending.deltas_may_wait());
    pending.add_data(0..2, filled(&(0..2), 1));
    assert!(pending.deltas_may_wait());
    pending.add_data(2..4, filled(&(2..4), 1));
    assert!(!pending.deltas_may_wait(), "the queue is past half of its budget");
    while pending.take_delta(1).is_some() {}
    pending.add_data(0..1, filled(&(0..1), 2));
    while pending.take_dirty(BLOCKS, free).is_some() {}
    assert!(!pending.deltas_may_wait(), "nothing is left of the bulk");
}
