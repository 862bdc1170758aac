//! The times that a guest stood still because of its move. Pure: `now` is the time since the move was asked for.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::phase::Phase;
use crate::quantity::ms;
use crate::report::{Pause, PauseEnd};

/// All of them; at most one has not ended.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Pauses {
    /// Attempts that were given up.
    given_up: u32,
    ended: Vec<Pause>,
    open: Option<Open>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Open {
    phase: Phase,
    begun: Duration,
}

impl Pauses {
    /// The guest stands still from now on. What stood still already has not begun to.
    pub fn begin(&mut self, phase: Phase, now: Duration) {
        self.open.get_or_insert(Open { phase, begun: now });
    }

    /// The move has come to this phase. The way back is not what a pause is told by: how far it came is.
    pub fn enter(&mut self, phase: Phase) {
        if let Some(open) = self.open.as_mut().filter(|_| !phase.is_way_back()) {
            open.phase = phase;
        }
    }

    /// It has ended so.
    pub fn end(&mut self, end: PauseEnd, now: Duration) {
        let ended = self.open.take().map(|open| self.told(open, end, now));
        self.ended.extend(ended);
    }

    /// This attempt is given up; what comes is another.
    pub fn begin_again(&mut self) {
        self.given_up += 1;
    }

    /// Since when the guest has been standing still; none: it is not, as far as the move is concerned.
    pub fn since(&self) -> Option<Duration> {
        self.open.map(|open| open.begun)
    }

    /// Each, in order; one that has not ended as long as it is now.
    pub fn list(&self, now: Duration) -> Vec<Pause> {
        let open = self.open.map(|open| self.told(open, PauseEnd::Lasts, now));
        self.ended.iter().cloned().chain(open).collect()
    }

    fn told(&self, open: Open, end: PauseEnd, now: Duration) -> Pause {
        Pause {
            attempt: self.given_up + 1,
            phase: open.phase,
            begun_ms: ms(open.begun),
            lasted_ms: ms(now.saturating_sub(open.begun)),
            end,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    fn pause(attempt: u32, phase: Phase, (begun_ms, lasted_ms): (u64, u64), end: PauseEnd) -> Pause {
        Pause { attempt, phase, begun_ms, lasted_ms, end }
    }

    #[test]
    fn a_guest_that_was_never_paused_has_no_pause() {
        let mut pauses = Pauses::default();
        pauses.enter(Phase::StopAndCopy);
        pauses.end(PauseEnd::Resumed, at(5));
        pauses.begin_again();
        assert_eq!((pauses.list(at(9)), pauses.since()), (Vec::new(), None));
    }

    #[test]
    fn the_pause_of_an_attempt_that_was_given_up_counts_beside_that_of_the_one_that_moved() {
        let mut pauses = Pauses::default();
        pauses.begin(Phase::PreCopy, at(1_500));
        // QEMU says so, and the operation that waited for it as well.
        pauses.begin(Phase::StopAndCopy, at(1_507));
        pauses.enter(Phase::StopAndCopy);
        pauses.enter(Phase::Recovering);
        assert_eq!(pauses.since(), Some(at(1_500)));
        pauses.end(PauseEnd::Resumed, at(21_500));
        // The guest's state is looked at twice on the way back.
        pauses.end(PauseEnd::Resumed, at(21_600));
        pauses.begin_again();
        pauses.begin(Phase::PreCopy, at(23_800));
        for phase in [Phase::StopAndCopy, Phase::Commitment, Phase::Resume] {
            pauses.enter(phase);
        }
        pauses.end(PauseEnd::Moved, at(23_838));
        pauses.enter(Phase::Readdress);
        let first = pause(1, Phase::StopAndCopy, (1_500, 20_000), PauseEnd::Resumed);
        let second = pause(2, Phase::Resume, (23_800, 38), PauseEnd::Moved);
        assert_eq!(pauses.list(at(99_000)), [first, second]);
    }

    #[test]
    fn a_pause_that_lasts_is_as_long_as_it_is_now() {
        let mut pauses = Pauses::default();
        pauses.begin(Phase::Reservation, at(100));
        pauses.enter(Phase::Bulk);
        assert_eq!(pauses.list(at(350)), [pause(1, Phase::Bulk, (100, 250), PauseEnd::Lasts)]);
        pauses.end(PauseEnd::Ended, at(400));
        assert_eq!(pauses.list(at(900)), [pause(1, Phase::Bulk, (100, 300), PauseEnd::Ended)]);
    }

    #[test]
    fn what_is_kept_is_gone_on_with() {
        let mut pauses = Pauses::default();
        pauses.begin_again();
        pauses.begin(Phase::StopAndCopy, at(7));
        let text = serde_json::to_string(&pauses).unwrap();
        let mut after: Pauses = serde_json::from_str(&text).unwrap();
        after.end(PauseEnd::Resumed, at(2_007));
        assert_eq!(after.list(at(3_000)), [pause(2, Phase::StopAndCopy, (7, 2_000), PauseEnd::Resumed)]);
    }
}
