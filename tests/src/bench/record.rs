//! What a piece of a benchmark has measured, as one line of JSON, and a file of such lines as a value.
//!
//! ```text
//! piece = one pair of one course ─► Record { where, when, with which programs, Figure … } ─► one line
//! run   = the pieces of a course that belong together: same programs, same machine, same conditions
//! ```
//!
//! Pure: who reads and writes the file is [`super::results`].
//!
//! * A line without its end is a piece that was interrupted, and does not count.
//! * A run is complete when each of its pairs has a record, also one that says that the pair took too long.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use clap::ValueEnum;
use serde::{Deserialize, Serialize};

/// The version of the format, in every line.
pub const FORMAT: u32 = 1;

/// How the records call the side that the project is about.
pub const OURS: &str = "ours";

/// A part of the benchmark.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Part {
    /// blockd beside qemu-nbd and nbdkit
    Comparison,
    /// what recording and a stalled replica cost
    Costs,
    /// the replica's stream
    Stream,
    /// whole moves beside QEMU's own
    Moves,
    /// the link beside iperf3
    Link,
}

impl Part {
    /// All of them, in the order in which they are measured.
    pub const ALL: [Self; 5] = [Self::Comparison, Self::Costs, Self::Stream, Self::Moves, Self::Link];
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Part::Comparison => "comparison",
            Part::Costs => "costs",
            Part::Stream => "stream",
            Part::Moves => "moves",
            Part::Link => "link",
        })
    }
}

/// Which way a figure gets better.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Better {
    /// Time, bytes, memory.
    Less,
    /// Rates.
    More,
}

/// One measured value.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Figure {
    /// [`OURS`], or the name of the peer.
    pub who: String,
    /// What was measured.
    pub metric: String,
    /// Its unit.
    pub unit: String,
    /// Which way it gets better.
    pub better: Better,
    /// How much.
    pub value: f64,
}

impl Figure {
    /// A value of which less is better.
    pub fn less(who: &str, metric: &str, unit: &str, value: f64) -> Self {
        Self::new(who, metric, unit, Better::Less, value)
    }

    /// A value of which more is better.
    pub fn more(who: &str, metric: &str, unit: &str, value: f64) -> Self {
        Self::new(who, metric, unit, Better::More, value)
    }

    fn new(who: &str, metric: &str, unit: &str, better: Better, value: f64) -> Self {
        // JSON has no other numbers.
        assert!(value.is_finite(), "{who}, {metric}: {value} is no measurement");
        Self { who: who.to_owned(), metric: metric.to_owned(), unit: unit.to_owned(), better, value }
    }
}

/// With what and on what it was measured.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stamp {
    /// A digest of the programs that were measured and of the one that measured.
    pub programs: String,
    /// Their version.
    pub version: String,
    /// Processor, memory, kernel.
    pub machine: String,
    /// Versions of the peers.
    pub peers: String,
}

/// What has been found of one pair of one course.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// [`FORMAT`].
    pub format: u32,
    /// The part.
    pub part: Part,
    /// What in it.
    pub course: String,
    /// Sizes, links and lengths: only figures under the same conditions are comparable.
    pub conditions: String,
    /// Counted in one file; the newest has the highest number.
    pub run: u64,
    /// From 1.
    pub pair: usize,
    /// How many there were to be.
    pub pairs: usize,
    /// With what.
    #[serde(flatten)]
    pub stamp: Stamp,
    /// When it ended, in UTC.
    pub when: String,
    /// Minutes after which it was given up. Then it has no figures.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exceeded_min: Option<u64>,
    /// What was measured.
    pub figures: Vec<Figure>,
    /// Who spent the time on what, in words.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub notes: BTreeMap<String, String>,
}

impl Record {
    /// As a line with its end.
    pub fn line(&self) -> String {
        serde_json::to_string(self).expect("plain values") + "\n"
    }

    fn is_of(&self, part: Part, course: &str) -> bool {
        self.part == part && self.course == course
    }
}

/// The lines of a file.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Records(pub Vec<Record>);

