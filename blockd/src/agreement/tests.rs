//! The drawing of the module as a property test, and the cases that its rules name.

use std::collections::{BTreeSet, VecDeque};

use proptest::prelude::*;

use super::Agreement;
use crate::extent::{BLOCKS_PER_LEAF, LEAF_BYTES};

const LEAVES: u64 = 8;

#[derive(Clone, Debug)]
enum Step {
    Touch(u64, u64),
    /// At most so many leaves, and not those whose bit is set.
    TakeStale(u64, u8),
    TakeOffer(u64),
    /// The oldest question is answered.
    Answer(bool),
    /// The newest question could not be asked after all.
    GiveBack,
    LoseStream,
    Reconnect,
    Forget,
    TakeMismatched,
    BeginCount,
}

fn any_step() -> impl Strategy<Value = Step> {
    let blocks = LEAVES * BLOCKS_PER_LEAF;
    prop_oneof![
        4 => (0..blocks, 1..40u64).prop_map(|(start, len)| Step::Touch(start, len)),
        6 => (1..LEAVES, any::<u8>()).prop_map(|(max, not)| Step::TakeStale(max, not)),
        2 => (0..LEAVES).prop_map(Step::TakeOffer),
        6 => prop::bool::weighted(0.9).prop_map(Step::Answer),
        1 => Just(Step::GiveBack),
        1 => Just(Step::LoseStream),
        1 => Just(Step::Reconnect),
        1 => Just(Step::Forget),
        1 => Just(Step::TakeMismatched),
        1 => Just(Step::BeginCount),
    ]
}

/// A question on the way: the leaf, its content when it was hashed, and whether it is an offer.
#[derive(Clone, Copy, Debug)]
struct Question {
    leaf: u64,
    version: u64,
    offer: bool,
}

/// The drawing, with plain sets; and beside it what each leaf really holds, and what was really
/// said about it.
struct Model {
    agreement: Agreement,
    stale: BTreeSet<u64>,
    checking: BTreeSet<u64>,
    mismatched: BTreeSet<u64>,
    offers: BTreeSet<u64>,
    counted: Option<BTreeSet<u64>>,
    asked: VecDeque<Question>,
    version: [u64; LEAVES as usize],
    answered: [Option<u64>; LEAVES as usize],
}

impl Model {
    fn new() -> Self {
        Self {
            agreement: Agreement::new(LEAVES * LEAF_BYTES - 100),
            stale: (0..LEAVES).collect(),
            checking: BTreeSet::new(),
            mismatched: BTreeSet::new(),
            offers: BTreeSet::new(),
            counted: None,
            asked: VecDeque::new(),
            version: [0; LEAVES as usize],
            answered: [None; LEAVES as usize],
        }
    }

    fn take(&mut self, step: &Step) {
        match *step {
            Step::Touch(start, len) => {
                let blocks = start..(start + len).min(LEAVES * BLOCKS_PER_LEAF);
                self.agreement.touch(&blocks);
                for leaf in blocks.map(|block| block / BLOCKS_PER_LEAF).collect::<BTreeSet<_>>() {
                    self.version[leaf as usize] += 1;
                    self.stale.insert(leaf);
                    self.offers.remove(&leaf);
                    self.counted.iter_mut().for_each(|counted| counted.retain(|other| *other != leaf));
                }
            }
            Step::TakeStale(max, not) => self.take_stale(max, not),
            Step::TakeOffer(leaf) => self.take_offer(leaf),
            Step::Answer(same) => self.answer(same),
            Step::GiveBack => {
                if let Some(Question { leaf, .. }) = self.asked.pop_back() {
                    self.agreement.give_back(leaf..leaf + 1);
                    self.checking.remove(&leaf);
                    self.stale.insert(leaf);
                }
            }
            Step::LoseStream | Step::Reconnect => {
                self.agreement.lose_stream();
                self.asked.clear();
                self.stale.append(&mut self.checking);
                self.offers.clear();
                if matches!(step, Step::Reconnect) {
                    self.agreement.offer_all();
                    self.offers = (0..LEAVES).collect();
                }
            }
            Step::Forget => {
                self.agreement.forget();
                self.stale = (0..LEAVES).collect();
                self.counted.iter_mut().for_each(BTreeSet::clear);
            }
            Step::BeginCount => {
                self.agreement.begin_count();
                self.counted = Some(BTreeSet::new());
            }

            Step::TakeMismatched => {
                let taken: BTreeSet<u64> = self.agreement.take_mismatched().into_iter().flatten().collect();
                assert_eq!(taken, self.mismatched);
                self.stale.append(&mut self.mismatched);
            }
        }
    }

    fn ask(&mut self, leaf: u64, offer: bool) {
        assert!(self.asked.iter().all(|question| question.leaf != leaf), "one question a leaf at a time");
        self.stale.remove(&leaf);
        self.checking.insert(leaf);
        self.asked.push_back(Question { leaf, version: self.version[leaf as usize], offer });
    }

