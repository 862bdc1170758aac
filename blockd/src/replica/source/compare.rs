//! Questions to the replica: does it hold what this disk holds?
//!
//! A leaf is asked about only if nothing was written to it while it was hashed.

use std::ops::Range;
use std::time::Duration;

use super::step::{Hashed, SealState};
use super::{LEAVES_MAX, LEAVES_MIN, Source};
use crate::delta::Content;
use crate::extent::Extent;
use crate::replica::batch::Item;
use crate::tracker::Tracker;

/// After hashing for a time, the sender rests from it for this many times as long, unless sealing.
const DIGEST_REST: u32 = 3;

impl Source {
    /// Answers [`Step::Hash`]: what the first leaves of that range are. The rest is given back.
    pub fn handle_hashed(&mut self, tracker: &mut Tracker, hashed: Hashed, now: Duration) {
        let Some((leaves, offered, since)) = self.hashing.take() else { return };
        if self.seal == SealState::Open {
            self.rest_until = now + DIGEST_REST * now.saturating_sub(since);
        }
        let count = match &hashed {
            Hashed::Digests(digests) => digests.len() as u64,
            Hashed::Zeros(count) => *count,
            Hashed::Failed(_) => 0,
        };
        let known = leaves.start..leaves.end.min(leaves.start + count);
        let all_hole = matches!(hashed, Hashed::Zeros(_)) && known.end == leaves.end;
        self.leaves_at_once = if all_hole { (4 * self.leaves_at_once).min(LEAVES_MAX) } else { LEAVES_MIN };
        tracker.agreement().give_back(known.end..leaves.end);
        match hashed {
            _ if offered => self.take_offer_answer(tracker, leaves.start, hashed, now),
            Hashed::Digests(digests) => {
                for (leaf, digest) in known.zip(digests) {
                    self.ask(tracker, leaf..leaf + 1, |extent| Item::Digest(extent, digest));
                }
            }
            Hashed::Zeros(_) => self.ask_zeros(tracker, known),
            Hashed::Failed(reason) => self.rest_after_failure(reason, now),
        }
    }

    /// An offered leaf was hashed: ask about it, or send it if it changed or could not be hashed.
    fn take_offer_answer(&mut self, tracker: &mut Tracker, leaf: u64, hashed: Hashed, now: Duration) {
        let leaves = leaf..leaf + 1;
        let extent = Extent::of_leaves(leaves.clone(), self.config.size);
        match hashed {
            Hashed::Digests(digests) if tracker.agreement().unchanged(leaf) && !digests.is_empty() => {
                self.push(Item::Digest(extent, digests[0]));
                self.asked.push((leaves, true));
            }
            Hashed::Zeros(1..) => {
                tracker.agreement().give_back(leaves);
                self.push(Item::Change(extent, Content::Hole));
            }
            other => {
                tracker.agreement().give_back(leaves);
                tracker.put_back(self.seq, &extent);
                if let Hashed::Failed(reason) = other {
                    self.rest_after_failure(reason, now);
                }
            }
        }
    }

    /// Asks about leaves that are all zeros, leaving out those that were written meanwhile.
    fn ask_zeros(&mut self, tracker: &mut Tracker, leaves: Range<u64>) {
        let mut from = leaves.start;
        while from < leaves.end {
            let unchanged = tracker.agreement().unchanged(from);
            let end = (from + 1..leaves.end)
                .find(|leaf| tracker.agreement().unchanged(*leaf) != unchanged)
                .unwrap_or(leaves.end);
            self.ask(tracker, from..end, Item::AllZeros);
            from = end;
        }
    }

    /// Asks about leaves if nothing was written to them since they were taken.
    fn ask(&mut self, tracker: &mut Tracker, leaves: Range<u64>, item: impl FnOnce(Extent) -> Item) {
        if !tracker.agreement().unchanged(leaves.start) {
            return tracker.agreement().give_back(leaves);
        }
        self.push(item(Extent::of_leaves(leaves.clone(), self.config.size)));
        self.asked.push((leaves, false));
    }
}