impl Records {
    /// Reads lines; what stands behind the last end of a line was interrupted.
    pub fn parse(text: &str) -> Result<Self, String> {
        let whole = text.rsplit_once('\n').map_or("", |(whole, _)| whole);
        let line = |(index, line): (usize, &str)| {
            let record: Record =
                serde_json::from_str(line).map_err(|error| format!("line {}: {error}", index + 1))?;
            if record.format != FORMAT {
                return Err(format!("line {}: format {} is not known", index + 1, record.format));
            }
            Ok(record)
        };
        let lines = whole.lines().enumerate().filter(|(_, line)| !line.is_empty());
        lines.map(line).collect::<Result<_, _>>().map(Self)
    }

    /// The highest number of a run.
    pub fn last_run(&self) -> u64 {
        self.0.iter().map(|record| record.run).max().unwrap_or(0)
    }

    /// The newest run of a course, if it was made with this and under these conditions.
    pub fn run_to_continue(&self, part: Part, course: &str, conditions: &str, stamp: &Stamp) -> Option<u64> {
        let alike = |record: &&Record| {
            record.is_of(part, course) && record.conditions == conditions && record.stamp == *stamp
        };
        self.0.iter().filter(alike).map(|record| record.run).max()
    }

    /// The pairs of a run that have a record.
    pub fn pairs(&self, part: Part, course: &str, run: u64) -> BTreeSet<usize> {
        let of_run = self.0.iter().filter(|record| record.is_of(part, course) && record.run == run);
        of_run.map(|record| record.pair).collect()
    }

    fn is_complete(&self, part: Part, course: &str, run: u64) -> bool {
        let of_run = self.0.iter().filter(|record| record.is_of(part, course) && record.run == run);
        let wanted = of_run.map(|record| record.pairs).max().unwrap_or(0);
        let there = self.pairs(part, course, run);
        wanted > 0 && (1..=wanted).all(|pair| there.contains(&pair))
    }

    /// Of each course its newest complete run, each pair in its place.
    #[must_use]
    pub fn complete(&self) -> Self {
        let mut newest: BTreeMap<(Part, &str), u64> = BTreeMap::new();
        for record in &self.0 {
            let run = newest.entry((record.part, &record.course)).or_default();
            if record.run > *run && self.is_complete(record.part, &record.course, record.run) {
                *run = record.run;
            }
        }
        let is_newest = |record: &&Record| newest[&(record.part, record.course.as_str())] == record.run;
        let mut found: Vec<Record> = self.0.iter().filter(is_newest).cloned().collect();
        found.sort_by_key(|record| (record.part, record.run, record.pair));
        Self(found)
    }

    /// Drops what is older than the newest complete run of its course.
    pub fn forget_superseded(&mut self) {
        let complete = self.complete();
        let newest = |record: &Record| {
            complete.0.iter().find(|other| other.is_of(record.part, &record.course)).map(|other| other.run)
        };
        self.0.retain(|record| newest(record).is_none_or(|run| record.run >= run));
    }

    /// Those of some parts.
    #[must_use]
    pub fn of_parts(&self, parts: &[Part]) -> Self {
        Self(self.0.iter().filter(|record| parts.contains(&record.part)).cloned().collect())
    }

    /// The courses of a part, in the order of the records.
    pub fn courses(&self, part: Part) -> Vec<&str> {
        let mut found: Vec<&str> = Vec::new();
        for record in self.0.iter().filter(|record| record.part == part) {
            if !found.contains(&record.course.as_str()) {
                found.push(&record.course);
            }
        }
        found
    }

    /// The values of one metric of one side, pair by pair.
    pub fn series(&self, part: Part, course: &str, who: &str, metric: &str) -> Vec<f64> {
        let figures = self.of(part, course).flat_map(|record| &record.figures);
        figures.filter(|figure| figure.who == who && figure.metric == metric).map(|f| f.value).collect()
    }