    fn take_stale(&mut self, max: u64, not: u8) {
        let may_check = |leaf: u64| not >> leaf & 1 == 0;
        let mut may_take = self.stale.difference(&self.checking).filter(|leaf| may_check(**leaf));
        match self.agreement.take_stale(max, may_check) {
            None => assert_eq!(may_take.next(), None),
            Some(leaves) => {
                assert!(!leaves.is_empty() && leaves.end - leaves.start <= max);
                let may_take: BTreeSet<u64> = may_take.copied().collect();
                assert!(leaves.clone().all(|leaf| may_take.contains(&leaf)));
                leaves.for_each(|leaf| self.ask(leaf, false));
            }
        }
    }

    fn take_offer(&mut self, leaf: u64) {
        let expected = self.offers.remove(&leaf) && !self.checking.contains(&leaf);
        assert_eq!(self.agreement.take_offer(leaf), expected);
        if expected {
            self.agreement.start_offer(leaf);
            self.ask(leaf, true);
        }
    }

    fn answer(&mut self, same: bool) {
        let Some(Question { leaf, version, offer }) = self.asked.pop_front() else { return };
        self.checking.remove(&leaf);
        self.answered[leaf as usize] = Some(version);
        if offer && !same {
            self.agreement.give_back(leaf..leaf + 1);
            self.stale.insert(leaf);
            return;
        }
        self.agreement.handle_answer(leaf, same);
        if !same {
            self.mismatched.insert(leaf);
        } else if self.version[leaf as usize] == version && !self.stale.contains(&leaf) {
            self.counted.iter_mut().for_each(|counted| counted.extend([leaf]));
        }
    }

    fn check(&self) {
        let Self { agreement, stale, checking, mismatched, offers, counted, .. } = self;
        assert_eq!(agreement.unverified_leaves(), (stale.len() + checking.len()) as u64);
        assert_eq!(agreement.mismatched_leaves(), mismatched.len() as u64);
        assert_eq!(agreement.first_mismatch(), mismatched.first().copied());
        assert_eq!(agreement.counted_leaves(), counted.as_ref().map(|counted| counted.len() as u64));
        for leaf in 0..LEAVES {
            assert_eq!(agreement.unchanged(leaf), !stale.contains(&leaf));
            let next = offers.range(leaf..).next().map_or(u64::MAX, |leaf| leaf * BLOCKS_PER_LEAF);
            assert_eq!(agreement.next_offer(leaf), next);
            if !stale.contains(&leaf) && !checking.contains(&leaf) {
                let (now, said) = (self.version[leaf as usize], self.answered[leaf as usize]);
                assert_eq!(said, Some(now), "D8: what leaf {leaf} holds was never compared");
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]
    #[test]
    fn a_leaf_counts_as_compared_only_if_what_it_holds_now_was(
        steps in prop::collection::vec(any_step(), 1..60)
    ) {
        let mut model = Model::new();
        model.check();
        for step in steps {
            model.take(&step);
            model.check();
        }
    }
}

/// An agreement in which every leaf was compared and is the same.
fn agreed() -> Agreement {
    let mut agreement = Agreement::new(LEAVES * LEAF_BYTES);
    while let Some(leaves) = agreement.take_stale(LEAVES, |_| true) {
        leaves.for_each(|leaf| agreement.handle_answer(leaf, true));
    }
    assert_eq!(agreement.unverified_leaves(), 0);
    agreement
}

#[test]
fn a_leaf_that_changed_while_it_was_compared_is_asked_about_again_after_the_answer() {
    let mut agreement = agreed();
    agreement.touch(&(0..1));
    assert_eq!(agreement.take_stale(LEAVES, |_| true), Some(0..1));
    agreement.touch(&(0..1));
    assert_eq!(agreement.take_stale(LEAVES, |_| true), None);
    agreement.handle_answer(0, true);
    assert_eq!(agreement.take_stale(LEAVES, |_| true), Some(0..1));
    agreement.lose_stream();
    assert_eq!(agreement.unverified_leaves(), 1);
}

#[test]
fn a_mismatch_stays_whatever_comes_until_a_repair_takes_it() {
    let mut agreement = agreed();
    agreement.touch(&(0..1));
    assert_eq!(agreement.take_stale(1, |_| true), Some(0..1));
    agreement.handle_answer(0, false);
    agreement.touch(&(0..1));
    assert_eq!(agreement.take_stale(1, |_| true), Some(0..1));
    agreement.handle_answer(0, true);
    agreement.lose_stream();
    assert_eq!((agreement.mismatched_leaves(), agreement.first_mismatch()), (1, Some(0)));
    assert_eq!(agreement.take_mismatched().into_iter().flatten().collect::<Vec<_>>(), [0]);
    assert_eq!((agreement.mismatched_leaves(), agreement.unverified_leaves()), (0, 1));
}

#[test]
fn a_leaf_that_is_written_all_the_time_does_not_keep_the_others_waiting() {
    let mut agreement = Agreement::new(LEAVES * LEAF_BYTES);
    let mut taken = Vec::new();
    for _ in 0..LEAVES {
        agreement.touch(&(0..1));
        let leaves = agreement.take_stale(1, |_| true).unwrap();
        agreement.handle_answer(leaves.start, true);
        taken.push(leaves.start);
    }
    assert_eq!(taken, (0..LEAVES).collect::<Vec<_>>());
}
