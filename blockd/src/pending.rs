//! What the replica does not have yet: one structure for bulk copy, deltas and resend.
//!
//! ```text
//! write ──► queue  (deltas with their data, oldest first, within a memory budget)
//!        └► dirty  (one bit a block: to be read back from the disk when its turn comes)
//! ```
//!
//! D2: a block is in one of the two, never in both. A bulk copy is a bitmap that starts full; a
//! write to a block whose bit is set adds nothing, because the block will be read when it is sent.
//! D5: past the budget a write becomes a bit. Nothing is ever dropped, nothing ever waits here.
//!
//! Does not know what is on its way (that is the [`crate::tracker`]'s) and reads no disk.

use std::collections::BTreeSet;
use std::ops::Range;

use crate::bitmap::Bitmap;
use crate::buffer::{Account, PageBuf};
use crate::delta::{Content, DataSlice, Delta};
use crate::extent::{BLOCK_BYTES, block_count};
use crate::rules::Rules;
use crate::span_map::{SpanMap, subtract};

/// What an entry of the queue costs beyond its data, in bytes; counted against the budget.
const ENTRY_BYTES: u64 = 160;

/// Counters of what was recorded, since the recording began.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DeltaCounts {
    /// Writes, trims and zeroings recorded (S4-54).
    pub deltas_total: u64,
    /// Bytes that they changed.
    pub delta_bytes_total: u64,
    /// Queued blocks that a later write made superfluous before they were sent.
    pub coalesced_blocks_total: u64,
    /// Blocks that became bits because the queue was at its budget.
    pub overflowed_blocks_total: u64,
}

/// Blocks that have to be sent, each with its content or with the duty to read it.
#[derive(Debug)]
pub struct Pending {
    size: u64,
    budget_bytes: u64,
    queue: SpanMap<Delta>,
    by_age: BTreeSet<(u64, u64)>,
    next_age: u64,
    queue_memory: Account,
    dirty: Bitmap,
    cursor: u64,
    counts: DeltaCounts,
    rules: Rules,
}

impl Pending {
    /// Nothing pending on a disk of `size` bytes; the queue may hold `budget_bytes` of memory.
    pub fn new(size: u64, budget_bytes: u64, rules: Rules) -> Self {
        Self {
            size,
            budget_bytes,
            queue: SpanMap::default(),
            by_age: BTreeSet::new(),
            next_age: 0,
            queue_memory: Account::default(),
            dirty: Bitmap::new(block_count(size)),
            cursor: 0,
            counts: DeltaCounts::default(),
            rules,
        }
    }

    /// Records that `blocks` (all covered whole) were written from `buf`. Returns the buffer if it
    /// was not needed.
    pub fn add_data(&mut self, blocks: Range<u64>, buf: PageBuf) -> Option<PageBuf> {
        let queued_already: u64 = self.dirty_runs(&blocks).iter().map(|run| run.end - run.start).sum();
        if queued_already == blocks.end - blocks.start {
            return Some(buf);
        }
        if self.queue_bytes() + buf.capacity() as u64 + ENTRY_BYTES > self.budget_bytes {
            self.overflow(blocks);
            return Some(buf);
        }
        let mut buf = buf;
        buf.charge_to(&self.queue_memory);
        let slice = DataSlice::whole(buf);
        for part in self.without_dirty(blocks.clone()) {
            let from = ((part.start - blocks.start) * BLOCK_BYTES) as usize;
            let to = (((part.end - blocks.start) * BLOCK_BYTES) as usize).min(slice.bytes().len());
            self.enqueue(part, Content::Data(slice.part(from, to)));
        }
        self.spill();
        None
    }

    /// Records that `blocks` read as zeros now: whatever was pending for them is cancelled, bits
    /// too, and the zeros travel as such.
    pub fn add_zeroes(&mut self, blocks: Range<u64>, content: Content) {
        self.dirty.remove(blocks.clone());
        if self.queue_bytes() + ENTRY_BYTES > self.budget_bytes {
            self.overflow(blocks);
        } else {
            self.enqueue(blocks, content);
            self.spill();
        }
    }

