//! A set of blocks as bits in 64-bit words, wherever the words live.
//!
//! Bits past the last block are never set, so whole words can be scanned and counted.

use std::ops::Range;

use super::IntentMap;

/// Words needed for one bit a block.
pub const fn word_count(blocks: u64) -> usize {
    blocks.div_ceil(64) as usize
}

/// A view of words as a set of blocks.
#[derive(Debug)]
pub struct WordBits<W> {
    words: W,
    blocks: u64,
}

impl<W: AsRef<[u64]>> WordBits<W> {
    /// The first `blocks` bits of `words`.
    ///
    /// # Panics
    /// If there are fewer words than [`word_count`].
    pub fn new(words: W, blocks: u64) -> Self {
        assert!(words.as_ref().len() >= word_count(blocks), "one bit a block");
        Self { words, blocks }
    }

    /// True if the block is in the set.
    pub fn is_set(&self, block: u64) -> bool {
        block < self.blocks && self.words.as_ref()[(block / 64) as usize] >> (block % 64) & 1 == 1
    }

    /// Blocks in the set.
    pub fn count(&self) -> u64 {
        let words = &self.words.as_ref()[..word_count(self.blocks)];
        words.iter().map(|word| u64::from(word.count_ones())).sum()
    }

    /// The first run of set bits at or after `from`.
    pub fn next_run(&self, from: u64) -> Option<Range<u64>> {
        let start = self.find(from, 0)?;
        Some(start..self.find(start, u64::MAX).unwrap_or(self.blocks))
    }

    /// Every run of set bits at or after `from`, in order.
    pub fn runs(&self, from: u64) -> impl Iterator<Item = Range<u64>> + '_ {
        let mut from = from;
        std::iter::from_fn(move || {
            let run = self.next_run(from)?;
            from = run.end;
            Some(run)
        })
    }

    /// The first block at or after `from` whose bit, each word xored with `flip`, is set.
    fn find(&self, from: u64, flip: u64) -> Option<u64> {
        if from >= self.blocks {
            return None;
        }
        let words = &self.words.as_ref()[..word_count(self.blocks)];
        let mut at = (from / 64) as usize;
        let mut word = (words[at] ^ flip) & (u64::MAX << (from % 64));
        while word == 0 {
            at += 1;
            word = words.get(at)? ^ flip;
        }
        let block = at as u64 * 64 + u64::from(word.trailing_zeros());
        (block < self.blocks).then_some(block)
    }
}

impl<W: AsRef<[u64]> + AsMut<[u64]>> WordBits<W> {
    /// Adds blocks.
    pub fn set(&mut self, blocks: Range<u64>) {
        self.change(blocks, |word, mask| *word |= mask);
    }

    /// Takes blocks out.
    pub fn clear(&mut self, blocks: Range<u64>) {
        self.change(blocks, |word, mask| *word &= !mask);
    }

    /// Adds all blocks.
    pub fn set_all(&mut self) {
        self.set(0..self.blocks);
    }

    /// Takes all blocks out. Words that are zero are not written: their pages stay as they are.
    pub fn clear_all(&mut self) {
        self.words.as_mut().iter_mut().filter(|word| **word != 0).for_each(|word| *word = 0);
    }

    fn change(&mut self, blocks: Range<u64>, apply: impl Fn(&mut u64, u64)) {
        if blocks.is_empty() {
            return;
        }
        assert!(blocks.end <= self.blocks, "blocks {blocks:?} of a disk of {} blocks", self.blocks);
        let words = self.words.as_mut();
        let (first, last) = ((blocks.start / 64) as usize, ((blocks.end - 1) / 64) as usize);
        let head = u64::MAX << (blocks.start % 64);
        let tail = u64::MAX >> (63 - (blocks.end - 1) % 64);
        if first == last {
            return apply(&mut words[first], head & tail);
        }
        apply(&mut words[first], head);
        words[first + 1..last].iter_mut().for_each(|word| apply(word, u64::MAX));
        apply(&mut words[last], tail);
    }
}

impl<W: AsRef<[u64]> + AsMut<[u64]> + Send> IntentMap for WordBits<W> {
    fn set(&mut self, blocks: Range<u64>) {
        WordBits::set(self, blocks);
    }

    fn clear(&mut self, blocks: Range<u64>) {
        WordBits::clear(self, blocks);
    }

    fn next_run(&self, from: u64) -> Option<Range<u64>> {
        WordBits::next_run(self, from)
    }

    fn fill(&mut self) {
        self.set_all();
    }
}

/// The set in plain memory, for tests and simulation.
pub type VecIntentMap = WordBits<Vec<u64>>;

impl VecIntentMap {
    /// An empty set for a disk of `blocks` blocks.
    pub fn empty(blocks: u64) -> Self {
        Self::new(vec![0; word_count(blocks)], blocks)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn it_behaves_like_a_set_of_numbers(
            blocks in 1..400u64,
            steps in prop::collection::vec((any::<bool>(), 0..400u64, 0..200u64), 0..30),
            from in 0..410u64,
        ) {
            let mut map = VecIntentMap::empty(blocks);
            let mut model = BTreeSet::new();
            for (set, start, len) in steps {
                let range = start.min(blocks)..(start + len).min(blocks);
                if set {
                    model.extend(range.clone());
                    map.set(range);
                } else {
                    model.retain(|block| !range.contains(block));
                    map.clear(range);
                }
            }
            prop_assert_eq!(map.count(), model.len() as u64);
            prop_assert!((0..blocks + 70).all(|block| map.is_set(block) == model.contains(&block)));
            let runs: Vec<_> = map.runs(from).collect();
            prop_assert!(runs.windows(2).all(|pair| pair[0].end < pair[1].start));
            let listed: Vec<u64> = runs.into_iter().flatten().collect();
            let expected: Vec<u64> = model.range(from..).copied().collect();
            prop_assert_eq!(listed, expected);
        }
    }

    #[test]
    fn full_means_every_block_and_no_bit_more() {
        for blocks in [1, 63, 64, 65, 128, 1000] {
            let mut map = VecIntentMap::empty(blocks);
            map.set_all();
            assert_eq!((map.count(), map.next_run(0)), (blocks, Some(0..blocks)));
            map.clear_all();
            assert_eq!((map.count(), map.next_run(0)), (0, None));
        }
    }
}
