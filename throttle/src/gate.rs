//! Enforces limits: says when the reply to a write may go out.
//!
//! ```text
//! write done ──► free writes left? ── yes ──► reply now
//!                     │ no
//!                     ▼
//!               reply one delay after the previous delayed reply (D14),
//!               but not after the limits expire (D5)
//! ```
//!
//! * D14 Delays serialise: with 64 writes in flight the guest still gets one write a delay.
//! * D5 A release is never promised past the expiry of the limits in force, so that a controller
//!   that dies holds no reply back for longer than the limits were valid.
//! * A promise stands: later limits neither move it nor let a later delayed write overtake it.
//!   Only opening the gate (expiry, limits without delay, [`WriteGate::release_all`]) ends it.
//!
//! Holds no replies and decides nothing: the caller keeps what it was told to hold, in order.

use std::time::Duration;

use crate::Limits;

/// The limits in force on one disk, the time of the last delayed release, and counters.
#[derive(Debug)]
pub struct WriteGate {
    limits: Limits,
    expires_at: Duration,
    free_left: u64,
    last_release: Duration,
    writes_total: u64,
    delayed_writes_total: u64,
    delay_total: Duration,
}

impl Default for WriteGate {
    fn default() -> Self {
        Self {
            limits: Limits::NONE,
            expires_at: Duration::ZERO,
            free_left: u64::MAX,
            last_release: Duration::ZERO,
            writes_total: 0,
            delayed_writes_total: 0,
            delay_total: Duration::ZERO,
        }
    }
}

impl WriteGate {
    /// Replaces the limits in force, from `now` on. Releases already promised stay as they are.
    pub fn set_limits(&mut self, limits: Limits, now: Duration) {
        if self.is_open(now) {
            // Whatever was promised before the gate opened has gone out: it must not lengthen
            // the first delay of the new limits.
            self.last_release = Duration::ZERO;
        }
        self.limits = limits;
        self.expires_at = now.saturating_add(limits.valid_for);
        self.free_left = limits.free_writes;
    }

    /// Counts one completed write and returns when its reply may be sent: `now` if undelayed.
    ///
    /// Releases of delayed writes never decrease, so a caller can hold them in a queue.
    pub fn handle_write(&mut self, now: Duration) -> Duration {
        self.writes_total = self.writes_total.saturating_add(1);
        if self.is_open(now) {
            return now;
        }
        if self.free_left > 0 {
            self.free_left -= 1;
            return now;
        }
        let due = self.last_release.max(now).saturating_add(self.limits.delay);
        // An earlier promise under limits that would have lasted longer stands (order), else the
        // expiry is the latest that a reply may go out.
        self.last_release = due.min(self.expires_at.max(self.last_release));
        self.delayed_writes_total = self.delayed_writes_total.saturating_add(1);
        self.delay_total = self.delay_total.saturating_add(self.last_release.saturating_sub(now));
        self.last_release
    }

    /// True when nothing is delayed: no limits, or expired ones. The caller may then send
    /// everything that it holds back, also before its promised time.
    pub fn is_open(&self, now: Duration) -> bool {
        now >= self.expires_at || self.limits.delay.is_zero()
    }

    /// Opens the gate until new limits come: the caller sends everything that it holds back.
    ///
    /// For stop-and-copy (D14): writes that the store still finishes are not delayed either, or
    /// the guest's pause would wait for them.
    pub fn release_all(&mut self) {
        self.limits = Limits::NONE;
        self.expires_at = Duration::ZERO;
        self.last_release = Duration::ZERO;
    }

    /// What is in force at `now`: the free writes that are left and the time to expiry;
    /// [`Limits::NONE`] when the gate is open.
    pub fn limits(&self, now: Duration) -> Limits {
        if self.is_open(now) {
            return Limits::NONE;
        }
        Limits {
            free_writes: self.free_left,
            delay: self.limits.delay,
            valid_for: self.expires_at.saturating_sub(now),
        }
    }

    /// Writes counted, delayed or not.
    pub fn writes_total(&self) -> u64 {
        self.writes_total
    }

    /// Writes whose reply was delayed.
    pub fn delayed_writes_total(&self) -> u64 {
        self.delayed_writes_total
    }