    /// Makes `blocks` bits, whatever they were.
    pub fn mark(&mut self, blocks: Range<u64>) {
        if !self.rules.d2 {
            self.dirty.insert(blocks);
            return;
        }
        self.unqueue(blocks.clone());
        self.dirty.insert(blocks);
        self.spill();
    }

    /// Counts one recorded change of `bytes`.
    pub fn count_delta(&mut self, bytes: u64) {
        self.counts.deltas_total += 1;
        self.counts.delta_bytes_total += bytes;
    }

    /// Takes the oldest delta, cut to at most `max_blocks`.
    pub fn take_delta(&mut self, max_blocks: u64) -> Option<(Range<u64>, Content)> {
        let (_, start) = *self.by_age.first()?;
        let (span, _) = self.queue.starting_at(start).expect("the two indexes agree");
        let taken = span.start..span.end.min(span.start + data_limit(max_blocks, self.queue_content(start)));
        self.unindex(&taken);
        let mut parts = self.queue.remove(taken.clone());
        self.reindex_from(taken.end);
        let (range, delta) = parts.pop().expect("one delta starts there");
        Some((range, delta.content))
    }

    /// Takes the next run of bits (round robin over the disk) of at most `max_blocks`, leaving out
    /// what `busy` names of a candidate range. The caller reads those blocks from the disk.
    pub fn take_dirty(
        &mut self,
        max_blocks: u64,
        busy: impl Fn(&Range<u64>) -> Vec<Range<u64>>,
    ) -> Option<Range<u64>> {
        let end = block_count(self.size);
        let found = self.find_dirty(self.cursor..end, max_blocks, &busy);
        let taken = found.or_else(|| self.find_dirty(0..self.cursor, max_blocks, &busy))?;
        self.dirty.remove(taken.clone());
        self.cursor = taken.end % end;
        Some(taken)
    }

    /// Drops bits.
    pub(crate) fn forget(&mut self, blocks: Range<u64>) {
        self.dirty.remove(blocks);
    }

    /// Continues the round over the bits at `block`.
    pub fn rewind(&mut self, block: u64) {
        self.cursor = block;
    }

    /// The parts of `blocks` that are pending, in either place.
    pub fn busy(&self, blocks: &Range<u64>) -> Vec<Range<u64>> {
        let mut busy = self.dirty_runs(blocks);
        busy.extend(self.queue.overlapping(blocks.clone()).map(|(span, _)| span));
        busy
    }

    /// True if any of `blocks` is pending.
    pub fn overlaps(&self, blocks: &Range<u64>) -> bool {
        self.dirty.next_run(blocks.clone()).is_some() || self.queue.overlaps(blocks)
    }

    /// True if nothing has to be sent.
    pub fn is_empty(&self) -> bool {
        self.queue.is_empty() && self.dirty.is_empty()
    }

    /// All blocks that are pending now.
    pub fn snapshot(&self) -> Bitmap {
        let mut blocks = self.dirty.clone();
        for (span, _) in self.queue.overlapping(0..block_count(self.size)) {
            blocks.insert(span);
        }
        blocks
    }

    /// Number of deltas in the queue.
    pub fn queued_deltas(&self) -> u64 {
        self.queue.len() as u64
    }

    /// Memory of the queue in bytes, its buffers counted in full.
    pub fn queue_bytes(&self) -> u64 {
        self.queue_memory.bytes() + self.queue.len() as u64 * ENTRY_BYTES
    }

    /// True while it pays to leave deltas in the queue: more is left to be read from the disk than is queued, so they
    /// hold nothing up, and a block that is written again meanwhile is sent once. Not past half of the budget: a full
    /// queue would lose its data to bits.
    pub fn deltas_may_wait(&self) -> bool {
        let queue_bytes = self.queue_bytes();
        queue_bytes < self.budget_bytes / 2 && queue_bytes < self.dirty_blocks() * BLOCK_BYTES
    }