    /// The records of a course.
    pub fn of<'a>(&'a self, part: Part, course: &'a str) -> impl DoubleEndedIterator<Item = &'a Record> {
        self.0.iter().filter(move |record| record.is_of(part, course))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stamp(programs: &str) -> Stamp {
        let word = || "x".to_owned();
        Stamp { programs: programs.to_owned(), version: word(), machine: word(), peers: word() }
    }

    fn record(course: &str, run: u64, pair: usize, pairs: usize) -> Record {
        Record {
            format: FORMAT,
            part: Part::Costs,
            course: course.to_owned(),
            conditions: "small".to_owned(),
            run,
            pair,
            pairs,
            stamp: stamp("a"),
            when: "2026-12-01T00:00:00Z".to_owned(),
            exceeded_min: None,
            figures: vec![Figure::less(OURS, "time", "s", (10 * run + pair as u64) as f64)],
            notes: BTreeMap::new(),
        }
    }

    fn places(records: &Records) -> Vec<(&str, u64, usize)> {
        records.0.iter().map(|record| (record.course.as_str(), record.run, record.pair)).collect()
    }

    #[test]
    fn a_record_is_a_flat_line_and_comes_back_as_it_was() {
        let mut one = record("c", 1, 1, 1);
        one.figures[0].value = 0.1 + 0.2;
        let line = one.line();
        let start = r#"{"format":1,"part":"costs","course":"c","conditions":"small","run":1,"pair":1,"pairs":1,"programs":"a","#;
        assert!(line.starts_with(start) && line.ends_with("}\n"), "{line}");
        let figure =
            r#"{"who":"ours","metric":"time","unit":"s","better":"less","value":0.30000000000000004}"#;
        assert!(line.contains(figure), "{line}");
        assert_eq!(Records::parse(&line), Ok(Records(vec![one])));
    }

    #[test]
    fn an_interrupted_line_does_not_count_and_a_broken_or_foreign_one_is_named() {
        let text = record("c", 1, 1, 2).line() + &record("c", 1, 2, 2).line();
        let torn = &text[..text.len() - 1];
        assert_eq!(places(&Records::parse(torn).unwrap()), [("c", 1, 1)]);
        assert_eq!(Records::parse("{"), Ok(Records::default()));
        let why = Records::parse(&(text.clone() + "{}\n")).unwrap_err();
        assert!(why.starts_with("line 3: missing field"), "{why}");
        let why = Records::parse(&text.replace("\"format\":1", "\"format\":2")).unwrap_err();
        assert_eq!(why, "line 1: format 2 is not known");
    }

    #[test]
    fn a_run_is_continued_only_with_the_same_programs_under_the_same_conditions() {
        let mut other = record("c", 3, 1, 2);
        other.stamp = stamp("b");
        let records = Records(vec![record("c", 1, 1, 2), record("c", 2, 1, 2), other]);
        let found = |course, conditions, programs| {
            records.run_to_continue(Part::Costs, course, conditions, &stamp(programs))
        };
        assert_eq!(found("c", "small", "a"), Some(2));
        assert_eq!(found("c", "small", "b"), Some(3));
        assert_eq!([found("d", "small", "a"), found("c", "large", "a"), found("c", "small", "c")], [None; 3]);
        assert_eq!(records.run_to_continue(Part::Link, "c", "small", &stamp("a")), None);
    }

    #[test]
    fn the_newest_complete_run_of_each_course_counts_and_what_is_older_is_forgotten() {
        let mut records = Records(vec![
            record("c", 1, 1, 1),
            record("c", 2, 2, 2),
            record("c", 2, 1, 2),
            record("c", 3, 1, 2),
            record("d", 3, 2, 2),
        ]);
        // Of d nothing is complete: pair 1 is missing. Of c run 3 is not.
        assert_eq!(places(&records.complete()), [("c", 2, 1), ("c", 2, 2)]);
        assert_eq!(records.complete().series(Part::Costs, "c", OURS, "time"), [21.0, 22.0]);
        records.forget_superseded();
        assert_eq!(places(&records), [("c", 2, 2), ("c", 2, 1), ("c", 3, 1), ("d", 3, 2)]);
    }

    #[test]
    fn more_pairs_that_were_asked_for_later_make_a_run_incomplete_until_they_are_there() {
        let mut records = Records(vec![record("c", 1, 1, 1), record("c", 1, 2, 3)]);
        assert_eq!(places(&records.complete()), []);
        records.0.push(record("c", 1, 3, 3));
        assert_eq!(places(&records.complete()), [("c", 1, 1), ("c", 1, 2), ("c", 1, 3)]);
    }

    #[test]
    fn a_pair_that_took_too_long_makes_a_run_complete_without_a_value() {
        let late = Record { exceeded_min: Some(90), figures: Vec::new(), ..record("c", 1, 2, 2) };
        let records = Records(vec![record("c", 1, 1, 2), late]).complete();
        assert_eq!(places(&records), [("c", 1, 1), ("c", 1, 2)]);
        assert_eq!(records.series(Part::Costs, "c", OURS, "time"), [11.0]);
    }
}
