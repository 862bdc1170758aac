//! Which channel sends next, and how much all of them may send.
//!
//! Control goes first, always: it is small and has a connection of its own. Then comes what the paused guest waits for
//! (`prefer`), then deltas, then memory, then bulk (docs/decisions/deltas-memory-bulk.md). A disk is one stream, and says
//! itself which of the two it sends (`set_bulk`). These share the data connection by weight, so that none starves: each
//! channel has a clock that runs as fast as it sends divided by its weight, and the one whose clock is behind is next. A
//! channel that was idle starts at the others' time, not with a credit of hours.
//!
//! One token bucket holds the byte budget of everything. Bulk waits while it is empty; control never waits but is
//! charged all the same.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::{Class, Label};

/// Weight of the class that the paused guest waits for.
const WEIGHT_PREFERRED: u64 = 64;
/// Weight of a disk's deltas.
const WEIGHT_DELTAS: u64 = 16;
/// Weight of memory.
const WEIGHT_RAM: u64 = 4;
/// Weight of a disk's bulk.
const WEIGHT_BULK: u64 = 1;

/// The order of channels, and the budget.
#[derive(Debug, Default)]
pub struct Schedule {
    preferred: Option<Class>,
    bulk: BTreeSet<Label>,
    /// What each channel has sent, divided by its weight.
    clocks: BTreeMap<u32, u64>,
    /// The clock of the channel that was served last.
    time: u64,
    bucket: Option<Bucket>,
}

impl Schedule {
    /// Lifts a class above the others of its connection.
    pub fn prefer(&mut self, class: Option<Class>) {
        self.preferred = class;
    }

    /// The disks whose stream is bulk now; that of the others is deltas.
    pub fn set_bulk(&mut self, disks: BTreeSet<Label>) {
        self.bulk = disks;
    }

    /// Limits everything together to so many bytes a second.
    pub fn set_limit(&mut self, bytes_per_s: Option<u64>, now: Duration) {
        let kept = self.bucket.take().map(|bucket| bucket.tokens_at(now));
        self.bucket = bytes_per_s.map(|rate| {
            let mut bucket = Bucket::new(rate.max(1), now);
            // A change does not give a second burst, and does not forgive a debt.
            bucket.tokens = kept.unwrap_or(bucket.tokens).min(bucket.tokens);
            bucket
        });
    }

    /// The limit in bytes a second.
    pub fn limit_bytes_per_s(&self) -> Option<u64> {
        self.bucket.as_ref().map(|bucket| bucket.rate as u64)
    }

    /// When bulk may be sent; none: now.
    pub fn wait_until(&self, now: Duration) -> Option<Duration> {
        self.bucket.as_ref().and_then(|bucket| bucket.ready_at(now))
    }

    /// Of the channels that have something to send, the one whose turn it is.
    pub fn next(&self, ready: impl Iterator<Item = (u32, Label)>) -> Option<u32> {
        ready.min_by_key(|(channel, label)| self.key(*channel, *label)).map(|(channel, _)| channel)
    }

    /// A channel has sent `bytes` of data.
    pub fn charge(&mut self, channel: u32, label: Label, bytes: u64) {
        let (_, start) = self.key(channel, label);
        self.time = start;
        // The scale keeps the remainder of small frames.
        self.clocks.insert(channel, start + bytes * WEIGHT_PREFERRED / self.weight(label));
    }

    /// `bytes` went out, of whatever kind.
    pub fn spend(&mut self, bytes: u64, now: Duration) {
        if let Some(bucket) = &mut self.bucket {
            bucket.take(bytes, now);
        }
    }

    /// A channel is gone.
    pub fn forget(&mut self, channel: u32) {
        self.clocks.remove(&channel);
    }

    /// Control before all; then whose clock is behind. An idle channel's clock follows the others'.
    fn key(&self, channel: u32, label: Label) -> (bool, u64) {
        let clock = self.clocks.get(&channel).copied().unwrap_or(0).max(self.time);
        (label.class() != Class::Control, clock)
    }

    fn weight(&self, label: Label) -> u64 {
        match label.class() {
            class if self.preferred == Some(class) => WEIGHT_PREFERRED,
            Class::Ram => WEIGHT_RAM,
            // A guest that stands still waits for the whole of its disks.
            Class::Disk if self.preferred.is_none() && self.bulk.contains(&label) => WEIGHT_BULK,
            Class::Disk | Class::Control => WEIGHT_DELTAS,
        }
    }
}

/// A token bucket that may go into debt by one frame: a frame goes whole or not at all.
#[derive(Debug)]
struct Bucket {
    rate: f64,
    tokens: f64,
    filled_at: Duration,
}

/// The burst in seconds of the rate: what may go at once after a pause.
const BURST_S: f64 = 0.02;

impl Bucket {
    fn new(rate: u64, now: Duration) -> Self {
        let rate = rate as f64;
        Self { rate, tokens: rate * BURST_S, filled_at: now }
    }

    fn tokens_at(&self, now: Duration) -> f64 {
        let fresh = now.saturating_sub(self.filled_at).as_secs_f64() * self.rate;
        (self.tokens + fresh).min(self.rate * BURST_S)
    }

    fn take(&mut self, bytes: u64, now: Duration) {
        self.tokens = self.tokens_at(now) - bytes as f64;
        self.filled_at = self.filled_at.max(now);
    }

