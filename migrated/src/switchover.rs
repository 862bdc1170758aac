//! When to pause the guest: how long it would stand still if it were paused now, and whether that is short enough.
//!
//! ```text
//! blackout = round trips of the handover + the longer of { last deltas + stale digests, last memory }
//! ```
//!
//! Disks and memory go over side by side and share the link, so their bytes add up; the digests are hashed meanwhile.
//! QEMU alone decides when it is through with the memory, and a limit on its downtime does not hold it back. What does
//! is not to read what it writes: the gate of the memory's channel is shut while the disks are too far behind.
//!
//! All thresholds are times (M6).

use std::collections::VecDeque;
use std::time::Duration;

/// What both hosts hash in a second, cold cache included: a low guess, for a long blackout is worse than a late one.
const HASHED_BYTES_PER_S: u64 = 400 << 20;

/// A leaf of a disk, the unit in which digests are compared.
const LEAF_BYTES: u64 = 64 << 10;

/// Round trips of a handover: the last memory and the answer that it is there; *take* and *running*.
const ROUND_TRIPS: u32 = 2;

/// What QEMU and the two kernels take besides: pausing, loading the devices, promoting, going on.
const FIXED: Duration = Duration::from_millis(60);

/// What a link is taken for before anything is known of it.
const UNKNOWN_BYTES_PER_S: u64 = 4 << 20;

/// QEMU may send this much faster than what lately went through, so that the cap itself slows nothing.
const CAP_FACTOR: f64 = 1.5;

/// The memory's share of the downtime that is left beside the handover: in the first passes, and more in each later.
const SHARE_FIRST: f64 = 0.2;
const SHARE_STEP: f64 = 0.1;
/// From this pass on that is all there is.
pub const PASSES_TO_FULL_SHARE: u64 = 10;
const SHARE_MIN: Duration = Duration::from_millis(20);

/// Looks that a ratio is taken over, and how many bytes it needs.
const RATIO_LOOKS: usize = 10;
const RATIO_BYTES_MIN: u64 = 64 << 10;

/// What is known at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Sample {
    /// What the destination lacks of all disks, in bytes as they would be sent.
    pub disk_left_bytes: u64,
    /// Leaves to hash at the seal.
    pub stale_leaves: u64,
    /// Memory that QEMU still has to send, in bytes as they would be sent.
    pub ram_left_bytes: u64,
    /// Bytes that channels hold and the link has not taken.
    pub unsent_bytes: u64,
    /// What arrives; 0: not known yet.
    pub goodput_bytes_per_s: u64,
    /// Round trip.
    pub rtt: Duration,
}

/// How long the guest would stand still.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Prediction {
    /// Until the disks are sealed.
    pub disks: Duration,
    /// Until the bytes of disks and memory have been sent.
    pub bytes: Duration,
    /// The handover's round trips, and what it takes besides.
    pub handover: Duration,
}

impl Prediction {
    /// All of it.
    pub fn total(&self) -> Duration {
        self.disks.max(self.bytes) + self.handover
    }
}

/// How long the guest would stand still if it were paused now; none while the link's goodput is not known.
pub fn predict(sample: &Sample) -> Option<Prediction> {
    let goodput = sample.goodput_bytes_per_s;
    if goodput == 0 {
        return None;
    }
    let disk_bytes = time_of(sample.disk_left_bytes + sample.unsent_bytes, goodput);
    let hashing = time_of(sample.stale_leaves * LEAF_BYTES, HASHED_BYTES_PER_S);
    Some(Prediction {
        disks: disk_bytes + hashing,
        bytes: time_of(sample.disk_left_bytes + sample.ram_left_bytes + sample.unsent_bytes, goodput),
        handover: sample.rtt * ROUND_TRIPS + FIXED,
    })
}

/// True when what is left of the disks takes no longer than `limit`: time to start with the memory.
pub fn disks_nearly_done(sample: &Sample, limit: Duration) -> bool {
    sample.disk_left_bytes == 0
        || (sample.goodput_bytes_per_s > 0
            && time_of(sample.disk_left_bytes, sample.goodput_bytes_per_s) <= limit)
}

