//! One start of the benchmark: measures the pieces that have no record yet, and keeps each the moment it has ended.
//!
//! ```text
//! Asked (part, course, conditions, pairs) ─► which pairs lack a record? ─► set up once ─► piece ─► line ─► piece ─► …
//!                                                                          a Limit watches each
//! ```
//!
//! * A run is continued if programs, machine and conditions are the same; else, or by `anew`, one begins.
//! * A piece that takes too long is recorded as such and ends the program ([`EXCEEDED`]); the next start goes on
//!   with the others.

use std::collections::BTreeMap;
use std::process;
use std::time::Duration;

use crate::requires::Missing;

use super::limit::Limit;
use super::machine;
use super::record::{FORMAT, Figure, Part, Record, Records, Stamp};
use super::results::{Results, append};

/// The exit code of a program whose piece took too long.
pub const EXCEEDED: i32 = 4;

/// So many pairs of a course.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Asked {
    /// The part.
    pub part: Part,
    /// The course, as the records name it.
    pub course: String,
    /// Sizes, links, lengths.
    pub conditions: String,
    /// How many.
    pub pairs: usize,
}

/// What a piece has found.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Found {
    /// What was measured.
    pub figures: Vec<Figure>,
    /// Who spent the time on what.
    pub notes: BTreeMap<String, String>,
}

impl From<Vec<Figure>> for Found {
    fn from(figures: Vec<Figure>) -> Self {
        Self { figures, notes: BTreeMap::new() }
    }
}

/// A start of the benchmark.
#[derive(Debug)]
pub struct Session {
    results: Results,
    stamp: Stamp,
    limit_min: u64,
    /// Nothing that was there is continued.
    anew: bool,
    /// The number of what begins here.
    run: u64,
    asked: Vec<(Part, String)>,
    measured: usize,
    there: usize,
}

impl Session {
    /// Goes on with these results.
    pub fn new(results: Results, stamp: Stamp, limit_min: u64, anew: bool) -> Self {
        let run = results.records().last_run() + 1;
        Self { results, stamp, limit_min, anew, run, asked: Vec::new(), measured: 0, there: 0 }
    }

    /// Measures the pairs of a course that have no record. `set_up` is called before the first of them.
    pub fn course<S>(
        &mut self,
        asked: Asked,
        set_up: impl FnOnce() -> Result<S, Missing>,
        mut piece: impl FnMut(&mut S, usize) -> Result<Found, Missing>,
    ) -> Result<(), Missing> {
        let Asked { part, ref course, ref conditions, pairs } = asked;
        let run = self.run_of(&asked);
        let there = self.results.records().pairs(part, course, run);
        let lacking: Vec<usize> = (1..=pairs).filter(|pair| !there.contains(pair)).collect();
        self.there += pairs - lacking.len();
        let mut record = Record {
            format: FORMAT,
            part,
            course: course.clone(),
            conditions: conditions.clone(),
            run,
            pair: 0,
            pairs,
            stamp: self.stamp.clone(),
            when: String::new(),
            exceeded_min: None,
            figures: Vec::new(),
            notes: BTreeMap::new(),
        };
        let (mut set_up, mut ground) = (Some(set_up), None);
        for pair in lacking {
            eprintln!("{part}, {course}: pair {pair} of {pairs}");
            record.pair = pair;
            let limit = self.watch(&record);
            let ground = match (&mut ground, set_up.take()) {
                (empty, Some(set_up)) => empty.insert(set_up()?),
                (ground, None) => ground.as_mut().expect("it was set up for the pair before"),
            };
            let Found { figures, notes } = piece(ground, pair)?;
            drop(limit);
            self.results.add(Record { when: machine::now(), figures, notes, ..record.clone() });
            self.measured += 1;
        }
        self.asked.push((part, asked.course));
        self.results.forget_superseded();
        Ok(())
    }

    fn run_of(&self, asked: &Asked) -> u64 {
        if self.anew {
            return self.run;
        }
        let Asked { part, course, conditions, .. } = asked;
        self.results.records().run_to_continue(*part, course, conditions, &self.stamp).unwrap_or(self.run)
    }

