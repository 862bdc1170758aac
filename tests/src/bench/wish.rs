//! What is asked of the benchmark: its command line.

use std::path::{Path, PathBuf};

use clap::{Parser, ValueEnum};

use super::moves::Course;
use super::record::Part;

/// Measure side by side, keep a record of each piece, and write the tables from the records.
///
/// A piece is one pair of one course. Each is recorded the moment it has ended, so the benchmark can be stopped at any
/// time (Ctrl-C); the same command goes on with the pieces that have no record. It does so as long as programs, machine
/// and conditions are the same; else, or with --anew, it measures everything again, and keeps the older records of a
/// course until the newer ones are complete.
///
/// Exit status: 0 measured, and with --against nothing of ours is slower; 1 it cannot measure here; 2 the command line
/// or a file; 3 with --against something of ours is slower; 4 a piece took too long (start again to go on).
#[derive(Clone, Debug, Parser)]
#[command(name = "bench")]
pub struct Wish {
    /// Measure this part alone
    #[arg(long, value_name = "PART")]
    only: Option<Part>,
    /// Only move over this course; several are possible. Without it: lan100 and wan20,
    /// or all with --quick
    #[arg(long = "course", value_name = "NAME", value_enum)]
    courses: Vec<CourseName>,
    /// Moves of each kind
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    pairs: Option<u16>,
    /// Everything in small, only to see that it runs: the figures mean nothing, and are not kept without --output
    #[arg(long)]
    pub quick: bool,
    /// Measure again what is recorded already. If it is stopped, the same command without this goes on with the course
    /// that had begun, and measures no other one again
    #[arg(long)]
    pub anew: bool,
    /// Compare with another file of records, or with what this one held at the start. Worse by more than the interval
    /// of either is told, and is exit status 3
    #[arg(long, value_name = "FILE")]
    pub against: Option<PathBuf>,
    /// The file of tables; the records are beside it, with the ending jsonl [default: bench/RESULTS.md]
    #[arg(long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Give a piece up after so many minutes
    #[arg(long, value_name = "MINUTES", default_value_t = 90, value_parser = clap::value_parser!(u64).range(..=90))]
    pub limit: u64,
}

/// Courses that guests move over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum CourseName {
    /// 100 Mbit/s
    Lan100,
    /// 20 Mbit/s, 100 ms there and back, with losses
    Wan20,
    /// A larger guest, 100 Mbit/s: half an hour and more
    Bradford,
}

impl Wish {
    /// The parts to measure.
    pub fn parts(&self) -> Vec<Part> {
        self.only.map_or_else(|| Part::ALL.to_vec(), |part| vec![part])
    }

    /// The courses of moves.
    pub fn courses(&self) -> Vec<Course> {
        let named = self.courses.iter().map(|name| match name {
            CourseName::Lan100 => Course::lan100(),
            CourseName::Wan20 => Course::wan20(),
            CourseName::Bradford => Course::bradford(),
        });
        let mut courses: Vec<Course> = named.collect();
        if courses.is_empty() {
            courses =
                if self.quick { Course::all().to_vec() } else { vec![Course::lan100(), Course::wan20()] };
        }
        for course in &mut courses {
            if self.quick {
                *course = course.clone().quick();
            }
            course.pairs = self.pairs.map_or(course.pairs, usize::from);
        }
        courses
    }

    /// Where the tables go, if anywhere.
    pub fn tables(&self) -> Option<PathBuf> {
        let usual = || Path::new(env!("CARGO_MANIFEST_DIR")).join("../bench/RESULTS.md");
        self.output.clone().or_else(|| (!self.quick).then(usual))
    }

    /// Where the records go, if anywhere.
    pub fn records(&self) -> Option<PathBuf> {
        self.tables().map(|path| path.with_extension("jsonl"))
    }
}

#[cfg(test)]
mod tests {
    use super::Wish;
    use crate::bench::record::Part;
    use clap::{CommandFactory, Parser};

    fn wish(words: &str) -> Wish {
        Wish::try_parse_from(["bench"].into_iter().chain(words.split_whitespace())).expect("it is understood")
    }

    #[test]
    fn records_are_beside_the_tables_and_a_quick_run_keeps_none_unless_told_where() {
        Wish::command().debug_assert();
        assert!(wish("").records().unwrap().ends_with("bench/RESULTS.jsonl"));
        assert_eq!(wish("--quick").records(), None);
        assert_eq!(wish("--quick --output a/b.md").records().unwrap().to_str(), Some("a/b.jsonl"));
    }

    #[test]
    fn all_parts_are_measured_and_bradford_only_if_it_is_named_or_quick() {
        let named = |words: &str| wish(words).courses().iter().map(|c| c.name).collect::<Vec<_>>();
        assert_eq!(wish("").parts(), Part::ALL);
        assert_eq!(wish("--only link").parts(), [Part::Link]);
        assert_eq!(named(""), ["lan100", "wan20"]);
        assert_eq!(named("--course bradford --course lan100"), ["bradford", "lan100"]);
        assert_eq!(named("--quick"), ["lan100", "wan20", "bradford"]);
        assert_eq!(wish("--pairs 7").courses()[0].pairs, 7);
    }

    #[test]
    fn a_piece_never_gets_more_than_ninety_minutes() {
        assert_eq!(wish("").limit, 90);
        assert!(Wish::try_parse_from(["bench", "--limit", "91"]).is_err());
    }
}
