//! Medians, their intervals and percentiles, without any assumption about how runs are distributed.

/// A median with the interval that contains the true one with at least 95 %.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Median {
    /// The middle.
    pub middle: f64,
    /// The lower end of the interval.
    pub low: f64,
    /// The upper end of the interval.
    pub high: f64,
}

/// The median of `values` and its interval by order statistics (binomial with one half).
pub fn median(values: &[f64]) -> Median {
    assert!(!values.is_empty(), "no runs, no median");
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let count = sorted.len();
    let middle = f64::midpoint(sorted[(count - 1) / 2], sorted[count / 2]);
    let rank = low_rank(count);
    Median { middle, low: sorted[rank], high: sorted[count - 1 - rank] }
}

/// The index of the largest order statistic below which the median lies with at most 2.5 %.
fn low_rank(count: usize) -> usize {
    let mut probability = 0.5f64.powi(count.try_into().expect("a few runs"));
    let mut below = 0.0;
    for rank in 0..count / 2 {
        below += probability;
        if below > 0.025 {
            return rank.saturating_sub(1);
        }
        probability *= (count - rank) as f64 / (rank + 1) as f64;
    }
    0
}

/// The ratios of two series of runs, each to its neighbour in time.
pub fn ratios(over: &[f64], under: &[f64]) -> Vec<f64> {
    assert_eq!(over.len(), under.len(), "runs come in pairs");
    over.iter().zip(under).map(|(over, under)| over / under).collect()
}

/// The value that `share` (0 to 1) of `values` do not exceed; sorts them.
pub fn percentile(values: &mut [u64], share: f64) -> u64 {
    values.sort_unstable();
    let rank = (values.len() as f64 * share).ceil() as usize;
    values[rank.clamp(1, values.len()) - 1]
}

#[cfg(test)]
mod tests {
    use super::{median, percentile};

    #[test]
    fn the_interval_of_twenty_runs_lies_between_the_sixth_and_the_fifteenth() {
        let values: Vec<f64> = (1..=20).rev().map(f64::from).collect();
        let found = median(&values);
        assert_eq!((found.low, found.middle, found.high), (6.0, 10.5, 15.0));
    }

    #[test]
    fn few_runs_give_the_widest_interval() {
        let found = median(&[3.0, 1.0, 2.0]);
        assert_eq!((found.low, found.middle, found.high), (1.0, 2.0, 3.0));
    }

    #[test]
    fn a_percentile_is_a_value_that_was_measured() {
        let mut values: Vec<u64> = (1..=200).rev().collect();
        assert_eq!(percentile(&mut values, 0.99), 198);
        assert_eq!(percentile(&mut [7], 0.99), 7);
    }
}
