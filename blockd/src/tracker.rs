//! Follows every change of a recorded disk from its start to the replica's durable acknowledgement.
//!
//! ```text
//!            start                finish              take                 settle
//! (settled) ──────► in flight ──────────► pending ──────────► on the way ──────────► (settled)
//!            intent bit set               queue | bit   ▲       │ batch n            intent bit clear
//!                                                       └───────┘ stream lost (D4)
//! ```
//!
//! * D1, D3: overlapping writes start one after another ([`WriteOrder`]); a read-back never overlaps
//!   a write in flight; a failed write, and one whose order is unknown, becomes a bit.
//! * D4: what was taken is on the way until a durable acknowledgement; a lost stream makes it bits.
//! * D10: the intent bit of a block is set before a write to it starts, and cleared only when
//!   nothing about the block is in flight, pending or on the way.
//!
//! Beside it keeps what the two disks are known to agree on ([`crate::agreement`]). Pure; does not
//! read, send or encode, and never makes a write wait for the replica.

use std::collections::VecDeque;
use std::ops::Range;

use crate::agreement::Agreement;
use crate::barrier::Barriers;
use crate::buffer::PageBuf;
use crate::delta::Content;
use crate::extent::{BLOCK_BYTES, BLOCKS_PER_LEAF, Extent, block_count};
use crate::op::OpId;
use crate::order::WriteOrder;
use crate::pending::Pending;
use crate::rules::Rules;
use crate::sidecar::IntentMap;
use crate::span_map::{SpanMap, subtract};

/// How a change of the disk ended.
#[derive(Debug)]
pub enum Change {
    /// The extent holds the buffer's bytes.
    Written(PageBuf),
    /// The extent reads as zeros.
    Zeroed {
        /// And is allocated.
        allocated: bool,
    },
    /// The extent may hold anything.
    Unknown,
}

/// Something to be sent as part of a batch.
#[derive(Clone, Debug)]
pub enum Taken {
    /// These bytes or zeros.
    Delta(Extent, Content),
    /// Whatever the disk holds there.
    ReadBack(Extent),
    /// Whole leaves, all dirty, that the replica may hold already: ask before sending.
    Offer(Range<u64>),
}

/// The life of every change of one disk while it is recorded.
pub struct Tracker {
    size: u64,
    order: WriteOrder,
    pending: Pending,
    intent: Box<dyn IntentMap + Send>,
    on_the_way: SpanMap<u64>,
    batches: VecDeque<(u64, Vec<Range<u64>>)>,
    agreement: Agreement,
    barriers: Barriers,
    rules: Rules,
}

impl Tracker {
    /// A tracker for a disk of `size` bytes whose settled blocks are those without an intent bit:
    /// every block that has one starts as pending. The delta queue may use `budget_bytes`.
    pub fn new(size: u64, budget_bytes: u64, intent: Box<dyn IntentMap + Send>) -> Self {
        Self::with_rules(size, budget_bytes, intent, Rules::ALL)
    }

    /// The same with fewer rules, for a simulation that has to notice.
    pub fn with_rules(size: u64, budget_bytes: u64, intent: Box<dyn IntentMap + Send>, rules: Rules) -> Self {
        let mut pending = Pending::new(size, budget_bytes, rules);
        let mut from = 0;
        while let Some(run) = intent.next_run(from) {
            from = run.end;
            pending.mark(run);
        }
        Self {
            size,
            order: WriteOrder::new(rules),
            pending,
            intent,
            on_the_way: SpanMap::default(),
            batches: VecDeque::new(),
            agreement: Agreement::new(size),
            barriers: Barriers::default(),
            rules,
        }
    }

    /// Asks to start a change of `extent`: true if it may start now, else [`Tracker::poll_start`]
    /// names it when its turn comes.
    pub fn begin(&mut self, op: OpId, extent: &Extent) -> bool {
        let starts = self.order.begin(op, extent.touched_blocks());
        if starts {
            self.note_start(extent.touched_blocks());
        }
        starts
    }

    /// Takes note of a change that was started before the recording began.
    pub fn adopt(&mut self, op: OpId, extent: &Extent) {
        self.order.adopt(op, extent.touched_blocks());
        self.note_start(extent.touched_blocks());
    }

