//! A disk that fails while its guest moves, at either host: what is said of it, and for how long that may go on.
//!
//! ```text
//! failures that blockd counts ── handle_sample(now) ──► begun: said once, and nothing is paused meanwhile
//!                                                 ├─► over: quiet for a while
//!                                                 └── lasts(now) ─► too long: the migration is given up
//! ```
//!
//! blockd tries everything again, for ever, and the guest's own writes wait for nothing of it. So a full disk is time to
//! make room, and one bad read is nothing. Pure: `now` is the time since any fixed instant, the same one for all calls.

use std::time::Duration;

use blockd::control::Replication;

/// A disk that has not failed for so long works again. blockd tries again every second.
const QUIET: Duration = Duration::from_secs(5);

/// What the system says when there is no room, or no more of it for this user.
const NO_ROOM: [&str; 2] = ["(os error 28)", "(os error 122)"];

/// Between two words about the same thing.
const SAID_AGAIN: Duration = Duration::from_secs(60);

/// A disk at whose control socket nobody has listened for so long is gone.
const GONE_AFTER: Duration = Duration::from_secs(3);

/// The death of the source's own blockd is noticed within five seconds (S3-17), some samples a second included.
const _: () = assert!(GONE_AFTER.as_secs() < 5);

/// A disk whose daemon has ended with its supervisor: nobody starts it again, so there is nothing to wait for. While its
/// supervisor lives somebody listens, also in the moment in which the daemon is started again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Absence {
    since: Option<Duration>,
}

impl Absence {
    /// Takes in whether somebody listens there now. True: it is gone for good.
    pub fn handle_sample(&mut self, now: Duration, is_there: bool) -> bool {
        if is_there {
            self.since = None;
            return false;
        }
        now.saturating_sub(*self.since.get_or_insert(now)) >= GONE_AFTER
    }
}

/// Why a guest cannot move whose disk's daemon is gone, and what to do.
pub fn of_a_gone_disk(guest: &str, disk: &str) -> String {
    format!(
        "the blockd of disk {disk:?} has ended, and its supervisor too: `migrated stop {guest} --now`, then `migrated run \
         {guest}`"
    )
}

/// Something that goes wrong at every attempt: it is said at the first, and then once a minute.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Repeated {
    said: Option<Duration>,
}

impl Repeated {
    /// It has gone wrong once more. True: it is time to say so.
    pub fn handle_failure(&mut self, now: Duration) -> bool {
        let is_due = self.said.is_none_or(|said| now.saturating_sub(said) >= SAID_AGAIN);
        if is_due {
            self.said = Some(now);
        }
        is_due
    }
}

/// What has changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// It has begun to fail.
    Begun,
    /// It works again.
    Over,
}

/// Which of the two disks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Side {
    #[default]
    Source,
    Destination,
}

/// What is known of one disk and its copy.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Trouble {
    reads_total: u64,
    replica_total: u64,
    since: Option<Duration>,
    last: Duration,
    side: Side,
    what: String,
}

impl Trouble {
    /// Takes in what blockd says now.
    pub fn handle_sample(&mut self, now: Duration, found: &Replication) -> Option<Change> {
        let (reads, replica) = (found.read_failures_total, found.replica_failures_total);
        // One that shows less has been started anew, and counts from nothing.
        let grown = |now: u64, before: u64| now > if now < before { 0 } else { before };
        let (at_source, at_destination) =
            (grown(reads, self.reads_total), grown(replica, self.replica_total));
        (self.reads_total, self.replica_total) = (reads, replica);
        if at_source || at_destination {
            self.last = now;
            self.side = if at_destination { Side::Destination } else { Side::Source };
            self.what.clone_from(&found.last_failure);
            let is_new = self.since.is_none();
            self.since.get_or_insert(now);
            return is_new.then_some(Change::Begun);
        }
        let is_quiet = self.since.is_some() && now.saturating_sub(self.last) >= QUIET;
        if is_quiet {
            self.since = None;
        }
        is_quiet.then_some(Change::Over)
    }

    /// For how long it has been failing; none: it works.
    pub fn lasts(&self, now: Duration) -> Option<Duration> {
        self.since.map(|since| now.saturating_sub(since))
    }

    /// What fails, in words: `disk` moves from the host `from` to the host `to`.
    pub fn words(&self, disk: &str, from: &str, to: &str) -> String {
        match self.side {
            Side::Source => format!("disk {disk:?} at {from} fails: {}", self.what),
            Side::Destination => format!("the copy of disk {disk:?} at {to} fails: {}", self.what),
        }
    }

    /// What a person can do about it.
    pub fn remedy(&self, from: &str, to: &str) -> String {
        let host = if self.side == Side::Source { from } else { to };
        match NO_ROOM.iter().any(|number| self.what.contains(number)) {
            true => format!("make room in images_dir of {host}"),
            false => format!("look at that disk of {host}"),
        }
    }
}