    /// Gives a piece up after its time: says so, leaves a record, and ends the program with all that it started.
    fn watch(&self, record: &Record) -> Limit {
        let (path, limit_min) = (self.results.path().map(ToOwned::to_owned), self.limit_min);
        let late = Record { when: machine::now(), exceeded_min: Some(limit_min), ..record.clone() };
        Limit::watch(Duration::from_secs(60 * limit_min), move || {
            let Record { part, course, pair, .. } = &late;
            eprintln!(
                "{part}, {course}: pair {pair} took more than {limit_min} minutes and is given up; start again to \
                 go on with the others"
            );
            if let Some(path) = path {
                append(&path, &late);
            }
            process::exit(EXCEEDED);
        })
    }

    /// The complete runs of a part, also of courses that were not asked for this time.
    pub fn complete(&self, part: Part) -> Records {
        self.results.records().complete().of_parts(&[part])
    }

    /// The complete runs of what was asked for.
    pub fn complete_of_asked(&self) -> Records {
        let mut records = self.results.records().complete();
        records.0.retain(|record| {
            self.asked.iter().any(|(part, course)| (*part, course) == (record.part, &record.course))
        });
        records
    }

    /// How many pieces were measured now, and how many were there already.
    pub fn counts(&self) -> (usize, usize) {
        (self.measured, self.there)
    }
}

#[cfg(test)]
mod tests {
    use super::{Asked, Found, Session};
    use crate::bench::record::{Figure, OURS, Part, Stamp};
    use crate::bench::results::Results;
    use crate::require;
    use crate::requires::{Missing, programs};
    use crate::scratch::Scratch;

    fn session(path: &std::path::Path, programs: &str, anew: bool) -> Session {
        let word = || "x".to_owned();
        let stamp = Stamp { programs: programs.to_owned(), version: word(), machine: word(), peers: word() };
        Session::new(Results::open(path).unwrap(), stamp, 90, anew)
    }

    /// Measures nothing in so many pairs; gives the pairs of which it was asked for, 0 for a set-up.
    fn measure(session: &mut Session, pairs: usize, fails_at: usize) -> Vec<usize> {
        let asked =
            Asked { part: Part::Costs, course: "c".to_owned(), conditions: "small".to_owned(), pairs };
        let calls = std::cell::RefCell::new(Vec::new());
        let set_up = || {
            calls.borrow_mut().push(0);
            Ok(())
        };
        let _ = session.course(asked, set_up, |(), pair| {
            if pair == fails_at {
                return Err(Missing::Denied("stopped".to_owned()));
            }
            calls.borrow_mut().push(pair);
            Ok(Found::from(vec![Figure::less(OURS, "time", "s", pair as f64)]))
        });
        calls.into_inner()
    }

    #[test]
    fn what_was_stopped_goes_on_with_the_first_pair_that_has_no_record() {
        require!(programs(&["setpriv", "timeout", "date"]));
        let scratch = Scratch::new();
        let path = scratch.join("results.jsonl");
        assert_eq!(measure(&mut session(&path, "a", false), 3, 2), [0, 1]);
        let mut second = session(&path, "a", false);
        assert!(second.complete(Part::Costs).0.is_empty());
        assert_eq!(measure(&mut second, 3, 0), [0, 2, 3]);
        assert_eq!(second.counts(), (2, 1));
        assert_eq!(second.complete_of_asked().series(Part::Costs, "c", OURS, "time"), [1.0, 2.0, 3.0]);
        let mut third = session(&path, "a", false);
        assert_eq!(measure(&mut third, 3, 0), [0; 0]);
        assert_eq!(third.counts(), (0, 3));
        // More pairs than last time.
        assert_eq!(measure(&mut session(&path, "a", false), 4, 0), [0, 4]);
    }

    #[test]
    fn other_programs_and_anew_begin_a_run_and_the_old_one_goes_when_it_is_complete() {
        require!(programs(&["setpriv", "timeout", "date"]));
        let scratch = Scratch::new();
        let path = scratch.join("results.jsonl");
        measure(&mut session(&path, "a", false), 2, 0);
        assert_eq!(measure(&mut session(&path, "b", false), 2, 2), [0, 1]);
        let runs = || Results::read(&path).unwrap().0.iter().map(|record| record.run).collect::<Vec<_>>();
        assert_eq!(runs(), [1, 1, 2]);
        assert_eq!(measure(&mut session(&path, "b", true), 2, 0), [0, 1, 2]);
        assert_eq!(runs(), [3, 3]);
    }
}
