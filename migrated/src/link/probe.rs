//! How fast an address is: what a listener counts while a dialler sends to it for a moment.
//!
//! ```text
//! first byte ──────── period / 2 ──────── period          the rate is that of the later half: by then TCP has
//!     │  not counted       │    counted     │             found out what the way gives
//! ```
//!
//! It ends by itself, after a part of a second and a few megabytes; a dialler that keeps to a limit ends it earlier.

use std::time::Duration;

/// Most bytes of a probe.
pub const PROBE_BYTES_MAX: u64 = 4 << 20;
/// The shortest time that is counted.
const PERIOD_MIN: Duration = Duration::from_millis(300);
/// The longest time that is counted.
const PERIOD_MAX: Duration = Duration::from_secs(1);
/// Round trips that TCP should have to find out.
const ROUND_TRIPS: u32 = 6;

/// What arrived of a probe, and in which time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Probed {
    /// Bytes.
    pub bytes: u64,
    /// Microseconds, at least one.
    pub micros: u64,
}

impl Probed {
    /// Bytes a second.
    pub fn bytes_per_s(&self) -> u64 {
        u64::try_from(u128::from(self.bytes) * 1_000_000 / u128::from(self.micros.max(1))).unwrap_or(u64::MAX)
    }
}

/// A probe under way, at the listener.
#[derive(Debug)]
pub struct Probe {
    period: Duration,
    begun: Option<Duration>,
    /// The last arrival, and what was there then.
    last: (Duration, u64),
    /// The last arrival of the first half.
    half: (Duration, u64),
}

impl Probe {
    /// A probe whose welcome was `waited` ago when its first bytes came: a round trip.
    pub fn new(waited: Duration) -> Self {
        let period = waited.saturating_mul(ROUND_TRIPS).clamp(PERIOD_MIN, PERIOD_MAX);
        Self { period, begun: None, last: Default::default(), half: Default::default() }
    }

    /// Bytes came. False: that was enough.
    pub fn handle_bytes(&mut self, bytes: u64, now: Duration) -> bool {
        let begun = *self.begun.get_or_insert(now);
        self.last = (now, self.last.1 + bytes);
        if now.saturating_sub(begun) <= self.period / 2 {
            self.half = self.last;
        }
        now < self.ends_at(now) && self.last.1 < PROBE_BYTES_MAX
    }

    /// When it is over, whatever comes.
    pub fn ends_at(&self, now: Duration) -> Duration {
        self.begun.unwrap_or(now) + self.period
    }

    /// What it found.
    pub fn result(&self) -> Probed {
        let begun = self.begun.unwrap_or_default();
        // A way that is so fast that it was over in the first half is judged by all of it.
        let from = if self.last.0 > self.half.0 { self.half } else { (begun, 0) };
        let micros = self.last.0.saturating_sub(from.0).as_micros() as u64;
        Probed { bytes: self.last.1 - from.1, micros: micros.max(1) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    /// Runs a probe over a way whose rate is `rate_at(ms)` bytes a millisecond.
    fn run(waited: Duration, rate_at: impl Fn(u32) -> u64) -> (Probed, u32) {
        let mut probe = Probe::new(waited);
        for ms in 0.. {
            if !probe.handle_bytes(rate_at(ms), MS * (1000 + ms)) {
                return (probe.result(), ms);
            }
        }
        unreachable!("a probe ends")
    }

    #[test]
    fn what_tcp_gave_at_its_beginning_is_not_counted() {
        let (probed, ms) = run(100 * MS, |ms| if ms < 250 { 10 } else { 2500 });
        assert_eq!(ms, 600, "six round trips");
        assert!((2_400_000..=2_600_000).contains(&probed.bytes_per_s()), "{probed:?}");
    }

    #[test]
    fn it_ends_after_a_part_of_a_second_or_some_megabytes_whatever_the_way_is_like() {
        assert_eq!(run(Duration::ZERO, |_| 1).1, 300);
        assert_eq!(run(Duration::from_secs(9), |_| 1).1, 1000);
        let (probed, ms) = run(Duration::ZERO, |_| 1 << 20);
        assert!(ms <= 4 && probed.bytes_per_s() > 1 << 29, "{probed:?} after {ms} ms");
    }

    #[test]
    fn one_that_brings_nothing_or_all_at_once_has_a_result_all_the_same() {
        assert_eq!(Probe::new(MS).result(), Probed { bytes: 0, micros: 1 });
        let mut probe = Probe::new(MS);
        assert!(!probe.handle_bytes(u64::from(u32::MAX), MS));
        assert_eq!(probe.result().bytes, u64::from(u32::MAX));
        assert_eq!(Probed { bytes: u64::MAX, micros: 0 }.bytes_per_s(), u64::MAX);
    }
}
