//! What a link between two places is like: its rate, its length, its loss, and the queue in front of it.

use std::fmt;
use std::time::Duration;

/// Bytes of a full Ethernet frame.
const PACKET_BYTES: u64 = 1514;

/// Smallest queue in packets: that of a cheap switch, where the link is too short for two products to hold anything.
const LIMIT_PACKETS_MIN: u32 = 64;

/// A link of the WAN, the same in both directions.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct WanProfile {
    /// Megabits a second each way; 0 is as fast as the router goes.
    pub rate_mbit: u32,
    /// How long a packet is under way, queueing apart.
    pub one_way_delay: Duration,
    /// Packets lost each way, in per cent.
    pub loss_percent: f64,
    /// The queue in packets, those under way included, as netem counts them.
    pub limit_packets: u32,
}

impl WanProfile {
    /// A link of `rate_mbit` and a round trip without loss; its queue has two bandwidth-delay products.
    pub fn new(rate_mbit: u32, round_trip: Duration) -> Self {
        let product_bytes = u64::from(rate_mbit) * 125 * round_trip.as_millis() as u64;
        let limit = u32::try_from(2 * product_bytes / PACKET_BYTES).expect("a queue is small");
        // Without a rate only what is under way is queued, at up to the router's own speed.
        let least = if rate_mbit == 0 { 10_000 } else { LIMIT_PACKETS_MIN };
        let limit_packets = limit.max(least);
        Self { rate_mbit, one_way_delay: round_trip / 2, loss_percent: 0.0, limit_packets }
    }

    /// The same with so many per cent of the packets lost each way.
    #[must_use]
    pub fn lossy(self, loss_percent: f64) -> Self {
        Self { loss_percent, ..self }
    }

    /// 100 Mbit/s of a switched LAN (S4-60).
    pub fn lan100() -> Self {
        Self::new(100, Duration::ZERO)
    }

    /// 20 Mbit/s, 100 ms there and back, 0.5 % lost each way.
    pub fn wan20() -> Self {
        Self::new(20, Duration::from_millis(100)).lossy(0.5)
    }

    /// 5 Mbit/s and 100 ms there and back: London to the east coast of the US in the paper (S4-61).
    pub fn wan5() -> Self {
        Self::new(5, Duration::from_millis(100))
    }

    /// Ten times the rate, a tenth of the length and of the losses: for what has to be seen, not measured.
    #[must_use]
    pub fn ten_times_better(self) -> Self {
        Self {
            rate_mbit: self.rate_mbit * 10,
            one_way_delay: self.one_way_delay / 10,
            loss_percent: self.loss_percent / 10.0,
            ..self
        }
    }

    /// What netem needs to be told.
    pub(super) fn netem(&self) -> String {
        let Self { rate_mbit, one_way_delay, loss_percent, limit_packets } = self;
        let delay_us = one_way_delay.as_micros();
        format!("limit {limit_packets} delay {delay_us}us loss {loss_percent}% rate {rate_mbit}mbit")
    }
}

impl fmt::Display for WanProfile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { rate_mbit, one_way_delay, loss_percent, limit_packets } = self;
        write!(f, "{rate_mbit} Mbit/s, {} ms each way, ", one_way_delay.as_secs_f64() * 1e3)?;
        write!(f, "{loss_percent} % lost each way, queue of {limit_packets} packets")
    }
}

#[cfg(test)]
mod tests {
    use super::WanProfile;

    #[test]
    fn the_queue_holds_two_bandwidth_delay_products_and_is_told() {
        // 20 Mbit/s times 100 ms are 250,000 bytes.
        assert_eq!(WanProfile::wan20().limit_packets, 2 * 250_000 / 1514);
        let told = "5 Mbit/s, 50 ms each way, 0 % lost each way, queue of 82 packets";
        assert_eq!(WanProfile::wan5().to_string(), told);
        assert_eq!(WanProfile::wan20().netem(), "limit 330 delay 50000us loss 0.5% rate 20mbit",);
    }
}