    /// Sum of the delays, each from the write's completion to its promised release. Replies that
    /// went out earlier because the gate opened are counted as promised.
    pub fn delay_total(&self) -> Duration {
        self.delay_total
    }
}

#[cfg(test)]
mod tests {
    use super::{Limits, WriteGate};
    use proptest::prelude::{Just, Strategy, any, prop_oneof, proptest};
    use std::time::Duration;

    const fn ms(value: u64) -> Duration {
        Duration::from_millis(value)
    }

    fn gate(free_writes: u64, delay: Duration, valid_for: Duration) -> WriteGate {
        let mut gate = WriteGate::default();
        gate.set_limits(Limits { free_writes, delay, valid_for }, Duration::ZERO);
        gate
    }

    #[test]
    fn a_new_gate_delays_nothing() {
        let mut gate = WriteGate::default();
        assert_eq!(gate.handle_write(ms(7)), ms(7));
        assert_eq!(gate.limits(ms(7)), Limits::NONE);
        assert_eq!((gate.writes_total(), gate.delayed_writes_total()), (1, 0));
    }

    #[test]
    fn s4_36_free_writes_pass_and_each_further_write_gets_the_delay() {
        let mut gate = gate(3, ms(2), ms(1000));
        for _ in 0..3 {
            assert_eq!(gate.handle_write(ms(10)), ms(10));
        }
        assert_eq!(gate.handle_write(ms(10)), ms(12));
        assert_eq!(gate.handle_write(ms(100)), ms(102));
        assert_eq!((gate.writes_total(), gate.delayed_writes_total()), (5, 2));
        assert_eq!(gate.delay_total(), ms(4));
    }

    #[test]
    fn d14_a_deep_queue_still_gets_one_write_a_delay() {
        let mut gate = gate(0, ms(2), ms(1000));
        let releases: Vec<_> = (0..64).map(|_| gate.handle_write(ms(0))).collect();
        assert_eq!(releases, (1..=64).map(|n| ms(2 * n)).collect::<Vec<_>>());
    }

    #[test]
    fn d5_limits_expire_by_themselves() {
        let mut gate = gate(0, ms(2), ms(50));
        assert_eq!(gate.handle_write(ms(40)), ms(42));
        assert_eq!(gate.handle_write(ms(50)), ms(50));
        assert_eq!(gate.limits(ms(50)), Limits::NONE);
    }

    #[test]
    fn d5_no_release_is_promised_past_the_expiry() {
        let mut gate = gate(0, ms(20), ms(50));
        let releases: Vec<_> = (0..4).map(|_| gate.handle_write(ms(0))).collect();
        assert_eq!(releases, [ms(20), ms(40), ms(50), ms(50)]);
    }

    #[test]
    fn new_limits_do_not_move_what_was_promised_and_nothing_overtakes_it() {
        let mut gate = gate(0, ms(100), ms(1000));
        assert_eq!(gate.handle_write(ms(0)), ms(100));
        let looser = Limits { free_writes: 0, delay: ms(1), valid_for: ms(50) };
        gate.set_limits(looser, ms(0));
        assert_eq!(gate.handle_write(ms(0)), ms(100), "in order behind the earlier promise");
        let tighter = Limits { free_writes: 0, delay: ms(10), valid_for: ms(1000) };
        gate.set_limits(tighter, ms(5));
        assert_eq!(gate.handle_write(ms(5)), ms(110), "one new delay after the last promise");
    }

    #[test]
    fn an_opened_gate_owes_nothing_to_old_promises() {
        let mut gate = gate(0, ms(500), ms(1000));
        assert_eq!(gate.handle_write(ms(0)), ms(500));
        gate.set_limits(Limits::NONE, ms(1));
        assert!(gate.is_open(ms(1)), "the caller sends what it holds");
        gate.set_limits(Limits { free_writes: 0, delay: ms(3), valid_for: ms(100) }, ms(2));
        assert_eq!(gate.handle_write(ms(2)), ms(5));
    }

