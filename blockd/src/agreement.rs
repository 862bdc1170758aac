//! What source and replica are known to agree on, leaf by leaf (D8).
//!
//! ```text
//!          write starts                     taken, hashed from disk, sent
//! agreed ───────────────► stale ───────────────────────────────────────► checking
//!    ▲                      ▲                                              │
//!    └───── same ───────────┼──────────────────────────────────────────────┤
//!                           └── a write came between: stale already        └─ differs ─► mismatched
//! ```
//!
//! No digest is kept: a leaf is hashed from the source's disk, the digest travels behind the data
//! in the one ordered stream, and the replica compares with a hash of its own disk at that very
//! place. What remains is one bit a leaf. A mismatch is never healed in silence: it means a disk
//! that does not return what was written, so it stays until an operator orders a repair, and a
//! seal fails as long as it stands.
//!
//! A leaf that changed while it is compared stays stale until that answer is there: one question a
//! leaf at a time, or the answer to the first would pass for the answer to the second.
//!
//! A seal is counted for its report: which leaves were compared for it, and have not changed since.
//!
//! The same question, asked before the data is sent, spares data that the replica has already
//! (an *offer*): after a crash, or when a guest comes back to a host that it left.

use std::ops::Range;

use crate::bitmap::Bitmap;
use crate::extent::{BLOCKS_PER_LEAF, leaf_count};

/// One bit a leaf for each of the states that matter.
#[derive(Debug)]
pub struct Agreement {
    leaves: u64,
    stale: Bitmap,
    checking: Bitmap,
    mismatched: Bitmap,
    offers: Bitmap,
    /// Leaves that were compared since the last seal began, and not written since. None: no seal has begun.
    counted: Option<Bitmap>,
    cursor: u64,
}

impl Agreement {
    /// Nothing is known yet about a disk of `size` bytes.
    pub fn new(size: u64) -> Self {
        let leaves = leaf_count(size);
        Self {
            leaves,
            stale: Bitmap::full(leaves),
            checking: Bitmap::new(leaves),
            mismatched: Bitmap::new(leaves),
            offers: Bitmap::new(leaves),
            counted: None,
            cursor: 0,
        }
    }

    /// A write to `blocks` starts: their leaves are stale, and no offer is worth while.
    pub fn touch(&mut self, blocks: &Range<u64>) {
        let leaves = blocks.start / BLOCKS_PER_LEAF..blocks.end.div_ceil(BLOCKS_PER_LEAF);
        self.offers.remove(leaves.clone());
        if let Some(counted) = &mut self.counted {
            counted.remove(leaves.clone());
        }
        self.stale.insert(leaves);
    }

    /// The replica existed before this session: whole dirty leaves are offered before they are sent.
    pub fn offer_all(&mut self) {
        self.offers = Bitmap::full(self.leaves);
    }

    /// True, once, if `leaf` is to be offered; never while it is being compared.
    pub fn take_offer(&mut self, leaf: u64) -> bool {
        self.offers.remove(leaf..leaf + 1) == 1 && !self.checking.contains(leaf)
    }

    /// `leaf` is offered: its answer says as much as that of a check.
    pub fn start_offer(&mut self, leaf: u64) {
        self.stale.remove(leaf..leaf + 1);
        self.checking.insert(leaf..leaf + 1);
    }

    /// The first block of the first leaf from `leaf` on that is to be offered, or no block at all.
    pub fn next_offer(&self, leaf: u64) -> u64 {
        self.offers.next_run(leaf..self.leaves).map_or(u64::MAX, |run| run.start * BLOCKS_PER_LEAF)
    }

    /// Takes the next run of stale leaves that `may_check` allows, at most `max`, round robin. A
    /// leaf whose answer is awaited is left out: if it was an offer, its data may be still to come.
    pub fn take_stale(&mut self, max: u64, may_check: impl Fn(u64) -> bool) -> Option<Range<u64>> {
        let may_check = |leaf| !self.checking.contains(leaf) && may_check(leaf);
        let after = self.find_stale(self.cursor..self.leaves, max, &may_check);
        let found = after.or_else(|| self.find_stale(0..self.cursor, max, &may_check))?;
        self.stale.remove(found.clone());
        self.checking.insert(found.clone());
        self.cursor = found.end % self.leaves;
        Some(found)
    }

    /// True if no write to `leaf` has started since it was taken.
    pub fn unchanged(&self, leaf: u64) -> bool {
        !self.stale.contains(leaf)
    }

    /// A leaf that was taken could not be checked: it is stale again.
    pub fn give_back(&mut self, leaves: Range<u64>) {
        self.checking.remove(leaves.clone());
        self.stale.insert(leaves);
    }

    /// The replica answered for a leaf that was checked.
    pub fn handle_answer(&mut self, leaf: u64, same: bool) {
        self.checking.remove(leaf..leaf + 1);
        if !same {
            self.mismatched.insert(leaf..leaf + 1);
        } else if let Some(counted) = &mut self.counted
            && !self.stale.contains(leaf)
        {
            counted.insert(leaf..leaf + 1);
        }
    }

    /// Every answer that was awaited will not come.
    pub fn lose_stream(&mut self) {
        let waiting: Vec<_> = self.checking.runs(0..self.leaves).collect();
        waiting.into_iter().for_each(|run| self.give_back(run));
        self.offers = Bitmap::new(self.leaves);
    }

    /// Another copy took the replica's place: nothing is known about it.
    pub fn distrust(&mut self) {
        self.forget();
        self.mismatched = Bitmap::new(self.leaves);
    }

    /// Every leaf is to be checked again.
    pub fn forget(&mut self) {
        self.stale = Bitmap::full(self.leaves);
        if self.counted.is_some() {
            self.begin_count();
        }
    }

    /// A seal begins: from here on it is counted which leaves are compared.
    pub fn begin_count(&mut self) {
        self.counted = Some(Bitmap::new(self.leaves));
    }

    /// Leaves that were compared since the count began, found equal, and not written since. None: no count has begun.
    pub fn counted_leaves(&self) -> Option<u64> {
        self.counted.as_ref().map(Bitmap::count)
    }

    /// Leaves that the disk has.
    pub fn leaves(&self) -> u64 {
        self.leaves
    }

    /// Leaves not yet compared since they changed, those being compared included; one that changed
    /// while it is compared counts twice, as it is compared twice.
    pub fn unverified_leaves(&self) -> u64 {
        self.stale.count() + self.checking.count()
    }

    /// Leaves that differ.
    pub fn mismatched_leaves(&self) -> u64 {
        self.mismatched.count()
    }

    /// The first leaf that differs.
    pub fn first_mismatch(&self) -> Option<u64> {
        self.mismatched.next_run(0..self.leaves).map(|run| run.start)
    }

    /// Forgets the mismatches, which become stale leaves, and returns them.
    pub fn take_mismatched(&mut self) -> Vec<Range<u64>> {
        let runs: Vec<_> = self.mismatched.runs(0..self.leaves).collect();
        for run in &runs {
            self.mismatched.remove(run.clone());
            self.stale.insert(run.clone());
        }
        runs
    }

    fn find_stale(
        &self,
        within: Range<u64>,
        max: u64,
        may_check: &impl Fn(u64) -> bool,
    ) -> Option<Range<u64>> {
        for run in self.stale.runs(within) {
            let Some(start) = run.clone().find(|leaf| may_check(*leaf)) else { continue };
            let limit = run.end.min(start.saturating_add(max));
            let end = (start + 1..limit).find(|leaf| !may_check(*leaf)).unwrap_or(limit);
            return Some(start..end);
        }
        None
    }
}

#[cfg(test)]
mod tests;
