//! How many bytes a second arrive at the other side, from its acknowledgements.
//!
//! A link that has nothing to carry says nothing of what it could carry. So an interval counts only if the sender
//! was busy (had bytes to send, or waited for the socket or the byte budget) for most of it; one in which it was
//! mostly idle counts only if it was faster than what was thought. An interval begins with an acknowledgement, for
//! the first one comes a round trip after the first byte.

use std::time::Duration;

/// The shortest interval that is judged.
const INTERVAL_MIN: Duration = Duration::from_millis(50);
/// So many bytes in an interval say something, of however idle a sender.
const TELLING_BYTES: u64 = 64 << 10;
/// How fast the past is forgotten.
const MEMORY: Duration = Duration::from_millis(500);

/// The estimate.
#[derive(Debug, Default)]
pub struct Goodput {
    estimate_bytes_per_s: Option<f64>,
    busy_since: Option<Duration>,
    interval: Option<Interval>,
}

#[derive(Debug)]
struct Interval {
    start: Duration,
    acked_bytes: u64,
    busy: Duration,
}

impl Goodput {
    /// Bytes a second; none: not known yet.
    pub fn bytes_per_s(&self) -> Option<u64> {
        self.estimate_bytes_per_s.map(|estimate| estimate as u64)
    }

    /// The sender has something to send, or has not any more.
    pub fn set_busy(&mut self, busy: bool, now: Duration) {
        match (busy, self.busy_since) {
            (true, None) => self.busy_since = Some(now),
            (false, Some(since)) => {
                self.busy_since = None;
                if let Some(interval) = &mut self.interval {
                    interval.busy += now.saturating_sub(since.max(interval.start));
                }
            }
            _ => {}
        }
    }

    /// The other side has `bytes` more.
    pub fn handle_acked(&mut self, bytes: u64, now: Duration) {
        let Some(interval) = &mut self.interval else {
            self.interval = Some(Interval { start: now, acked_bytes: 0, busy: Duration::ZERO });
            return;
        };
        interval.acked_bytes += bytes;
        let elapsed = now.saturating_sub(interval.start);
        if elapsed < INTERVAL_MIN {
            return;
        }
        let ongoing =
            self.busy_since.map_or(Duration::ZERO, |since| now.saturating_sub(since.max(interval.start)));
        let mostly_busy = (interval.busy + ongoing) * 5 >= elapsed * 4;
        let rate = interval.acked_bytes as f64 / elapsed.as_secs_f64();
        let telling = mostly_busy || (interval.acked_bytes >= TELLING_BYTES && elapsed < MEMORY);
        *interval = Interval { start: now, acked_bytes: 0, busy: Duration::ZERO };
        self.judge(rate, elapsed, mostly_busy, telling);
    }

    /// The connection is gone: what was being measured is void, what is known stays.
    pub fn interrupt(&mut self) {
        self.interval = None;
        self.busy_since = None;
    }

    fn judge(&mut self, rate: f64, elapsed: Duration, mostly_busy: bool, telling: bool) {
        self.estimate_bytes_per_s = match self.estimate_bytes_per_s {
            None => telling.then_some(rate),
            Some(old) if mostly_busy || rate > old => {
                let weight = 1.0 - (-elapsed.as_secs_f64() / MEMORY.as_secs_f64()).exp();
                Some(old + (rate - old) * weight)
            }
            known => known,
        };
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::Goodput;

    const fn ms(count: u64) -> Duration {
        Duration::from_millis(count)
    }

    /// Acknowledges `bytes` each 10 ms from `from` to `to` ms.
    fn acks(goodput: &mut Goodput, bytes: u64, from: u64, to: u64) {
        (from..to).step_by(10).for_each(|at| goodput.handle_acked(bytes, ms(at)));
    }

    #[test]
    fn a_busy_sender_learns_what_arrives_and_forgets_the_past() {
        let mut goodput = Goodput::default();
        assert_eq!(goodput.bytes_per_s(), None);
        goodput.set_busy(true, ms(0));
        acks(&mut goodput, 10_000, 100, 1100);
        assert_eq!(goodput.bytes_per_s(), Some(1_000_000));
        acks(&mut goodput, 50_000, 1100, 4100);
        let faster = goodput.bytes_per_s().unwrap();
        assert!((4_900_000..=5_000_000).contains(&faster), "{faster}");
    }

    #[test]
    fn an_idle_sender_does_not_make_the_link_slow() {
        let mut goodput = Goodput::default();
        goodput.set_busy(true, ms(0));
        acks(&mut goodput, 10_000, 0, 1000);
        goodput.set_busy(false, ms(1000));
        for second in 1..60 {
            goodput.set_busy(true, ms(second * 1000));
            goodput.set_busy(false, ms(second * 1000 + 1));
            goodput.handle_acked(100, ms(second * 1000 + 40));
        }
        assert_eq!(goodput.bytes_per_s(), Some(1_000_000));
    }

    #[test]
    fn an_idle_sender_that_proves_more_is_believed() {
        let mut goodput = Goodput::default();
        goodput.set_busy(true, ms(0));
        acks(&mut goodput, 1_000, 0, 1000);
        let slow = goodput.bytes_per_s().unwrap();
        for at in 100..110 {
            goodput.set_busy(true, ms(at * 10));
            goodput.set_busy(false, ms(at * 10 + 1));
            goodput.handle_acked(10_000, ms(at * 10 + 5));
        }
        assert!(goodput.bytes_per_s().unwrap() > slow);
    }

    #[test]
    fn the_time_of_a_cut_is_not_counted() {
        let mut goodput = Goodput::default();
        goodput.set_busy(true, ms(0));
        acks(&mut goodput, 10_000, 0, 1000);
        goodput.interrupt();
        goodput.set_busy(true, ms(60_000));
        acks(&mut goodput, 10_000, 60_100, 61_000);
        assert_eq!(goodput.bytes_per_s(), Some(1_000_000));
    }
}
