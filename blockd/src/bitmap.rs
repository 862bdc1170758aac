//! A set of block or leaf numbers that is small when it is plain.
//!
//! The numbers are cut into chunks of 32,768. A chunk that is empty or full takes no memory beyond
//! its tag, so the full bitmap of an untouched 1 TiB disk (268 million blocks) is 128 KiB, and the
//! worst case is one bit a number.
//!
//! Not shared, not persistent: the bits that must outlive the process are the sidecar's.

use std::ops::Range;

const WORDS: usize = 512;
const CHUNK_BITS: u64 = WORDS as u64 * 64;

#[derive(Clone, Debug)]
enum Chunk {
    Empty,
    Full,
    Mixed(Box<[u64; WORDS]>),
}

/// A set of numbers below a fixed length.
#[derive(Clone, Debug)]
pub struct Bitmap {
    len: u64,
    count: u64,
    chunks: Vec<Chunk>,
}

impl Bitmap {
    /// The empty set of numbers below `len`.
    pub fn new(len: u64) -> Self {
        Self { len, count: 0, chunks: vec![Chunk::Empty; len.div_ceil(CHUNK_BITS) as usize] }
    }

    /// The set of all numbers below `len`.
    pub fn full(len: u64) -> Self {
        Self { len, count: len, chunks: vec![Chunk::Full; len.div_ceil(CHUNK_BITS) as usize] }
    }

    /// How many numbers are in the set.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// True if no number is in the set.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// True if `bit` is in the set.
    pub fn contains(&self, bit: u64) -> bool {
        match self.chunks.get((bit / CHUNK_BITS) as usize) {
            None | Some(Chunk::Empty) => false,
            Some(Chunk::Full) => bit < self.len,
            Some(Chunk::Mixed(words)) => words[word_of(bit)] & (1 << (bit % 64)) != 0,
        }
    }

    /// Adds a range (clipped to the length); returns how many numbers were new.
    pub fn insert(&mut self, range: Range<u64>) -> u64 {
        let added = self.change(range, true);
        self.count += added;
        added
    }

    /// Removes a range (clipped to the length); returns how many numbers were there.
    pub fn remove(&mut self, range: Range<u64>) -> u64 {
        let removed = self.change(range, false);
        self.count -= removed;
        removed
    }

    /// The first run of numbers in the set that starts in `within`, at most up to its end.
    pub fn next_run(&self, within: Range<u64>) -> Option<Range<u64>> {
        let end = within.end.min(self.len);
        let start = self.find(within.start, end, true)?;
        let stop = self.find(start, end, false).unwrap_or(end);
        Some(start..stop)
    }

    /// All runs of numbers in the set inside `within`, in order.
    pub fn runs(&self, within: Range<u64>) -> impl Iterator<Item = Range<u64>> + '_ {
        let mut from = within.start;
        std::iter::from_fn(move || {
            let run = self.next_run(from..within.end)?;
            from = run.end;
            Some(run)
        })
    }

    fn change(&mut self, range: Range<u64>, value: bool) -> u64 {
        let end = range.end.min(self.len);
        let mut bit = range.start;
        let mut changed = 0;
        while bit < end {
            let index = bit / CHUNK_BITS;
            let chunk_start = index * CHUNK_BITS;
            let chunk_end = (chunk_start + CHUNK_BITS).min(self.len);
            let stop = end.min(chunk_end);
            let whole = bit == chunk_start && stop == chunk_end;
            changed += self.chunks[index as usize].change(bit..stop, value, whole, chunk_end - chunk_start);
            bit = stop;
        }
        changed
    }

    /// The first number in `from..end` whose membership is `value`.
    fn find(&self, from: u64, end: u64, value: bool) -> Option<u64> {
        let mut bit = from;
        while bit < end {
            let chunk_end = (bit / CHUNK_BITS + 1) * CHUNK_BITS;
            match &self.chunks[(bit / CHUNK_BITS) as usize] {
                Chunk::Empty if !value => return Some(bit),
                Chunk::Full if value => return Some(bit),
                Chunk::Mixed(words) => {
                    if let Some(found) = find_in_words(words, bit, end.min(chunk_end), value) {
                        return Some(found);
                    }
                }
                _ => {}
            }
            bit = chunk_end;
        }
        None
    }
}

