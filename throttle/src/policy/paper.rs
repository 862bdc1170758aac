//! The throttle of the paper that this product is founded on (Bradford, Kotsovinos, Feldmann,
//! Schiöberg: *Live Wide-Area Migration of Virtual Machines Including Local Persistent State*,
//! VEE 2007).
//!
//! More writes than a threshold: further writes are delayed. Each time that it repeats, threshold
//! and delay double.
//!
//! ```text
//! writes of the episode   1 … T      T+1 … 2T   2T+1 … 4T   4T+1 … 8T
//! delay of each           none       D          2D          4D          …
//! level                   watching   0          1           2           … level_max
//!
//!            more than T in a window            more than T·2^(n+1)
//! watching ─────────────────────────► level 0 ──────────────────────► level 1 ──► …
//!     ▲                                 │  ▲                            │
//!     └──── little asked for ───────────┘  └───── little asked for ─────┘
//! ```
//!
//! What the paper leaves open is decided in `docs/decisions/paper-throttle.md`: writes are
//! counted in windows until one goes over the threshold; then an episode is counted through, as
//! long as it lasts. A level is left when the guest asked, for `relax_after`, for less than half
//! of the writes that the level lets through.
//!
//! Exact between two observations: [`Limits::free_writes`] says how many writes are left to the
//! threshold, and the gate counts them. Only the step from one level to the next waits for an
//! observation. Looks at writes only: not at the link, the backlog or the size of a write (M6
//! names this policy as the exception).

use std::time::Duration;

use super::{Policy, VALID_FOR};
use crate::{Limits, Observation};

/// What can be set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PaperConfig {
    /// T: writes of a window that are not delayed. Zero is taken as one.
    pub threshold_writes: u64,
    /// D: delay of each write at level 0.
    pub delay: Duration,
    /// How long writes are counted before the count starts again, as long as it stays at or
    /// under the threshold.
    pub window: Duration,
    /// How long the guest must ask for little before the level falls by one.
    pub relax_after: Duration,
    /// The last level: its delay is `delay * 2^level_max`, and doubles no more.
    pub level_max: u32,
    /// How long limits hold without another observation.
    pub valid_for: Duration,
}

impl Default for PaperConfig {
    /// The paper's constants. They contain one time, T·D = 33.6 s: the time in which level 0
    /// lets T writes through; so a guest is throttled when it writes more than level 0 allows.
    fn default() -> Self {
        let (threshold_writes, delay) = (16_384, Duration::from_micros(2048));
        let window = delay * 16_384;
        Self { threshold_writes, delay, window, relax_after: window, level_max: 7, valid_for: VALID_FOR }
    }
}

impl PaperConfig {
    /// Writes of an episode from which level `level` holds: T·2^level.
    pub fn threshold_at(&self, level: u32) -> u64 {
        let factor = 1u64.checked_shl(level).unwrap_or(u64::MAX);
        self.threshold_writes.max(1).saturating_mul(factor)
    }

    /// Delay of each write at level `level`: D·2^level.
    pub fn delay_at(&self, level: u32) -> Duration {
        let factor = 1u32.checked_shl(level).unwrap_or(u32::MAX);
        self.delay.saturating_mul(factor)
    }
}

/// The paper's policy for one disk.
#[derive(Clone, Debug, Default)]
pub struct Paper {
    config: PaperConfig,
    /// None while watching.
    level: Option<u32>,
    /// Writes of the window, or of the episode up to now.
    counted_writes: u64,
    /// Start of the window, or of the time over which the guest's demand at this level is judged.
    period_start: Duration,
    /// Writes since `period_start`.
    period_writes: u64,
    /// `writes_total` of the last observation.
    seen_writes: Option<u64>,
}

impl Paper {
    /// The policy with its own settings.
    pub fn new(config: PaperConfig) -> Self {
        Self { config, ..Self::default() }
    }

