//! When and where a lost lane is dialled again, by which side, and whose connection stays if both sides have dialled.
//!
//! ```text
//! dialler    ── all candidates at once, one after the other ── pause ── all ── longer pause ── …
//! listener   ── right of way ── all candidates ── pause ── …
//! ```
//!
//! The dialler of a link begins at once. The listener waits first: mostly the dialler is back by then, and only where it
//! cannot reach the listener (which has another address) is the listener's own dial needed. If the two cross all the
//! same, the dialler keeps what it dialled and the listener gives its own up ([`takes_own`]), so both end on one.
//!
//! No clock and no dice in here: the caller brings them.

use std::net::SocketAddr;
use std::time::Duration;

use super::session::Side;

/// The first pause between two rounds.
const BACKOFF_MIN: Duration = Duration::from_millis(100);
/// The longest pause between two rounds.
const BACKOFF_MAX: Duration = Duration::from_secs(5);
/// The same for the listener, who mostly dials in vain: the dialler may be gone for good.
const LISTENER_BACKOFF_MAX: Duration = Duration::from_secs(15);
/// How long the listener leaves it to the dialler.
pub const RIGHT_OF_WAY: Duration = Duration::from_secs(3);
/// How long one of several candidates may take in the first round; twice as long in each further one.
const WITHIN_MIN: Duration = Duration::from_secs(2);
/// The first pause before a better way is tried.
const BACK_MIN: Duration = Duration::from_secs(15);
/// The longest of them.
const BACK_MAX: Duration = Duration::from_secs(240);

/// One dial.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Attempt {
    /// Wait so long before.
    pub pause: Duration,
    /// Where to.
    pub to: SocketAddr,
    /// Give up after so long.
    pub within: Duration,
}

/// The attempts to have one lost lane back.
#[derive(Debug)]
pub struct Redial {
    side: Side,
    round: u32,
    tried: usize,
}

impl Redial {
    /// For a lane that was just lost.
    pub fn new(side: Side) -> Self {
        Self { side, round: 0, tried: 0 }
    }

    /// Rounds over all candidates that have ended.
    pub fn round(&self) -> u32 {
        self.round
    }

    /// What comes next. `dice` is random, so that two hosts' dials do not keep step.
    pub fn next(&mut self, candidates: &[SocketAddr], within_max: Duration, dice: u8) -> Attempt {
        let is_first = self.round == 0 && self.tried == 0;
        let mut pause = Duration::ZERO;
        if is_first && self.side == Side::Listener {
            pause = RIGHT_OF_WAY + jittered(RIGHT_OF_WAY, dice) / 3;
        } else if self.tried >= candidates.len() {
            self.tried = 0;
            let doubled = BACKOFF_MIN.saturating_mul(1 << self.round.min(16));
            let longest = if self.side == Side::Listener { LISTENER_BACKOFF_MAX } else { BACKOFF_MAX };
            pause = jittered(doubled.min(longest), dice);
            self.round += 1;
        }
        let within = match candidates.len() {
            1 => within_max,
            _ => WITHIN_MIN.saturating_mul(1 << self.round.min(16)).min(within_max),
        };
        let to = candidates[self.tried];
        self.tried += 1;
        Attempt { pause, to, within }
    }
}

/// A side's own dial was welcomed. Does it take the connection, or has one come meanwhile that stays?
///
/// The other side has taken it already, and mostly closed what it had. But if both dials have crossed, both have: then
/// one of them has to give in, always the same.
pub fn takes_own(side: Side, is_attached: bool) -> bool {
    side == Side::Dialler || !is_attached
}

/// How long to wait before a better way is tried again, for a lane that was lost so many times.
pub fn back_after(falls: u32, dice: u8) -> Duration {
    jittered(BACK_MIN.saturating_mul(1 << falls.saturating_sub(1).min(16)).min(BACK_MAX), dice)
}

/// Between half of it and all of it.
fn jittered(pause: Duration, dice: u8) -> Duration {
    pause / 2 + pause * u32::from(dice) / 512
}

#[cfg(test)]
mod tests {
    use super::*;

    mod both_sides;

    const LONG: Duration = Duration::from_secs(5);

    fn candidates(count: u8) -> Vec<SocketAddr> {
        (1..=count).map(|last| SocketAddr::from(([192, 0, 2, last], 7070))).collect()
    }

    #[test]
    fn all_candidates_are_tried_before_any_pause_and_pauses_grow_to_a_bound() {
        let all = candidates(3);
        let mut redial = Redial::new(Side::Dialler);
        let mut last = Duration::ZERO;
        for round in 0..20 {
            for (place, candidate) in all.iter().enumerate() {
                let attempt = redial.next(&all, LONG, 255);
                assert_eq!(attempt.to, *candidate, "round {round}");
                match (round, place) {
                    (1.., 0) => {
                        assert!(attempt.pause >= last && attempt.pause <= BACKOFF_MAX, "{attempt:?}");
                        last = attempt.pause;
                    }
                    _ => assert_eq!(attempt.pause, Duration::ZERO),
                }
                assert!(attempt.within >= WITHIN_MIN && attempt.within <= LONG, "{attempt:?}");
            }
        }
        assert!(last > BACKOFF_MAX / 2, "{last:?}");
    }

    #[test]
    fn a_second_way_is_tried_within_seconds_and_the_only_one_gets_all_the_time() {
        let all = candidates(2);
        let mut redial = Redial::new(Side::Dialler);
        let first = redial.next(&all, LONG, 0);
        let second = redial.next(&all, LONG, 0);
        assert!(first.pause + first.within + second.pause <= Duration::from_secs(2));
        assert_eq!(Redial::new(Side::Dialler).next(&candidates(1), LONG, 0).within, LONG);
    }

    #[test]
    fn the_listener_leaves_the_dialler_the_right_of_way_each_time() {
        for dice in [0, 128, 255] {
            let attempt = Redial::new(Side::Listener).next(&candidates(1), LONG, dice);
            assert!(attempt.pause >= RIGHT_OF_WAY && attempt.pause <= RIGHT_OF_WAY * 3 / 2, "{attempt:?}");
        }
    }

    #[test]
    fn candidates_may_become_fewer_between_two_attempts() {
        let mut redial = Redial::new(Side::Dialler);
        for _ in 0..3 {
            redial.next(&candidates(3), LONG, 0);
        }
        assert_eq!(redial.next(&candidates(1), LONG, 0).to, candidates(1)[0]);
    }

    #[test]
    fn the_way_back_is_tried_less_and_less_often() {
        assert!(back_after(1, 255) <= BACK_MIN && back_after(1, 0) >= BACK_MIN / 2);
        assert!(back_after(3, 0) > back_after(1, 255));
        assert!(back_after(u32::MAX, 255) <= BACK_MAX);
    }
}