/// Why a guest stands still that QEMU has paused because a disk of its own failed it, and what to do: it does so wherever it
/// is, and cannot move meanwhile. A flush that failed cannot be repeated (blockd's `has_lost_writes`).
pub fn of_the_guest(guest: &str, what: &str) -> String {
    format!(
        "{what}: see to the disk, then `migrated resume {guest}`; if it stands still again, `migrated stop {guest} --now` \
         and `migrated run {guest}`"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(reads: u64, replica: u64, why: &str) -> Replication {
        Replication {
            read_failures_total: reads,
            replica_failures_total: replica,
            last_failure: why.to_owned(),
            ..Replication::default()
        }
    }

    fn at(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    /// S3-17.
    #[test]
    fn a_disk_at_whose_socket_nobody_listens_is_gone_within_five_seconds_and_one_that_is_back_is_not() {
        let mut absence = Absence::default();
        let samples = || (0..200).map(|look| at(10_000 + look * 100));
        let gone_at = samples().find(|now| absence.handle_sample(*now, false)).expect("it is gone");
        assert!(gone_at - at(10_000) <= at(5_000), "{gone_at:?}");
        let mut absence = Absence::default();
        for now in samples() {
            let second = now.as_millis() / 1000 % 2;
            assert!(!absence.handle_sample(now, second == 0), "it comes back every second");
        }
    }

    #[test]
    fn what_fails_four_times_a_second_is_said_at_once_and_then_once_a_minute() {
        let mut repeated = Repeated::default();
        let said: Vec<u64> = (0..=600)
            .map(|attempt| 7_000 + attempt * 250)
            .filter(|ms| repeated.handle_failure(at(*ms)))
            .collect();
        assert_eq!(said, [7_000, 67_000, 127_000]);
        assert!(!repeated.handle_failure(at(7_000)), "a clock that stands still says nothing");
    }

    #[test]
    fn a_disk_that_fails_again_and_again_fails_since_the_first_time() {
        let mut trouble = Trouble::default();
        assert_eq!(trouble.handle_sample(at(0), &found(0, 0, "")), None);
        assert_eq!(trouble.lasts(at(0)), None);
        assert_eq!(trouble.handle_sample(at(1000), &found(0, 1, "x")), Some(Change::Begun));
        for second in 2..60 {
            assert_eq!(trouble.handle_sample(at(second * 1000), &found(0, second, "x")), None);
        }
        assert_eq!(trouble.lasts(at(61_000)), Some(at(60_000)));
    }

    #[test]
    fn a_disk_that_is_quiet_for_a_while_works_again_and_may_fail_anew() {
        let mut trouble = Trouble::default();
        trouble.handle_sample(at(0), &found(1, 0, "x"));
        assert_eq!(trouble.handle_sample(at(4999), &found(1, 0, "x")), None);
        assert_eq!(trouble.handle_sample(at(5000), &found(1, 0, "x")), Some(Change::Over));
        assert_eq!(trouble.lasts(at(5000)), None);
        assert_eq!(trouble.handle_sample(at(9000), &found(1, 0, "x")), None);
        assert_eq!(trouble.handle_sample(at(9100), &found(2, 0, "x")), Some(Change::Begun));
        assert_eq!(trouble.lasts(at(9200)), Some(at(100)));
    }

    #[test]
    fn a_blockd_that_counts_from_nothing_is_no_failure_and_its_first_one_is() {
        let mut trouble = Trouble::default();
        trouble.handle_sample(at(0), &found(7, 7, "x"));
        trouble.handle_sample(at(5000), &found(7, 7, "x"));
        assert_eq!(trouble.handle_sample(at(6000), &found(0, 0, "")), None);
        assert_eq!(trouble.handle_sample(at(6100), &found(1, 0, "y")), Some(Change::Begun));
    }

    #[test]
    fn a_full_disk_is_told_apart_from_a_broken_one_and_its_host_is_named() {
        let mut trouble = Trouble::default();
        let full = "cannot write 4096 bytes at 0: No space left on device (os error 28)";
        trouble.handle_sample(at(0), &found(0, 1, full));
        assert_eq!(trouble.words("vda", "a", "b"), format!("the copy of disk \"vda\" at b fails: {full}"));
        assert_eq!(trouble.remedy("a", "b"), "make room in images_dir of b");
        let broken = "cannot read 65536 bytes at 0: Input/output error (os error 5)";
        trouble.handle_sample(at(1), &found(1, 1, broken));
        assert_eq!(trouble.words("vda", "a", "b"), format!("disk \"vda\" at a fails: {broken}"));
        assert_eq!(trouble.remedy("a", "b"), "look at that disk of a");
    }
}