    fn ready_at(&self, now: Duration) -> Option<Duration> {
        let tokens = self.tokens_at(now);
        // A debt of a hair would be a wait of no time, and that for ever.
        (tokens < 0.0)
            .then(|| now + Duration::from_secs_f64(-tokens / self.rate).max(Duration::from_micros(50)))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::time::Duration;

    use proptest::prelude::*;

    use super::Schedule;
    use crate::link::{Class, Label};

    const BOTH: [(u32, Label); 2] = [(1, Label::Disk(0)), (3, Label::Ram(0))];

    /// Serves `frames` frames of 1000 bytes; bytes of the first and second channel.
    fn serve(schedule: &mut Schedule, frames: usize) -> [u64; 2] {
        let mut served = [0; 2];
        for _ in 0..frames {
            let id = schedule.next(BOTH.into_iter()).unwrap();
            let at = usize::from(id == 3);
            schedule.charge(id, BOTH[at].1, 1000);
            served[at] += 1000;
        }
        served
    }

    #[test]
    fn deltas_go_before_memory_memory_goes_before_bulk_and_none_starves() {
        let mut schedule = Schedule::default();
        let [deltas, ram] = serve(&mut schedule, 1000);
        assert!((790_000..=810_000).contains(&deltas), "{deltas}");
        assert_eq!(deltas + ram, 1_000_000);
        schedule.set_bulk([Label::Disk(0)].into());
        let [bulk, ram] = serve(&mut schedule, 1000);
        assert!((790_000..=810_000).contains(&ram), "{ram}");
        assert_eq!(bulk + ram, 1_000_000);
        schedule.set_bulk([Label::Disk(7)].into());
        let [deltas, _] = serve(&mut schedule, 1000);
        assert!(deltas >= 790_000, "another disk's bulk is not this one's: {deltas}");
    }

    #[test]
    fn what_a_paused_guest_waits_for_goes_first_and_its_disks_are_not_put_off_as_bulk() {
        let mut schedule = Schedule::default();
        serve(&mut schedule, 1000);
        schedule.prefer(Some(Class::Ram));
        for bulk in [BTreeSet::new(), [Label::Disk(0)].into()] {
            schedule.set_bulk(bulk);
            let [disk, ram] = serve(&mut schedule, 1000);
            assert!((790_000..=810_000).contains(&ram), "{ram}");
            assert_eq!(disk + ram, 1_000_000);
        }
    }

    #[test]
    fn a_channel_that_was_idle_gets_no_credit_for_it() {
        let mut schedule = Schedule::default();
        for _ in 0..10_000 {
            schedule.charge(1, Label::Disk(0), 1000);
        }
        let [disk, _] = serve(&mut schedule, 90);
        assert!(disk >= 70_000, "{disk}");
    }

    proptest! {
        /// Bytes of others that a channel may have to wait for, however frames, preferences and bulk come.
        #[test]
        fn who_has_something_to_send_is_served_before_the_others_have_sent_much(
            turns in proptest::collection::vec((28..=65_564u64, 0..18usize), 1..3000),
        ) {
            const FRAME_MAX: u64 = 65_564;
            let all = [(1, Label::Disk(0)), (3, Label::Disk(1)), (5, Label::Ram(0)), (7, Label::Ram(1))];
            let mut schedule = Schedule::default();
            let mut waited = [0; 4];
            for (bytes, preference) in turns {
                match preference {
                    0 => schedule.prefer(Some(Class::Ram)),
                    1 => schedule.prefer(Some(Class::Disk)),
                    2 => schedule.prefer(None),
                    3 => schedule.set_bulk([all[0].1].into()),
                    4 => schedule.set_bulk([all[0].1, all[1].1].into()),
                    5 => schedule.set_bulk(BTreeSet::new()),
                    _ => {}
                }
                let id = schedule.next(all.into_iter()).unwrap();
                let at = all.iter().position(|(other, _)| *other == id).unwrap();
                schedule.charge(id, all[at].1, bytes);
                waited.iter_mut().for_each(|waited| *waited += bytes);
                waited[at] = 0;
                // The heaviest may weigh 64 times as much; three others, and a frame of each.
                prop_assert!(waited.iter().all(|waited| *waited <= 3 * 65 * FRAME_MAX), "{waited:?}");
            }
        }
    }

    #[test]
    fn control_goes_first() {
        let schedule = Schedule::default();
        assert_eq!(schedule.next([(1, Label::Disk(0)), (5, Label::Control)].into_iter()), Some(5));
        assert_eq!(schedule.next(std::iter::empty()), None);
    }

    /// Bytes that the budget lets through from `from` to `to`, in frames of 4096 bytes.
    fn let_through(schedule: &mut Schedule, from: Duration, to: Duration) -> u64 {
        let (mut now, mut bytes) = (from, 0);
        while now < to {
            match schedule.wait_until(now) {
                Some(later) => now = later,
                None => {
                    schedule.spend(4096, now);
                    bytes += 4096;
                }
            }
        }
        bytes
    }

    #[test]
    fn the_budget_is_kept_and_follows_a_change() {
        let at = Duration::from_secs;
        let mut schedule = Schedule::default();
        schedule.set_limit(Some(1_000_000), at(10));
        let first = let_through(&mut schedule, at(10), at(20));
        assert!((9_900_000..=10_100_000).contains(&first), "{first}");
        schedule.set_limit(Some(100_000), at(20));
        let second = let_through(&mut schedule, at(20), at(30));
        assert!((950_000..=1_050_000).contains(&second), "{second}");
        schedule.set_limit(None, at(30));
        assert_eq!((schedule.wait_until(at(30)), schedule.limit_bytes_per_s()), (None, None));
    }

    #[test]
    fn a_pause_saves_up_no_more_than_a_burst() {
        let mut schedule = Schedule::default();
        schedule.set_limit(Some(1_000_000), Duration::ZERO);
        let start = Duration::from_secs(3600);
        let bytes = let_through(&mut schedule, start, start + Duration::from_millis(100));
        assert!(bytes <= 130_000, "{bytes}");
    }
}