    /// Number of blocks whose bit is set.
    pub fn dirty_blocks(&self) -> u64 {
        self.dirty.count()
    }

    /// Counters since the recording began.
    pub fn counts(&self) -> DeltaCounts {
        self.counts
    }

    fn queue_content(&self, start: u64) -> &Content {
        &self.queue.starting_at(start).expect("the two indexes agree").1.content
    }

    fn dirty_runs(&self, blocks: &Range<u64>) -> Vec<Range<u64>> {
        self.dirty.runs(blocks.clone()).collect()
    }

    fn without_dirty(&self, blocks: Range<u64>) -> Vec<Range<u64>> {
        if !self.rules.d2 {
            return vec![blocks];
        }
        subtract(blocks.clone(), self.dirty_runs(&blocks))
    }

    fn find_dirty(
        &self,
        within: Range<u64>,
        max_blocks: u64,
        busy: &impl Fn(&Range<u64>) -> Vec<Range<u64>>,
    ) -> Option<Range<u64>> {
        for run in self.dirty.runs(within) {
            let candidate = run.start..run.end.min(run.start.saturating_add(max_blocks));
            if let Some(free) = subtract(candidate.clone(), busy(&candidate)).into_iter().next() {
                return Some(free);
            }
        }
        None
    }

    fn overflow(&mut self, blocks: Range<u64>) {
        self.counts.overflowed_blocks_total += blocks.end - blocks.start;
        self.mark(blocks);
    }

    /// Turns the youngest deltas into bits until the queue is within its budget: cutting a long
    /// delta into many pieces costs memory too.
    fn spill(&mut self) {
        while self.queue_bytes() > self.budget_bytes
            && let Some((_, start)) = self.by_age.pop_last()
        {
            let (span, _) = self.queue.starting_at(start).expect("the two indexes agree");
            self.queue.remove(span.clone());
            self.counts.overflowed_blocks_total += span.end - span.start;
            self.dirty.insert(span);
        }
    }

    /// Lays a delta over what is queued. It takes the age of the oldest that it replaces, so that
    /// a block which is rewritten for ever still gets its turn.
    fn enqueue(&mut self, blocks: Range<u64>, content: Content) {
        let oldest = self.unqueue(blocks.clone());
        let age = oldest.unwrap_or_else(|| {
            self.next_age += 1;
            self.next_age
        });
        self.by_age.insert((age, blocks.start));
        self.queue.insert(blocks, Delta { age, content });
    }

    /// Takes `blocks` out of the queue; returns the lowest age of what was there.
    fn unqueue(&mut self, blocks: Range<u64>) -> Option<u64> {
        self.unindex(&blocks);
        let removed = self.queue.remove(blocks.clone());
        self.reindex_overhang(&blocks);
        self.counts.coalesced_blocks_total +=
            removed.iter().map(|(span, _)| span.end - span.start).sum::<u64>();
        removed.into_iter().map(|(_, delta)| delta.age).min()
    }

    /// Forgets the ages of every delta that overlaps `blocks`.
    fn unindex(&mut self, blocks: &Range<u64>) {
        for (span, delta) in self.queue.overlapping(blocks.clone()) {
            self.by_age.remove(&(delta.age, span.start));
        }
    }

    /// Indexes again what a cut left before and after `blocks`.
    fn reindex_overhang(&mut self, blocks: &Range<u64>) {
        if let Some(before) = blocks.start.checked_sub(1)
            && let Some((span, delta)) = self.queue.overlapping(before..blocks.start).next()
        {
            self.by_age.insert((delta.age, span.start));
        }
        self.reindex_from(blocks.end);
    }

    fn reindex_from(&mut self, start: u64) {
        if let Some((span, delta)) = self.queue.starting_at(start) {
            self.by_age.insert((delta.age, span.start));
        }
    }
}

/// Only data is cut to the limit: zeros take no room, however many.
fn data_limit(max_blocks: u64, content: &Content) -> u64 {
    if matches!(content, Content::Data(_)) { max_blocks } else { u64::MAX / 2 }
}

#[cfg(test)]
mod tests;