/// True while QEMU may go on sending memory, and with it come to the point where it pauses the guest.
///
/// Shut when the memory is nearly through (it would take less than half of `max_downtime`) and the disks are not.
pub fn ram_may_flow(sample: &Sample, max_downtime: Duration) -> bool {
    let Some(prediction) = predict(sample) else { return true };
    let budget = (max_downtime / 2).max(Duration::from_millis(50));
    let ram = time_of(sample.ram_left_bytes, sample.goodput_bytes_per_s);
    prediction.disks <= budget || ram > budget
}

/// What QEMU is told, so that it pauses the guest when what is left of the memory fits its share of the downtime.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RamLimits {
    /// QEMU's `max-bandwidth`: bytes a second before compression.
    pub max_bandwidth_bytes_per_s: u64,
    /// QEMU's `downtime-limit` in milliseconds.
    pub downtime_limit_ms: u64,
}

/// The memory's limits now.
///
/// QEMU pauses when what is left is less than what it believes to send in its downtime limit. It measures its rate in
/// tenths of a second and before compression, so a burst into a buffer, or pages that compress well, make it stop far
/// too early. Its rate cannot exceed `max-bandwidth`: so that is kept near what really goes through, and the limit is
/// chosen for the product of the two. The share grows with each pass (S1-04): a guest that dirties little stands still
/// for a short time, one that dirties much for up to `max_downtime`.
pub fn ram_limits(sample: &Sample, ratio: f64, passes: u64, max_downtime: Duration) -> RamLimits {
    let goodput =
        if sample.goodput_bytes_per_s == 0 { UNKNOWN_BYTES_PER_S } else { sample.goodput_bytes_per_s };
    let through = goodput as f64 * ratio.max(1.0);
    let cap = through * CAP_FACTOR;
    let left = max_downtime.saturating_sub(sample.rtt * ROUND_TRIPS + FIXED).max(SHARE_MIN);
    let share =
        left.mul_f64((SHARE_FIRST + SHARE_STEP * passes.saturating_sub(2) as f64).min(1.0)).max(SHARE_MIN);
    let wanted_bytes = through * share.as_secs_f64();
    RamLimits {
        max_bandwidth_bytes_per_s: cap as u64,
        downtime_limit_ms: ((wanted_bytes / cap * 1000.0) as u64).max(1),
    }
}

/// How well the memory compresses now: over the last looks, for the last pages are not like the first.
#[derive(Clone, Debug, Default)]
pub struct Ratio {
    seen: VecDeque<(u64, u64)>,
}

impl Ratio {
    /// Takes in the sums so far.
    pub fn push(&mut self, raw_bytes: u64, sent_bytes: u64) {
        // Smaller than before: another stream, which begins anew.
        if self.seen.back().is_some_and(|(raw, sent)| raw_bytes < *raw || sent_bytes < *sent) {
            self.seen.clear();
        }
        self.seen.push_back((raw_bytes, sent_bytes));
        if self.seen.len() > RATIO_LOOKS {
            self.seen.pop_front();
        }
    }

    /// Raw bytes a sent byte, lately; 1 while nothing is known. Not believed to be more than 16.
    pub fn lately(&self) -> f64 {
        let (Some(first), Some(last)) = (self.seen.front(), self.seen.back()) else { return 1.0 };
        let (raw, sent) = (last.0 - first.0, last.1 - first.1);
        // Nothing moved lately: all that is known is the whole.
        let (raw, sent) = if sent < RATIO_BYTES_MIN { *last } else { (raw, sent) };
        if sent == 0 { 1.0 } else { (raw as f64 / sent as f64).clamp(1.0, 16.0) }
    }
}

