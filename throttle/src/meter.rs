//! Counts an amount over time: a total, a current rate, and the last two minutes second by second.
//!
//! ```text
//! series:  [ s-120 … s-2 s-1 ] [ s ]      whole seconds, oldest first; the running one apart
//! rate:                [ the last 5 whole seconds + the running one ]
//! ```
//!
//! Memory is fixed (D5). Knows nothing of what it counts: bytes, writes, deltas.

use std::collections::VecDeque;
use std::time::Duration;

/// Whole seconds that the series goes back.
const SERIES_SECONDS: usize = 120;

/// Whole seconds that the rate is taken over: long enough to be steady, short enough to be now.
const RATE_SECONDS: usize = 5;

/// One counted amount.
#[derive(Clone, Debug, Default)]
pub struct Meter {
    total: u64,
    /// When the first amount was recorded: before it there is no rate.
    started: Option<Duration>,
    /// The second of the amounts in `running`.
    second: u64,
    running: u64,
    whole: VecDeque<u64>,
}

impl Meter {
    /// Counts `amount` at `now`. A `now` before the latest one counts as the latest.
    pub fn record(&mut self, amount: u64, now: Duration) {
        if self.started.is_none() {
            self.started = Some(now);
            self.second = now.as_secs();
        }
        self.turn(now);
        self.total = self.total.saturating_add(amount);
        self.running = self.running.saturating_add(amount);
    }

    /// Everything ever recorded.
    pub fn total(&self) -> u64 {
        self.total
    }

    /// The rate over the last five to six seconds, or over the time since the first record if
    /// that is less (but at least over one second, so that a first burst is not taken for a rate).
    pub fn per_second(&mut self, now: Duration) -> f64 {
        let Some(started) = self.started else { return 0.0 };
        self.turn(now);
        let recent: u64 =
            self.whole.iter().rev().take(RATE_SECONDS).fold(self.running, |sum, n| sum.saturating_add(*n));
        let now = now.max(Duration::from_secs(self.second));
        let window_start = Duration::from_secs(self.second.saturating_sub(RATE_SECONDS as u64)).max(started);
        recent as f64 / now.saturating_sub(window_start).as_secs_f64().max(1.0)
    }

    /// The amounts of the last whole seconds before `now`, oldest first, at most 120 of them. The
    /// first one is the second of the first record.
    pub fn series(&mut self, now: Duration) -> impl Iterator<Item = u64> + '_ {
        if self.started.is_some() {
            self.turn(now);
        }
        self.whole.iter().copied()
    }

    /// Closes every second before that of `now`.
    fn turn(&mut self, now: Duration) {
        let behind = now.as_secs().saturating_sub(self.second);
        if behind == 0 {
            return;
        }
        self.push(self.running);
        for _ in 1..behind.min(SERIES_SECONDS as u64 + 1) {
            self.push(0);
        }
        self.running = 0;
        self.second = now.as_secs();
    }

    fn push(&mut self, amount: u64) {
        if self.whole.len() == SERIES_SECONDS {
            self.whole.pop_front();
        }
        self.whole.push_back(amount);
    }
}

#[cfg(test)]
mod tests {
    use super::Meter;
    use proptest::prelude::proptest;
    use std::time::Duration;

    const fn ms(value: u64) -> Duration {
        Duration::from_millis(value)
    }

    #[test]
    fn a_meter_without_records_has_no_rate_and_no_series() {
        let mut meter = Meter::default();
        assert_eq!((meter.total(), meter.per_second(ms(9000))), (0, 0.0));
        assert_eq!(meter.series(ms(9000)).count(), 0);
    }

    #[test]
    fn s4_54_the_series_has_one_amount_a_whole_second() {
        let mut meter = Meter::default();
        for (at, amount) in [(10_200, 1), (10_900, 2), (11_000, 4), (14_500, 8)] {
            meter.record(amount, ms(at));
        }
        assert_eq!(meter.series(ms(14_999)).collect::<Vec<_>>(), [3, 4, 0, 0]);
        assert_eq!(meter.series(ms(15_000)).collect::<Vec<_>>(), [3, 4, 0, 0, 8]);
        assert_eq!(meter.total(), 15);
    }

    #[test]
    fn a_steady_amount_gives_its_rate() {
        let mut meter = Meter::default();
        for tenth in 0..200 {
            meter.record(50, ms(100 * tenth));
        }
        assert_eq!(meter.per_second(ms(20_000)), 500.0);
    }

    #[test]
    fn the_rate_falls_to_zero_when_nothing_comes() {
        let mut meter = Meter::default();
        meter.record(1000, ms(500));
        assert_eq!(meter.per_second(ms(600)), 1000.0, "at least over one second");
        assert_eq!(meter.per_second(ms(4500)), 250.0);
        assert_eq!(meter.per_second(ms(7000)), 0.0);
    }

    #[test]
    fn a_long_silence_costs_no_memory_and_little_time() {
        let mut meter = Meter::default();
        meter.record(1, ms(0));
        meter.record(1, Duration::from_secs(u64::MAX));
        assert_eq!(meter.series(Duration::MAX).collect::<Vec<_>>(), [0; 120]);
    }

    proptest! {
        #[test]
        fn the_series_agrees_with_a_list_of_everything(
            records in proptest::collection::vec((0..3000u64, 0..1000u64), 1..100),
        ) {
            let mut meter = Meter::default();
            let mut all = Vec::new();
            let mut now = 0;
            for (pause, amount) in records {
                now += pause;
                meter.record(amount, ms(now));
                all.push((now / 1000, amount));
            }
            let first = all[0].0.max((now / 1000).saturating_sub(120));
            let expected: Vec<u64> = (first..now / 1000)
                .map(|second| all.iter().filter(|(s, _)| *s == second).map(|(_, n)| n).sum())
                .collect();
            assert_eq!(meter.series(ms(now)).collect::<Vec<_>>(), expected);
        }
    }
}
