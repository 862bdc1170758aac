//! What the stream carries: bytes that the replica has acknowledged over the time that passed, not what the buffers on
//! the way swallow. A first window of many megabytes is gone in a blink on any link.
//!
//! The rate says something about the link only while the sender is made to wait for it; a sender with nothing to say,
//! or busy with its compressor, learns at most that the link carries more.
//!
//! Measures no time itself.

use std::collections::VecDeque;
use std::time::Duration;

/// Acknowledgements are counted over at least this long.
const INTERVAL: Duration = Duration::from_millis(300);
/// The link is the bottleneck if it makes the sender wait for this part of the time.
const WAITING_SHARE: f64 = 0.2;
/// Weight of the newest interval in the running mean.
const WEIGHT: f64 = 0.5;
/// Growth of the estimate over an interval in which nobody waited.
const GROWTH: f64 = 1.25;
/// Of a stream about which nothing is known, in bytes per second.
const FIRST_GUESS: f64 = 12.5e6;
/// Faster than any stream.
const MOST: f64 = 1e11;

/// The rate of one stream.
#[derive(Clone, Debug)]
pub struct Delivery {
    bytes_per_s: f64,
    on_the_way: VecDeque<(u64, u64)>,
    since: Option<Duration>,
    delivered_bytes: u64,
    waited: Duration,
}

impl Default for Delivery {
    fn default() -> Self {
        Self {
            bytes_per_s: FIRST_GUESS,
            on_the_way: VecDeque::new(),
            since: None,
            delivered_bytes: 0,
            waited: Duration::ZERO,
        }
    }
}

impl Delivery {
    /// Batch `seq` was handed to the stream at `now`, as so many bytes.
    pub fn handle_sent(&mut self, seq: u64, bytes: u64, now: Duration) {
        self.since.get_or_insert(now);
        self.on_the_way.push_back((seq, bytes));
    }

    /// The stream or the window made the sender wait.
    pub fn handle_waited(&mut self, waited: Duration) {
        self.waited += waited;
    }

    /// Batch `seq` and all before it are acknowledged.
    pub fn handle_acknowledged(&mut self, seq: u64, now: Duration) {
        while self.on_the_way.front().is_some_and(|(sent, _)| *sent <= seq) {
            let (_, bytes) = self.on_the_way.pop_front().expect("just seen");
            self.delivered_bytes += bytes;
        }
        let Some(since) = self.since else { return };
        let elapsed = now.saturating_sub(since);
        if elapsed < INTERVAL || self.delivered_bytes == 0 {
            return;
        }
        let rate = self.delivered_bytes as f64 / elapsed.as_secs_f64();
        if self.waited.as_secs_f64() >= WAITING_SHARE * elapsed.as_secs_f64() {
            self.bytes_per_s += WEIGHT * (rate - self.bytes_per_s);
        } else {
            self.bytes_per_s = (self.bytes_per_s * GROWTH).max(rate).min(MOST);
        }
        (self.since, self.delivered_bytes, self.waited) = (Some(now), 0, Duration::ZERO);
    }

    /// What the stream is believed to carry.
    pub fn bytes_per_s(&self) -> f64 {
        self.bytes_per_s
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    /// A link of so many bytes a second with buffers before it, and a sender that always has more to say.
    fn run(link_bytes_per_s: f64, window_bytes: u64, seconds: u32) -> f64 {
        const BATCH: u64 = 256 << 10;
        let mut delivery = Delivery::default();
        let (mut sent, mut acknowledged, mut capacity) = (0u64, 0u64, 0.0);
        for ms in 0..seconds * 1000 {
            let now = MS * ms;
            capacity += link_bytes_per_s / 1000.0;
            while acknowledged < sent && capacity >= BATCH as f64 {
                capacity -= BATCH as f64;
                acknowledged += 1;
            }
            if acknowledged == sent {
                capacity = 0.0;
            }
            delivery.handle_acknowledged(acknowledged, now);
            // Encoding takes a millisecond a batch: no sender is faster than 262 MB/s.
            if (sent - acknowledged) * BATCH < window_bytes {
                sent += 1;
                delivery.handle_sent(sent, BATCH, now);
            } else {
                delivery.handle_waited(MS);
            }
        }
        delivery.bytes_per_s()
    }

    #[test]
    fn deep_buffers_do_not_hide_a_thin_link() {
        for link in [2e6, 12e6, 100e6] {
            let found = run(link, 64 << 20, 60);
            assert!((0.9..1.1).contains(&(found / link)), "{link}: {found}");
        }
    }

    #[test]
    fn a_link_that_makes_nobody_wait_may_carry_anything() {
        assert!(run(2e9, 64 << 20, 20) > 1e9);
    }

    #[test]
    fn silence_teaches_nothing() {
        let mut delivery = Delivery::default();
        delivery.handle_acknowledged(0, MS * 5000);
        assert!((delivery.bytes_per_s() - FIRST_GUESS).abs() < 1.0);
        delivery.handle_sent(1, 100, MS * 5000);
        delivery.handle_acknowledged(1, MS * 9000);
        assert!(delivery.bytes_per_s() > FIRST_GUESS);
    }
}
