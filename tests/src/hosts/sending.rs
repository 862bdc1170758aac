//! A `migrated send` in the foreground, beside the test: what it has said so far, and how it ended.
//!
//! ```ignore
//! let sending = hosts.send(End::SiteA, &["--wan", "web", "site-b"]);
//! sending.wait_for(Phase::PreCopy);
//! let report = sending.end().moved();
//! ```

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use migrated::api::Failure;
use migrated::phase::{Outcome, Phase};
use migrated::report::Report;
use migrated::status::Status;
use serde::Deserialize;

use super::Hosts;
use crate::site::Inmate;
use crate::wait::{PATIENCE, wait_for};
use crate::wan::End;

/// How long a move may take; some have a slow link on purpose.
pub(super) const MOVE_LIMIT: Duration = Duration::from_secs(180);

/// A move that was asked for.
#[derive(Debug)]
pub struct Sending(Inmate);

/// How a command that moves a guest ended.
#[derive(Debug)]
pub struct Ended {
    /// Its exit code.
    pub code: i32,
    /// What was shown of the migration, in order.
    pub seen: Vec<Status>,
    /// Why it did not even begin.
    pub refusal: Option<Failure>,
}

#[derive(Deserialize)]
struct Refused {
    error: Failure,
}

impl Hosts {
    /// Ask for a move at a host, and stay with it: `migrated --json send WORDS`.
    pub fn send(&self, at: End, words: &[&str]) -> Sending {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let log = format!("send-{}.log", COUNT.fetch_add(1, Ordering::Relaxed));
        let words = [&["--socket", "/run/migrated/api.sock", "--json", "send"], words].concat();
        Sending(self.site(at).start(self.program(at), words, log))
    }

    /// Ask for a move at a host that goes on by itself; its number.
    #[track_caller]
    pub fn send_detached(&self, at: End, words: &[&str]) -> String {
        let answer = self.ask(at, &[&["send", "--detach"], words].concat());
        answer["migration"].as_str().expect("a move has a number").to_owned()
    }
}

impl Sending {
    /// What it has shown so far.
    pub fn seen(&self) -> Vec<Status> {
        parse(&self.0.log())
    }

    /// What it has shown last.
    #[track_caller]
    pub fn last(&self) -> Status {
        self.seen().pop().expect("it has shown something")
    }

    /// Wait until the migration is in a phase that lasts.
    #[track_caller]
    pub fn wait_for(&self, phase: Phase) -> Status {
        self.wait_until(phase.name(), |status| status.phase == phase)
    }

    /// Wait until what is shown of the migration is as wanted.
    #[track_caller]
    pub fn wait_until(&self, what: &str, holds: impl Fn(&Status) -> bool) -> Status {
        wait_for(PATIENCE, what, || {
            let last = self.seen().pop()?;
            assert!(last.outcome.is_none() || holds(&last), "no {what}: it ended, {:?}", last.reasons);
            holds(&last).then_some(last)
        })
    }

    /// Wait for its end.
    #[track_caller]
    pub fn end(mut self) -> Ended {
        let code = wait_for(MOVE_LIMIT, "the end of a move", || self.0.ended());
        let log = self.0.log();
        let refusal = log.lines().find_map(|line| Some(serde_json::from_str::<Refused>(line).ok()?.error));
        Ended { code, seen: parse(&log), refusal }
    }
}

impl Ended {
    /// The guest has moved; the report of it.
    #[track_caller]
    pub fn moved(self) -> Report {
        self.insist(0, Outcome::Moved)
    }

    /// The guest has stayed, in this way; the report of it.
    #[track_caller]
    pub fn stayed(self, how: Outcome) -> Report {
        self.insist(1, how)
    }

    /// It did not even begin; why.
    #[track_caller]
    pub fn refused(self) -> Failure {
        assert_eq!((self.code, self.seen.len()), (1, 0), "{:?}", self.seen);
        self.refusal.expect("a refusal has its reason")
    }

    #[track_caller]
    fn insist(mut self, code: i32, outcome: Outcome) -> Report {
        let last = self.seen.pop().unwrap_or_else(|| panic!("nothing was shown: {:?}", self.refusal));
        let shown = (self.code, last.outcome);
        assert_eq!(shown, (code, Some(outcome)), "in {:?} for {:?}", last.phase, last.reasons);
        let report = last.report.expect("the last status has the report");
        println!("{}", report.lines().join("\n"));
        report
    }
}

/// Lines that are whole and show a migration.
fn parse(log: &str) -> Vec<Status> {
    let whole = log.split_inclusive('\n').filter(|line| line.ends_with('\n'));
    whole.filter_map(|line| serde_json::from_str(line).ok()).collect()
}