    /// Writes since the last observation; all of them after the disk was opened anew.
    fn new_writes(&mut self, observation: &Observation) -> u64 {
        let total = observation.writes_total;
        match self.seen_writes.replace(total) {
            None => {
                self.period_start = observation.now;
                0
            }
            Some(seen) => total.checked_sub(seen).unwrap_or(total),
        }
    }

    /// Starts the next window or the next time of judging.
    fn start_period(&mut self, now: Duration) {
        self.period_start = now;
        self.period_writes = 0;
    }

    fn raise(&mut self, now: Duration) {
        let next = |level: Option<u32>| level.map_or(0, |n| n + 1);
        while next(self.level) <= self.config.level_max
            && self.counted_writes > self.config.threshold_at(next(self.level))
        {
            self.level = Some(next(self.level));
            self.start_period(now);
        }
    }

    fn relax(&mut self, level: u32, now: Duration) {
        let elapsed = now.saturating_sub(self.period_start);
        if elapsed < self.config.relax_after {
            return;
        }
        let asked_for = self.config.delay_at(level).as_secs_f64() * self.period_writes as f64;
        if asked_for < elapsed.as_secs_f64() / 2.0 {
            self.level = level.checked_sub(1);
            self.counted_writes = self.level.map_or(0, |lower| self.config.threshold_at(lower));
        }
        self.start_period(now);
    }

    /// While watching: true when more writes came than a window's threshold. A window that was
    /// left open longer, because nobody observed, has as much more room.
    fn is_over(&self, elapsed: Duration) -> bool {
        let windows = elapsed.as_secs_f64() / self.config.window.as_secs_f64();
        self.counted_writes > self.config.threshold_at(0)
            && (windows <= 1.0 || self.counted_writes as f64 > self.config.threshold_at(0) as f64 * windows)
    }
}

impl Policy for Paper {
    fn name(&self) -> &'static str {
        "paper"
    }

    fn observe(&mut self, observation: &Observation) -> Limits {
        let now = observation.now;
        let writes = self.new_writes(observation);
        self.counted_writes = self.counted_writes.saturating_add(writes);
        self.period_writes = self.period_writes.saturating_add(writes);

        let elapsed = now.saturating_sub(self.period_start);
        match self.level {
            None if self.is_over(elapsed) => self.raise(now),
            None if elapsed >= self.config.window => {
                self.start_period(now);
                self.counted_writes = 0;
            }
            None => {}
            Some(level) => {
                self.raise(now);
                if self.level == Some(level) {
                    self.relax(level, now);
                }
            }
        }
        self.limits(now)
    }

    /// One more than the paper's level n, for level 0 delays already.
    fn level(&self) -> u32 {
        self.level.map_or(0, |level| level + 1)
    }
}

