//! What a daemon that was started anew does about a migration that it finds in its journal (M2, M4).
//!
//! ```text
//! source        begun ─► retry          the guest goes on here, and the migration begins again
//!               releasing ─► ask        the guest stays paused until the destination's journal answers
//!               released ─► finish      the guest runs there: what is left of it here is cleared away
//! destination   reserved ─► clear away  nothing was promised; the copies of the disks stay for the next attempt
//!               taken ─► start          while QEMU still holds the guest
//!                     └► hand back      when QEMU is gone, with the memory: the source has it still (M8)
//!               started ─► keep         it may have run here, so it is here
//! ```
//!
//! The journal alone decides, with one fact of the world: whether QEMU still holds the guest. Nothing is guessed and
//! nothing is timed out here.

use crate::journal::{Record, Step, last_step};

/// What a source does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AtSource {
    /// Nothing is open.
    Nothing,
    /// Nothing was promised: the guest goes on, and the migration begins again.
    Retry,
    /// The destination may have the guest: only its journal knows.
    Ask,
    /// The destination has the guest, and it ran there.
    Finish,
}

/// What a destination does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AtDestination {
    /// Nothing is open.
    Nothing,
    /// Nothing was promised: what was started is ended.
    ClearAway,
    /// The guest is this host's and has not run yet: it is started.
    Start,
    /// The guest was taken and its memory is lost before it ran here: the source has it still, and goes on.
    HandBack,
    /// The guest may have run here: it is this host's, whatever became of its QEMU.
    Keep,
}

/// What the source of a migration does after a restart.
pub fn source(records: &[Record], migration: &str) -> AtSource {
    match last_step(records, migration) {
        Some(Step::Begun) => AtSource::Retry,
        Some(Step::Releasing) => AtSource::Ask,
        Some(Step::Released) => AtSource::Finish,
        // The others are not a source's.
        _ => AtSource::Nothing,
    }
}

/// What the destination of a migration does after a restart. `holds_guest`: its QEMU is there, and has the whole guest.
pub fn destination(records: &[Record], migration: &str, holds_guest: bool) -> AtDestination {
    match last_step(records, migration) {
        Some(Step::Reserved | Step::Refused | Step::HandedBack) => AtDestination::ClearAway,
        Some(Step::Taken) if holds_guest => AtDestination::Start,
        Some(Step::Taken) => AtDestination::HandBack,
        Some(Step::Started) => AtDestination::Keep,
        // The others are not a destination's, or nothing is open.
        _ => AtDestination::Nothing,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::journal::verdict;

    fn records(steps: &[Step]) -> Vec<Record> {
        let record = |step: &Step| Record {
            migration: "m".into(),
            guest: "web".into(),
            generation: 1,
            peer: "b".into(),
            step: *step,
            unix_ms: 0,
        };
        steps.iter().map(record).collect()
    }

    #[test]
    fn a_source_goes_on_alone_only_before_it_has_promised_anything() {
        use Step::{Begun, Done, Released, Releasing, RolledBack};
        for (steps, expected) in [
            (&[][..], AtSource::Nothing),
            (&[Begun], AtSource::Retry),
            (&[Begun, Releasing], AtSource::Ask),
            (&[Begun, Releasing, Released], AtSource::Finish),
            (&[Begun, Releasing, Released, Done], AtSource::Nothing),
            (&[Begun, RolledBack], AtSource::Nothing),
            (&[Begun, Releasing, RolledBack], AtSource::Nothing),
        ] {
            assert_eq!(source(&records(steps), "m"), expected, "{steps:?}");
            assert_eq!(source(&records(steps), "other"), AtSource::Nothing);
        }
    }

    #[test]
    fn a_destination_that_starts_a_guest_has_taken_it_and_one_that_clears_it_away_has_not() {
        use Step::{Done, HandedBack, Refused, Reserved, Started, Taken};
        for steps in [
            &[][..],
            &[Reserved],
            &[Reserved, Refused],
            &[Reserved, Taken],
            &[Reserved, Taken, HandedBack],
            &[Reserved, Taken, Started],
            &[Reserved, Taken, Started, Done],
        ] {
            let records = records(steps);
            for holds_guest in [false, true] {
                let taken = verdict(&records, "m");
                match destination(&records, "m", holds_guest) {
                    AtDestination::Start => assert!(taken == Some(true) && holds_guest),
                    AtDestination::Keep => assert_eq!(taken, Some(true)),
                    AtDestination::HandBack => assert!(!steps.contains(&Started) && !holds_guest),
                    AtDestination::ClearAway => assert_ne!(taken, Some(true), "{steps:?}"),
                    AtDestination::Nothing => assert!(steps.is_empty() || steps.contains(&Done)),
                }
            }
        }
    }
}
