//! The benchmark program in small, under a test: what it measured, what it kept of it, and that it goes on with that.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use crate::binaries;
use crate::program::{Program, Tool};
use crate::requires::Missing;
use crate::scratch::Scratch;
use crate::wait::{PATIENCE, wait_until};

use super::record::Records;
use super::results::Results;

/// A benchmark that was run in small.
#[derive(Debug)]
pub struct Trial {
    /// Of `env`, which starts it.
    words: Vec<String>,
    scratch: Scratch,
}

/// What a program said, and its exit code.
#[derive(Debug)]
pub struct Said {
    /// On both outputs.
    pub text: String,
    /// None where it was killed.
    pub code: Option<i32>,
}

impl Trial {
    /// A benchmark with these words, still to be run.
    pub fn new(program: &str, words: &[&str]) -> Self {
        // Cargo may put another build of the benchmark in its place, with other features of what it depends on. Its runs
        // would not go on with each other's pieces, so it happens now or never.
        binaries::build().expect("the programs under test");
        let (variable, value) = binaries::are_built();
        let told = format!("{variable}={value}");
        let words = [&told, program, "--quick"].iter().chain(words).map(|word| (*word).to_owned()).collect();
        Self { words, scratch: Scratch::new() }
    }

    /// Run it to its end, which has to be a good one.
    pub fn run(program: &str, words: &[&str]) -> Result<Self, Missing> {
        let trial = Self::new(program, words);
        let Said { text, code } = trial.again(&[]);
        if code == Some(1) {
            return Err(Missing::Denied(text));
        }
        assert_eq!(code, Some(0), "{text}");
        Ok(trial)
    }

    fn all_words(&self) -> Vec<String> {
        let output = self.scratch.join("tables.md").display().to_string();
        self.words.iter().cloned().chain(["--output".to_owned(), output]).collect()
    }

    /// The same command with more words.
    pub fn again(&self, more: &[&str]) -> Said {
        let output = Tool::new("env").args(self.all_words()).args(more).output();
        let text = [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
        Said { text: text.concat(), code: output.status.code() }
    }

    /// Start it, and kill it as soon as it has a first record.
    pub fn run_until_the_first_record(&self) {
        let mut running = Program::start("env", self.all_words(), &self.scratch.join("log"));
        wait_until(4 * PATIENCE, "a first record", || {
            assert_eq!(running.ended(), None, "{}", running.log());
            fs::read_to_string(self.file()).is_ok_and(|text| text.contains('\n'))
        });
        running.kill();
    }

    /// The file of records.
    pub fn file(&self) -> PathBuf {
        self.scratch.join("tables.jsonl")
    }

    /// What is in it.
    pub fn records(&self) -> Records {
        Results::read(&self.file()).expect("a file of records")
    }

    /// The tables.
    pub fn tables(&self) -> String {
        fs::read_to_string(self.scratch.join("tables.md")).expect("a file of tables")
    }

    /// Every `course: who: metric`, sorted.
    pub fn metrics(&self) -> BTreeSet<String> {
        let records = self.records();
        let of = |record: &super::record::Record| {
            let name = |figure: &super::record::Figure| {
                format!("{}: {}: {}", record.course, figure.who, figure.metric)
            };
            record.figures.iter().map(name).collect::<Vec<_>>()
        };
        records.0.iter().flat_map(of).collect()
    }

    /// The same again measures nothing, writes the same tables, and is not slower than itself.
    #[track_caller]
    pub fn check_that_nothing_is_measured_twice(&self) {
        let (lines, tables) = (fs::read(self.file()).expect("a file of records"), self.tables());
        let Said { text, code } = self.again(&["--against", &self.file().display().to_string()]);
        assert_eq!(code, Some(0), "{text}");
        let count = self.records().0.len();
        let wanted = format!("0 pieces measured, {count} were recorded already");
        assert!(text.contains(&wanted) && text.contains("Nothing of ours is slower"), "{text}");
        assert!(!text.contains("only "), "both files have the same metrics: {text}");
        assert_eq!(fs::read(self.file()).expect("a file of records"), lines);
        assert_eq!(self.tables(), tables);
    }

    /// A file of records in which every one of our figures is `times` as good.
    pub fn better_by(&self, times: f64) -> PathBuf {
        let mut records = self.records();
        for figure in records.0.iter_mut().flat_map(|record| &mut record.figures) {
            figure.value *= if figure.better == super::record::Better::More { times } else { 1.0 / times };
        }
        let path = self.scratch.join("better.jsonl");
        write(&path, &records);
        path
    }

    /// As if the last record had been interrupted in the middle of its line.
    pub fn tear_last_record(&self) {
        let text = fs::read_to_string(self.file()).expect("a file of records");
        fs::write(self.file(), &text[..text.len() - 20]).expect("write a file of records");
    }
}

fn write(path: &Path, records: &Records) {
    let text: String = records.0.iter().map(super::record::Record::line).collect();
    fs::write(path, text).expect("write a file of records");
}