impl Paper {
    fn limits(&self, now: Duration) -> Limits {
        let PaperConfig { window, valid_for, .. } = self.config;
        match self.level {
            Some(level) => Limits { free_writes: 0, delay: self.config.delay_at(level), valid_for },
            None => {
                let window_left = window.saturating_sub(now.saturating_sub(self.period_start));
                Limits {
                    free_writes: self.config.threshold_at(0).saturating_sub(self.counted_writes),
                    delay: self.config.delay_at(0),
                    // What comes after the window's end belongs to the next window.
                    valid_for: valid_for.min(window_left),
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Paper, PaperConfig, Policy};
    use crate::{Limits, Observation, WriteGate};
    use proptest::prelude::proptest;
    use std::time::Duration;

    const fn ms(value: u64) -> Duration {
        Duration::from_millis(value)
    }

    fn seen(at_ms: u64, writes_total: u64) -> Observation {
        Observation { now: ms(at_ms), writes_total, ..Default::default() }
    }

    #[test]
    fn s4_38_the_defaults_are_those_of_the_paper() {
        let config = PaperConfig::default();
        assert_eq!(config.threshold_writes, 16_384);
        assert_eq!(config.delay, Duration::from_micros(2048));
        assert_eq!(config.window, Duration::from_micros(16_384 * 2048));
    }

    #[test]
    fn s4_37_threshold_and_delay_double_at_each_level() {
        let mut policy = Paper::default();
        assert_eq!(policy.observe(&seen(0, 0)).free_writes, 16_384);
        for level in 0..=7u32 {
            let threshold = 16_384 << level;
            policy.observe(&seen(1 + u64::from(level), threshold));
            assert_eq!(policy.level, level.checked_sub(1), "at the threshold it is not yet more");
            let limits = policy.observe(&seen(1 + u64::from(level), threshold + 1));
            assert_eq!(policy.level, Some(level));
            let delay = Duration::from_micros(2048 << level);
            assert_eq!(limits, Limits { free_writes: 0, delay, valid_for: limits.valid_for });
        }
        policy.observe(&seen(9, 1 << 40));
        assert_eq!((policy.level, policy.level()), (Some(7), 8), "level_max is the last");
    }

    #[test]
    fn settings_change_threshold_and_delay() {
        let config = PaperConfig { threshold_writes: 10, delay: ms(3), ..PaperConfig::default() };
        let mut policy = Paper::new(config);
        assert_eq!(policy.observe(&seen(0, 500)).free_writes, 10, "earlier writes do not count");
        assert_eq!(policy.observe(&seen(1, 504)).free_writes, 6);
        assert_eq!(policy.observe(&seen(2, 511)).delay, ms(3));
        assert_eq!(policy.observe(&seen(3, 521)).delay, ms(6));
    }

    fn small(window_ms: u64) -> Paper {
        Paper::new(PaperConfig {
            threshold_writes: 100,
            delay: ms(10),
            window: ms(window_ms),
            relax_after: ms(2000),
            level_max: 3,
            valid_for: ms(5000),
        })
    }

    #[test]
    fn a_guest_that_stays_under_the_threshold_in_every_window_is_never_slowed() {
        let mut policy = small(1000);
        for second in 0..60 {
            let limits = policy.observe(&seen(1000 * second, 100 * second));
            assert_eq!((policy.level, limits.free_writes), (None, 100));
        }
    }

    #[test]
    fn limits_of_a_window_end_with_it() {
        let mut policy = small(1000);
        assert_eq!(policy.observe(&seen(0, 0)).valid_for, ms(1000));
        assert_eq!(policy.observe(&seen(700, 90)).valid_for, ms(300));
    }

    #[test]
    fn a_window_that_nobody_closed_has_as_much_more_room() {
        let mut policy = small(1000);
        policy.observe(&seen(0, 0));
        policy.observe(&seen(10_000, 1000));
        assert_eq!(policy.level, None);
        policy.observe(&seen(20_000, 2001));
        assert_eq!(policy.level, Some(3), "ten times the rate that is allowed, unobserved");
    }

    #[test]
    fn a_writer_that_the_throttle_holds_back_is_not_taken_for_a_quiet_one() {
        let mut policy = small(1000);
        policy.observe(&seen(0, 0));
        policy.observe(&seen(100, 101));
        assert_eq!(policy.level, Some(0));
        // 10 ms a write allow 100 a second; a writer that always waits gets 60 of them or more.
        for second in 1..=60u64 {
            policy.observe(&seen(100 + 1000 * second, 101 + 60 * second));
            assert!(policy.level.is_some());
        }
        assert_eq!(policy.level, Some(3));
    }

    #[test]
    fn a_quiet_guest_is_let_go_level_by_level() {
        let mut policy = small(1000);
        policy.observe(&seen(0, 0));
        policy.observe(&seen(100, 401));
        assert_eq!(policy.level, Some(2));
        let levels: Vec<_> = (1..=4)
            .map(|step| {
                policy.observe(&seen(100 + 2000 * step, 401 + step));
                policy.level
            })
            .collect();
        assert_eq!(levels, [Some(1), Some(0), None, None]);
        let fresh = policy.observe(&seen(8100, 405));
        assert_eq!(fresh.free_writes, 100, "a new window starts from nothing");
    }

    #[test]
    fn a_level_that_was_left_is_reached_again_by_the_same_number_of_writes() {
        let mut policy = small(1000);
        policy.observe(&seen(0, 0));
        policy.observe(&seen(100, 201));
        policy.observe(&seen(2100, 201));
        assert_eq!(policy.level, Some(0));
        policy.observe(&seen(2200, 301));
        assert_eq!(policy.level, Some(0));
        policy.observe(&seen(2300, 302));
        assert_eq!(policy.level, Some(1));
    }

    #[test]
    fn a_disk_that_was_opened_anew_is_counted_from_zero() {
        let mut policy = small(1000);
        policy.observe(&seen(0, 1_000_000));
        assert_eq!(policy.observe(&seen(10, 40)).free_writes, 60);
    }

    #[test]
    fn extreme_settings_and_counters_do_not_overflow() {
        let config = PaperConfig {
            threshold_writes: 0,
            delay: Duration::MAX,
            window: Duration::ZERO,
            relax_after: Duration::ZERO,
            level_max: u32::MAX,
            valid_for: Duration::MAX,
        };
        assert_eq!(config.threshold_at(200), u64::MAX);
        let mut policy = Paper::new(config);
        for observation in [seen(0, 0), seen(u64::MAX, u64::MAX), seen(5, 1), seen(5, u64::MAX)] {
            let limits = policy.observe(&observation);
            assert_eq!(limits.delay, Duration::MAX);
        }
    }

    /// A guest that keeps `depth` writes in flight as long as it may; what it gets in each of
    /// `seconds`, and the level after each.
    fn heavy_writer(seconds: usize, depth: usize) -> Vec<(u64, Option<u32>)> {
        let (mut policy, mut gate) = (small(1000), WriteGate::default());
        let mut releases = vec![ms(0); depth];
        let mut result = Vec::new();
        for second in 0..seconds as u64 {
            let end = ms(1000 * (second + 1));
            let before = gate.writes_total();
            gate.set_limits(policy.observe(&seen(1000 * second, before)), ms(1000 * second));
            while let Some(slot) = (0..depth).min_by_key(|i| releases[*i]).filter(|i| releases[*i] < end) {
                let done = releases[slot].max(ms(1000 * second)) + ms(1);
                releases[slot] = gate.handle_write(done);
            }
            result.push((gate.writes_total() - before, policy.level));
        }
        result
    }

    #[test]
    fn s4_18_a_heavy_writer_meets_rising_levels_and_its_rate_falls() {
        for depth in [1, 32] {
            let seconds = heavy_writer(40, depth);
            let (first, last) = (seconds[0], seconds[39]);
            assert_eq!((first.1, last.1), (None, Some(3)));
            assert!(last.0 <= 13, "80 ms a write: {} writes in the last second", last.0);
            assert!(seconds.windows(2).all(|pair| pair[0].1 <= pair[1].1), "{seconds:?}");
        }
    }

    proptest! {
        /// S4-36: exactly the writes above the threshold are delayed, however often somebody looks.
        #[test]
        fn exactly_the_writes_above_the_threshold_are_delayed(
            writes in 0..500u64,
            looks in proptest::collection::btree_set(0..500u64, 0..20),
        ) {
            let mut policy = small(60_000);
            let mut gate = WriteGate::default();
            gate.set_limits(policy.observe(&seen(0, 0)), ms(0));
            for write in 0..writes {
                let now = ms(10 * write);
                if looks.contains(&write) {
                    gate.set_limits(policy.observe(&seen(10 * write, write)), now);
                }
                let release = gate.handle_write(now);
                assert_eq!(release > now, write >= 100, "write {write} counted from zero");
            }
        }
    }
}