impl Chunk {
    /// Sets or clears a range that lies in this chunk; returns how many bits changed.
    fn change(&mut self, range: Range<u64>, value: bool, whole: bool, chunk_bits: u64) -> u64 {
        match (&mut *self, value) {
            (Chunk::Full, true) | (Chunk::Empty, false) => return 0,
            (Chunk::Mixed(words), _) if whole => {
                let ones: u64 = words.iter().map(|word| u64::from(word.count_ones())).sum();
                *self = if value { Chunk::Full } else { Chunk::Empty };
                return if value { chunk_bits - ones } else { ones };
            }
            (Chunk::Empty, true) | (Chunk::Full, false) if whole => {
                *self = if value { Chunk::Full } else { Chunk::Empty };
                return chunk_bits;
            }
            (Chunk::Empty, true) => *self = Chunk::Mixed(Box::new([0; WORDS])),
            (Chunk::Full, false) => *self = Chunk::Mixed(full_words(chunk_bits)),
            (Chunk::Mixed(_), _) => {}
        }
        let Chunk::Mixed(words) = self else { unreachable!("made mixed above") };
        let mut changed = 0;
        for (index, mask) in masks(range) {
            let old = words[index];
            words[index] = if value { old | mask } else { old & !mask };
            changed += u64::from((old ^ words[index]).count_ones());
        }
        if !value && changed > 0 && words.iter().all(|word| *word == 0) {
            *self = Chunk::Empty;
        }
        changed
    }
}

fn word_of(bit: u64) -> usize {
    (bit % CHUNK_BITS / 64) as usize
}

fn full_words(bits: u64) -> Box<[u64; WORDS]> {
    let mut words = Box::new([0; WORDS]);
    for (index, mask) in masks(0..bits) {
        words[index] = mask;
    }
    words
}

/// The words that a range inside one chunk touches, each with the mask of its bits.
fn masks(range: Range<u64>) -> impl Iterator<Item = (usize, u64)> {
    let mut bit = range.start;
    std::iter::from_fn(move || {
        if bit >= range.end {
            return None;
        }
        let stop = range.end.min((bit / 64 + 1) * 64);
        let ones = stop - bit;
        let mask = if ones == 64 { u64::MAX } else { ((1u64 << ones) - 1) << (bit % 64) };
        let item = (word_of(bit), mask);
        bit = stop;
        Some(item)
    })
}

fn find_in_words(words: &[u64; WORDS], from: u64, end: u64, value: bool) -> Option<u64> {
    let mut bit = from;
    while bit < end {
        let word = if value { words[word_of(bit)] } else { !words[word_of(bit)] };
        let rest = word >> (bit % 64);
        if rest != 0 {
            let found = bit + u64::from(rest.trailing_zeros());
            return (found < end).then_some(found);
        }
        bit = (bit / 64 + 1) * 64;
    }
    None
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    const LEN: u64 = 2 * CHUNK_BITS + 77;

    proptest! {
        #[test]
        fn a_bitmap_is_a_set(steps in prop::collection::vec((any::<bool>(), 0..LEN + 10, 0u64..40_000), 1..12), full: bool) {
            let mut bitmap = if full { Bitmap::full(LEN) } else { Bitmap::new(LEN) };
            let mut model: BTreeSet<u64> = if full { (0..LEN).collect() } else { BTreeSet::new() };
            for (insert, start, len) in steps {
                let range = start..start + len;
                let clipped = start.min(LEN)..(start + len).min(LEN);
                let before = model.len();
                if insert {
                    model.extend(clipped);
                    prop_assert_eq!(bitmap.insert(range), (model.len() - before) as u64);
                } else {
                    model.retain(|bit| !clipped.contains(bit));
                    prop_assert_eq!(bitmap.remove(range), (before - model.len()) as u64);
                }
                prop_assert_eq!(bitmap.count(), model.len() as u64);
                let flat: BTreeSet<u64> = bitmap.runs(0..LEN).flatten().collect();
                prop_assert_eq!(&flat, &model);
                let probe = start.min(LEN);
                prop_assert_eq!(bitmap.contains(probe), model.contains(&probe));
            }
        }
    }

    #[test]
    fn a_full_bitmap_of_a_terabyte_takes_little_memory_and_one_run() {
        let bitmap = Bitmap::full(1 << 28);
        assert_eq!(bitmap.next_run(5..u64::MAX), Some(5..1 << 28));
        assert!(bitmap.chunks.len() * size_of::<Chunk>() <= 128 << 10);
    }

    #[test]
    fn runs_cross_chunk_borders() {
        let mut bitmap = Bitmap::new(LEN);
        bitmap.insert(CHUNK_BITS - 3..CHUNK_BITS + 4);
        assert_eq!(bitmap.next_run(0..LEN), Some(CHUNK_BITS - 3..CHUNK_BITS + 4));
        assert_eq!(bitmap.next_run(0..CHUNK_BITS), Some(CHUNK_BITS - 3..CHUNK_BITS));
        assert_eq!(bitmap.next_run(CHUNK_BITS + 4..LEN), None);
    }
}