fn time_of(bytes: u64, bytes_per_s: u64) -> Duration {
    Duration::from_secs_f64(bytes as f64 / bytes_per_s as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn the_last_pass_that_gets_more_of_the_downtime_is_the_one_that_is_named() {
        let limit = |passes| ram_limits(&wan(0, 0), 1.0, passes, 2000 * MS).downtime_limit_ms;
        assert!(limit(PASSES_TO_FULL_SHARE - 1) < limit(PASSES_TO_FULL_SHARE));
        assert_eq!(limit(PASSES_TO_FULL_SHARE), limit(PASSES_TO_FULL_SHARE + 1));
    }

    fn wan(disk_left_bytes: u64, ram_left_bytes: u64) -> Sample {
        Sample {
            disk_left_bytes,
            ram_left_bytes,
            goodput_bytes_per_s: 2_500_000,
            rtt: 100 * MS,
            ..Sample::default()
        }
    }

    #[test]
    fn bytes_of_disk_and_memory_share_the_link_and_round_trips_come_on_top() {
        let prediction = predict(&wan(250_000, 500_000)).unwrap();
        assert_eq!(prediction.disks, 100 * MS);
        assert_eq!(prediction.bytes, 300 * MS);
        assert_eq!(prediction.total(), 300 * MS + 200 * MS + FIXED);
        assert_eq!(predict(&Sample::default()), None);
    }

    #[test]
    fn what_a_channel_holds_counts_as_blackout() {
        let held = Sample { unsent_bytes: 2_500_000, ..wan(0, 0) };
        assert_eq!(predict(&held).unwrap().bytes, 1000 * MS);
    }

    #[test]
    fn stale_leaves_take_the_time_of_hashing_them() {
        let stale = Sample { stale_leaves: (HASHED_BYTES_PER_S / LEAF_BYTES) / 2, ..wan(0, 0) };
        assert_eq!(predict(&stale).unwrap().disks, 500 * MS);
    }

    #[test]
    fn memory_starts_when_the_disks_fit_the_time_that_was_set() {
        assert!(disks_nearly_done(&wan(5_000_000, 0), 2000 * MS));
        assert!(!disks_nearly_done(&wan(5_000_001, 0), 2000 * MS));
        assert!(disks_nearly_done(&Sample::default(), Duration::ZERO), "nothing is left");
        let unknown = Sample { disk_left_bytes: 1, ..Sample::default() };
        assert!(!disks_nearly_done(&unknown, 2000 * MS), "with an unknown link nothing fits");
    }

    #[test]
    fn the_gate_is_shut_only_when_memory_is_nearly_through_and_the_disks_are_not() {
        let limit = 1000 * MS;
        assert!(ram_may_flow(&wan(0, 0), limit));
        assert!(ram_may_flow(&wan(10_000_000, 10_000_000), limit), "memory has far to go");
        assert!(!ram_may_flow(&wan(10_000_000, 100_000), limit));
        assert!(ram_may_flow(&wan(1_000_000, 100_000), limit), "0.4 s of disk fit");
        assert!(ram_may_flow(&Sample { disk_left_bytes: 1, ..Sample::default() }, limit), "nothing is known");
    }

    #[test]
    fn what_qemu_is_told_comes_to_the_share_and_never_to_more() {
        let bytes = |limits: RamLimits| limits.max_bandwidth_bytes_per_s * limits.downtime_limit_ms / 1000;
        let sample = wan(0, 0);
        let first = ram_limits(&sample, 2.0, 1, 1000 * MS);
        // 20 % of 740 ms at 5 MB/s before compression.
        assert!((700_000..=740_000).contains(&bytes(first)), "{first:?}");
        let later = ram_limits(&sample, 2.0, 5, 1000 * MS);
        assert!(bytes(later) > 2 * bytes(first), "{later:?}");
        let last = ram_limits(&sample, 2.0, 1000, 1000 * MS);
        assert!(bytes(last) <= 3_700_000, "no more than all that the handover leaves: {last:?}");
        let tight = ram_limits(&Sample { rtt: 2000 * MS, ..sample }, 1.0, 1, 1000 * MS);
        assert!(tight.downtime_limit_ms >= 1, "never nothing, or it would never pause");
    }

    #[test]
    fn the_ratio_is_the_one_of_the_last_looks() {
        let mut ratio = Ratio::default();
        assert!((ratio.lately() - 1.0).abs() < 1e-9);
        for look in 1..=20 {
            ratio.push(look * 4_000_000, look * 1_000_000);
        }
        assert!((ratio.lately() - 4.0).abs() < 1e-9);
        for look in 1..=20 {
            ratio.push(80_000_000 + look * 1_000_000, 20_000_000 + look * 1_000_000);
        }
        assert!((ratio.lately() - 1.0).abs() < 1e-9, "the last pages do not compress");
        for _ in 0..20 {
            ratio.push(100_000_000, 40_000_000);
        }
        assert!((ratio.lately() - 2.5).abs() < 1e-9, "nothing moved: the whole");
    }
}