    /// Ends a change that had started; returns the buffer if the queue did not keep it.
    pub fn finish(&mut self, op: OpId, extent: &Extent, change: Change) -> Option<PageBuf> {
        let touched = extent.touched_blocks();
        let adopted = self.order.finish(op, touched.clone());
        self.pending.count_delta(extent.len);
        if !self.rules.d10 {
            self.intent.set(touched.clone());
        }
        let change = if adopted { Change::Unknown } else { change };
        let covered = extent.covered_blocks(self.size);
        match change {
            Change::Written(buf) if covered.start == touched.start && !covered.is_empty() => {
                self.pending.mark(covered.end..touched.end);
                self.pending.add_data(covered, buf)
            }
            Change::Zeroed { allocated } if !covered.is_empty() => {
                self.pending.mark(touched.start..covered.start);
                self.pending.mark(covered.end..touched.end);
                let content = if allocated { Content::ZeroesAllocated } else { Content::Hole };
                self.pending.add_zeroes(covered, content);
                None
            }
            Change::Written(buf) => {
                self.pending.mark(touched);
                Some(buf)
            }
            Change::Zeroed { .. } | Change::Unknown => {
                self.pending.mark(touched);
                None
            }
        }
    }

    /// The next change that waited for others and may start now.
    pub fn poll_start(&mut self) -> Option<OpId> {
        let (op, blocks) = self.order.poll_start()?;
        self.note_start(blocks);
        Some(op)
    }

    /// Ends the recording; returns every change that still waits and is to be started.
    pub fn dissolve(&mut self) -> Vec<OpId> {
        self.order.dissolve()
    }

    /// True if no change is in flight or waiting.
    pub fn is_idle(&self) -> bool {
        self.order.is_idle()
    }

    /// True if the replica has everything, durably.
    pub fn is_settled(&self) -> bool {
        self.pending.is_empty() && self.on_the_way.is_empty()
    }

    /// Takes the oldest delta into batch `seq`, cut to `max_bytes`.
    pub fn take_delta(&mut self, seq: u64, max_bytes: u64) -> Option<Taken> {
        let (blocks, content) = self.pending.take_delta(blocks_of(max_bytes))?;
        self.note_taken(seq, blocks.clone());
        Some(Taken::Delta(Extent::of_blocks(blocks, self.size), content))
    }

    /// Takes the next run of bits into batch `seq`, cut to `max_bytes`. D3: the bits are cleared
    /// now, before the disk is read, and no write is in flight there.
    pub fn take_dirty(&mut self, seq: u64, max_bytes: u64) -> Option<Taken> {
        let order = &self.order;
        let mut blocks = self.pending.take_dirty(blocks_of(max_bytes), |blocks| order.busy(blocks))?;
        let leaf = blocks.start / BLOCKS_PER_LEAF;
        let leaf_end = ((leaf + 1) * BLOCKS_PER_LEAF).min(block_count(self.size));
        let offer =
            self.agreement.take_offer(leaf) && blocks.start % BLOCKS_PER_LEAF == 0 && leaf_end <= blocks.end;
        let stop = if offer { leaf_end } else { self.agreement.next_offer(leaf + 1).min(blocks.end) };
        if stop < blocks.end {
            self.pending.mark(stop..blocks.end);
            self.pending.rewind(stop);
            blocks.end = stop;
        }
        if offer {
            self.agreement.start_offer(leaf);
        }
        self.note_taken(seq, blocks.clone());
        if !self.rules.d3 && !offer {
            self.pending.mark(blocks.clone());
        }
        Some(if offer {
            Taken::Offer(leaf..leaf + 1)
        } else {
            Taken::ReadBack(Extent::of_blocks(blocks, self.size))
        })
    }

    /// A read-back of `extent` was done. D3: its bits were cleared before, and a write since then has set them again.
    pub fn note_read(&mut self, extent: &Extent) {
        if !self.rules.d3 {
            self.pending.forget(extent.touched_blocks());
        }
    }

    /// Gives back what was taken into batch `seq` and could not be sent after all: it is a bit
    /// again, unless something newer took its place.
    pub fn put_back(&mut self, seq: u64, extent: &Extent) {
        for part in self.parts_of_batch(seq, &extent.touched_blocks()) {
            self.on_the_way.remove(part.clone());
            self.barriers.put_back(&part);
            self.pending.rewind(part.start);
            self.pending.mark(part);
        }
    }

    /// Continues the round over the bits at this byte.
    pub fn go_on_at(&mut self, offset: u64) {
        self.pending.rewind(offset / BLOCK_BYTES);
    }

    /// The replica holds batch `seq` and everything before it, durably.
    pub fn settle(&mut self, seq: u64) {
        while self.batches.front().is_some_and(|(batch, _)| *batch <= seq) {
            let (batch, ranges) = self.batches.pop_front().expect("just seen");
            for range in ranges {
                self.settle_range(batch, range);
            }
        }
        self.barriers.settle(seq);
    }

