//! Values laid over ranges of numbers, never two over the same number.
//!
//! Used with block numbers: which batch carries a block, which delta covers it, which write is in
//! flight over it. Inserting over something cuts the older value back; what was cut is returned.

use std::collections::BTreeMap;
use std::ops::Range;

/// A value that covers a range and can be cut in two.
pub trait Span: Sized {
    /// Keeps the first `at` numbers of the range and returns the value for the rest.
    fn split_off(&mut self, at: u64) -> Self;
}

impl Span for u64 {
    fn split_off(&mut self, _at: u64) -> Self {
        *self
    }
}

impl Span for () {
    fn split_off(&mut self, _at: u64) -> Self {}
}

/// Non-overlapping ranges, each with a value.
#[derive(Clone, Debug)]
pub struct SpanMap<V> {
    spans: BTreeMap<u64, (u64, V)>,
}

impl<V> Default for SpanMap<V> {
    fn default() -> Self {
        Self { spans: BTreeMap::new() }
    }
}

impl<V: Span> SpanMap<V> {
    /// How many ranges there are.
    pub fn len(&self) -> usize {
        self.spans.len()
    }

    /// True if there is no range.
    pub fn is_empty(&self) -> bool {
        self.spans.is_empty()
    }

    /// True if a range shares a number with `range`.
    pub fn overlaps(&self, range: &Range<u64>) -> bool {
        self.overlapping(range.clone()).next().is_some()
    }

    /// The ranges that share a number with `range`, in order, uncut.
    pub fn overlapping(&self, range: Range<u64>) -> impl Iterator<Item = (Range<u64>, &V)> {
        let first = self.spans.range(..=range.start).next_back().map_or(range.start, |(start, _)| *start);
        let bounds = if range.is_empty() { first..first } else { first..range.end };
        self.spans
            .range(bounds)
            .map(|(start, (end, value))| (*start..*end, value))
            .filter(move |(span, _)| span.end > range.start)
    }

    /// The range that starts at exactly `start`.
    pub fn starting_at(&self, start: u64) -> Option<(Range<u64>, &V)> {
        self.spans.get(&start).map(|(end, value)| (start..*end, value))
    }

    /// Cuts `range` free and returns what covered it, in order.
    pub fn remove(&mut self, range: Range<u64>) -> Vec<(Range<u64>, V)> {
        if range.is_empty() {
            return Vec::new();
        }
        self.cut_at(range.start);
        self.cut_at(range.end);
        let starts: Vec<u64> = self.spans.range(range).map(|(start, _)| *start).collect();
        let take = |start| {
            let (end, value) = self.spans.remove(&start).expect("the key was just listed");
            (start..end, value)
        };
        starts.into_iter().map(take).collect()
    }

    /// Lays `value` over `range`; returns what it replaced.
    pub fn insert(&mut self, range: Range<u64>, value: V) -> Vec<(Range<u64>, V)> {
        let replaced = self.remove(range.clone());
        if !range.is_empty() {
            self.spans.insert(range.start, (range.end, value));
        }
        replaced
    }

    /// Takes everything out, in order.
    pub fn drain(&mut self) -> impl Iterator<Item = (Range<u64>, V)> + use<V> {
        std::mem::take(&mut self.spans).into_iter().map(|(start, (end, value))| (start..end, value))
    }

    /// Makes `at` a border if a range covers it.
    fn cut_at(&mut self, at: u64) {
        let Some((start, (end, value))) = self.spans.range_mut(..at).next_back() else { return };
        if *end > at {
            let rest = (*end, value.split_off(at - *start));
            *end = at;
            self.spans.insert(at, rest);
        }
    }
}

/// The parts of `range` that no range of `busy` (in any order) covers.
pub fn subtract(range: Range<u64>, mut busy: Vec<Range<u64>>) -> Vec<Range<u64>> {
    busy.sort_unstable_by_key(|taken| taken.start);
    let mut left = Vec::new();
    let mut from = range.start;
    for taken in busy {
        if taken.start > from {
            left.push(from..taken.start.min(range.end));
        }
        from = from.max(taken.end);
        if from >= range.end {
            return left;
        }
    }
    if from < range.end {
        left.push(from..range.end);
    }
    left
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn the_last_insert_wins_number_by_number(
            steps in prop::collection::vec((0u64..60, 0u64..20, prop::option::of(0u64..1000)), 1..40),
        ) {
            let mut map = SpanMap::default();
            let mut model = [None; 100];
            for (start, len, value) in steps {
                let range = start..start + len;
                let expected: Vec<u64> = range.clone().filter_map(|n| model[n as usize]).collect();
                let replaced = match value {
                    Some(value) => map.insert(range.clone(), value),
                    None => map.remove(range.clone()),
                };
                let flat: Vec<u64> = replaced.iter().flat_map(|(r, v)| r.clone().map(|_| *v)).collect();
                prop_assert_eq!(flat, expected);
                range.clone().for_each(|n| model[n as usize] = value);
                let seen: Vec<_> = map.overlapping(0..100).flat_map(|(r, v)| r.map(|n| (n, *v))).collect();
                let want: Vec<_> = (0..100).filter_map(|n| model[n as usize].map(|v| (n, v))).collect();
                prop_assert_eq!(seen, want);
                prop_assert_eq!(map.overlaps(&range), range.clone().any(|n| model[n as usize].is_some()));
            }
        }

        #[test]
        fn subtraction_leaves_what_is_not_busy(
            start in 0u64..30, len in 0u64..30,
            busy in prop::collection::vec((0u64..60, 0u64..10), 0..8),
        ) {
            let busy: Vec<_> = busy.into_iter().map(|(s, l)| s..s + l).collect();
            let left: Vec<u64> = subtract(start..start + len, busy.clone()).into_iter().flatten().collect();
            let want: Vec<u64> = (start..start + len).filter(|n| !busy.iter().any(|b| b.contains(n))).collect();
            prop_assert_eq!(left, want);
        }
    }
}