    #[test]
    fn d14_release_all_opens_the_gate_until_new_limits_come() {
        let mut gate = gate(0, ms(10), ms(1000));
        assert_eq!(gate.handle_write(ms(0)), ms(10));
        gate.release_all();
        assert!(gate.is_open(ms(1)));
        assert_eq!(gate.handle_write(ms(1)), ms(1), "the pause does not wait for a straggler");
        gate.set_limits(Limits { free_writes: 0, delay: ms(10), valid_for: ms(100) }, ms(2));
        assert_eq!(gate.handle_write(ms(2)), ms(12));
    }

    #[test]
    fn what_is_in_force_can_be_asked() {
        let mut gate = gate(2, ms(10), ms(100));
        gate.handle_write(ms(1));
        let left = Limits { free_writes: 1, delay: ms(10), valid_for: ms(70) };
        assert_eq!(gate.limits(ms(30)), left);
    }

    #[test]
    fn huge_values_do_not_overflow() {
        let mut gate = gate(0, Duration::MAX, Duration::MAX);
        assert_eq!(gate.handle_write(Duration::from_secs(u64::MAX - 1)), Duration::MAX);
        assert_eq!(gate.handle_write(ms(0)), Duration::MAX);
        assert_eq!(gate.delay_total(), Duration::MAX);
        gate.set_limits(Limits { free_writes: 0, delay: ms(1), valid_for: ms(1) }, Duration::MAX);
        assert_eq!(gate.handle_write(Duration::MAX), Duration::MAX);
    }

    #[derive(Clone, Copy, Debug)]
    enum Step {
        Write,
        Limit(Limits),
        ReleaseAll,
    }

    fn steps() -> impl Strategy<Value = Vec<(u64, Step)>> {
        let limits = (0..4u64, 0..30u64, 0..200u64).prop_map(|(free_writes, delay, valid)| {
            Step::Limit(Limits { free_writes, delay: ms(delay), valid_for: ms(valid) })
        });
        let step = prop_oneof![8 => Just(Step::Write), 1 => limits, 1 => Just(Step::ReleaseAll)];
        proptest::collection::vec((0..20u64, step), 1..200)
    }

    proptest! {
        /// A model that keeps every promise in a list and judges each answer by the rules.
        #[test]
        fn every_release_follows_the_rules(steps in steps()) {
            let mut gate = WriteGate::default();
            let (mut now, mut limits, mut set_at) = (ms(0), Limits::NONE, ms(0));
            let (mut passed, mut last, mut delayed) = (0, None, 0);
            for (pause, step) in steps {
                now += ms(pause);
                if gate.is_open(now) {
                    last = None;
                }
                match step {
                    Step::Limit(new) => {
                        gate.set_limits(new, now);
                        (limits, set_at, passed) = (new, now, 0);
                    }
                    Step::ReleaseAll => {
                        gate.release_all();
                        (limits, last) = (Limits::NONE, None);
                    }
                    Step::Write => {
                        let release = gate.handle_write(now);
                        let expires_at = set_at + limits.valid_for;
                        let open = limits.delay.is_zero() || now >= expires_at;
                        if open || passed < limits.free_writes {
                            assert_eq!(release, now, "undelayed");
                            passed += 1;
                            continue;
                        }
                        delayed += 1;
                        let previous = last.unwrap_or(now);
                        assert!(release > now && release >= previous, "delayed, in order");
                        if release != expires_at && release != previous {
                            assert_eq!(release, previous.max(now) + limits.delay, "D14");
                        }
                        if release == previous {
                            assert!(expires_at <= previous, "only the expiry ends serialising");
                        }
                        last = Some(release);
                    }
                }
            }
            assert_eq!(gate.delayed_writes_total(), delayed);
        }

        #[test]
        fn no_input_makes_the_gate_panic_or_answer_in_the_past(
            calls in proptest::collection::vec(any::<(u64, u64, u64, u64, u32)>(), 0..50),
        ) {
            let mut gate = WriteGate::default();
            for (now, free_writes, delay, valid_for, nanos) in calls {
                let nanos = nanos % 1_000_000_000;
                let time = |seconds| Duration::new(seconds, nanos);
                gate.set_limits(
                    Limits { free_writes, delay: time(delay), valid_for: time(valid_for) },
                    time(now),
                );
                assert!(gate.handle_write(time(now)) >= time(now));
            }
        }
    }
}