    /// The stream is gone: everything on the way is a bit again (D4).
    pub fn lose_stream(&mut self) {
        self.batches.clear();
        for (blocks, _) in self.on_the_way.drain() {
            self.barriers.return_blocks(&blocks);
            if !self.rules.d4 {
                continue;
            }
            self.pending.mark(blocks);
        }
        self.barriers.lose_stream();
        self.agreement.lose_stream();
    }

    /// The replica is not the one that the bits count from: it may lack anything.
    pub fn distrust(&mut self) {
        let all = 0..block_count(self.size);
        self.intent.fill();
        self.pending.mark(all.clone());
        self.barriers.put_back(&all);
        self.agreement.distrust();
    }

    /// A barrier over everything that is finished by now; it is passed when all of it is durable
    /// at the replica. Returns its name.
    pub fn add_barrier(&mut self) -> u64 {
        let last_seq = self.batches.back().map(|(seq, _)| *seq);
        self.barriers.add(self.pending.snapshot(), last_seq)
    }

    /// Forgets a barrier; true if it was passed.
    pub fn end_barrier(&mut self, barrier: u64) -> bool {
        self.barriers.end(barrier)
    }

    /// True if a barrier was passed.
    pub fn barrier_passed(&self, barrier: u64) -> bool {
        self.barriers.passed(barrier)
    }

    /// Makes every mismatched leaf pending again; returns how many there were.
    pub fn repair(&mut self) -> u64 {
        let leaves = self.agreement.take_mismatched();
        let blocks = leaves.iter().map(|run| run.start * BLOCKS_PER_LEAF..run.end * BLOCKS_PER_LEAF);
        let end = block_count(self.size);
        for run in blocks {
            self.intent.set(run.start..run.end.min(end));
            self.pending.mark(run.start..run.end.min(end));
        }
        leaves.iter().map(|run| run.end - run.start).sum()
    }

    /// The next stale leaves, at most `max`, of which nothing is pending or in flight, so that the
    /// replica should hold the same when everything sent so far is applied.
    pub fn take_stale(&mut self, max: u64) -> Option<Range<u64>> {
        let Self { agreement, pending, order, .. } = self;
        agreement.take_stale(max, |leaf| {
            let blocks = leaf * BLOCKS_PER_LEAF..(leaf + 1) * BLOCKS_PER_LEAF;
            !pending.overlaps(&blocks) && !order.in_flight(&blocks)
        })
    }

    /// What the two disks are known to agree on.
    pub fn agreement(&mut self) -> &mut Agreement {
        &mut self.agreement
    }

    /// What is pending.
    pub fn pending(&self) -> &Pending {
        &self.pending
    }

    /// Bytes that are on the way.
    pub fn on_the_way_bytes(&self) -> u64 {
        let blocks = self.on_the_way.overlapping(0..block_count(self.size));
        blocks.map(|(span, _)| Extent::of_blocks(span, self.size).len).sum()
    }

    fn note_start(&mut self, blocks: Range<u64>) {
        if !self.rules.d10 {
            self.agreement.touch(&blocks);
            return;
        }
        self.intent.set(blocks.clone());
        self.agreement.touch(&blocks);
    }

    fn note_taken(&mut self, seq: u64, blocks: Range<u64>) {
        self.barriers.take(seq, &blocks);
        self.on_the_way.insert(blocks.clone(), seq);
        match self.batches.back_mut() {
            Some((batch, ranges)) if *batch == seq => ranges.push(blocks),
            _ => self.batches.push_back((seq, vec![blocks])),
        }
    }

    fn settle_range(&mut self, batch: u64, range: Range<u64>) {
        for part in self.parts_of_batch(batch, &range) {
            self.on_the_way.remove(part.clone());
            let mut busy = self.pending.busy(&part);
            busy.extend(self.order.busy(&part));
            for settled in subtract(part, busy) {
                self.intent.clear(settled);
            }
        }
    }

    /// The parts of `range` whose newest carrier is `batch`.
    fn parts_of_batch(&self, batch: u64, range: &Range<u64>) -> Vec<Range<u64>> {
        let carried = self.on_the_way.overlapping(range.clone()).filter(|(_, seq)| **seq == batch);
        carried.map(|(span, _)| span.start.max(range.start)..span.end.min(range.end)).collect()
    }
}

fn blocks_of(max_bytes: u64) -> u64 {
    (max_bytes / BLOCK_BYTES).max(1)
}
