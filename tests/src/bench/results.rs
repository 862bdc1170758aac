//! The file of records: a line is added the moment a piece has ended, and nothing else is ever between two lines.
//!
//! A program that is killed while it writes leaves a line without its end, which the next one cuts off. Old runs go when
//! a newer one of the same course is complete; the file is then written beside and renamed.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use super::record::{Record, Records};

/// A file of records, or none where nothing is to be kept.
#[derive(Debug)]
pub struct Results {
    path: Option<PathBuf>,
    records: Records,
}

impl Results {
    /// Keeps records only as long as this value lives.
    pub fn nowhere() -> Self {
        Self { path: None, records: Records::default() }
    }

    /// Opens a file, which need not be there yet.
    pub fn open(path: &Path) -> Result<Self, String> {
        let text = match fs::read_to_string(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => String::new(),
            read => read.map_err(|error| format!("cannot read {}: {error}", path.display()))?,
        };
        let records = parse(path, &text)?;
        let whole_bytes = text.rfind('\n').map_or(0, |at| at + 1);
        if whole_bytes < text.len() {
            let file = File::options().write(true).open(path);
            let cut = file.and_then(|file| file.set_len(whole_bytes as u64));
            cut.map_err(|error| format!("cannot cut {}: {error}", path.display()))?;
        }
        Ok(Self { path: Some(path.to_owned()), records })
    }

    /// What is in a file that has to be there.
    pub fn read(path: &Path) -> Result<Records, String> {
        let text = fs::read_to_string(path);
        parse(path, &text.map_err(|error| format!("cannot read {}: {error}", path.display()))?)
    }

    /// What there is.
    pub fn records(&self) -> &Records {
        &self.records
    }

    /// Where it is.
    pub fn path(&self) -> Option<&Path> {
        self.path.as_deref()
    }

    /// Keeps a record.
    pub fn add(&mut self, record: Record) {
        if let Some(path) = &self.path {
            append(path, &record);
        }
        self.records.0.push(record);
    }

    /// Drops what newer complete runs have made superfluous.
    pub fn forget_superseded(&mut self) {
        let before = self.records.0.len();
        self.records.forget_superseded();
        let (Some(path), true) = (&self.path, self.records.0.len() < before) else { return };
        let text: String = self.records.0.iter().map(Record::line).collect();
        let beside = path.with_extension("jsonl.new");
        let written = fs::write(&beside, text).and_then(|()| fs::rename(&beside, path));
        written.unwrap_or_else(|error| panic!("write {}: {error}", path.display()));
    }
}

fn parse(path: &Path, text: &str) -> Result<Records, String> {
    Records::parse(text).map_err(|why| format!("{} is not a file of records: {why}", path.display()))
}

/// Adds a line, in one write and through to the disk.
pub fn append(path: &Path, record: &Record) {
    let file = File::options().create(true).append(true).open(path);
    let written = file.and_then(|mut file| {
        file.write_all(record.line().as_bytes())?;
        file.sync_data()
    });
    written.unwrap_or_else(|error| panic!("write {}: {error}", path.display()));
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::fs;

    use super::Results;
    use crate::bench::record::{FORMAT, Part, Record, Stamp};
    use crate::scratch::Scratch;

    fn record(run: u64, pair: usize) -> Record {
        let word = || "x".to_owned();
        Record {
            format: FORMAT,
            part: Part::Costs,
            course: word(),
            conditions: word(),
            run,
            pair,
            pairs: 2,
            stamp: Stamp { programs: word(), version: word(), machine: word(), peers: word() },
            when: word(),
            exceeded_min: None,
            figures: Vec::new(),
            notes: BTreeMap::new(),
        }
    }

    #[test]
    fn a_file_goes_on_behind_its_last_whole_line() {
        let scratch = Scratch::new();
        let path = scratch.join("results.jsonl");
        let mut results = Results::open(&path).unwrap();
        results.add(record(1, 1));
        let whole = fs::read_to_string(&path).unwrap();
        fs::write(&path, whole.clone() + "{\"format\":1,\"pa").unwrap();
        let mut results = Results::open(&path).unwrap();
        assert_eq!(results.records().0, [record(1, 1)]);
        results.add(record(1, 2));
        assert_eq!(fs::read_to_string(&path).unwrap(), whole + &record(1, 2).line());
    }

    #[test]
    fn an_old_run_stays_in_the_file_until_a_newer_one_is_complete() {
        let scratch = Scratch::new();
        let path = scratch.join("results.jsonl");
        let mut results = Results::open(&path).unwrap();
        for (run, pair) in [(1, 1), (1, 2), (2, 1)] {
            results.add(record(run, pair));
        }
        results.forget_superseded();
        assert_eq!(Results::read(&path).unwrap().0.len(), 3);
        results.add(record(2, 2));
        results.forget_superseded();
        assert_eq!(Results::read(&path).unwrap().0, [record(2, 1), record(2, 2)]);
        assert_eq!(Results::open(&path).unwrap().records(), results.records());
    }

    #[test]
    fn what_is_no_file_of_records_is_left_alone_and_named() {
        let scratch = Scratch::new();
        let path = scratch.join("letter");
        fs::write(&path, "Dear all,\nhello").unwrap();
        let why = Results::open(&path).unwrap_err();
        assert!(why.contains("letter is not a file of records: line 1"), "{why}");
        assert_eq!(fs::read_to_string(&path).unwrap(), "Dear all,\nhello");
        assert!(Results::read(&scratch.join("nothing")).unwrap_err().contains("cannot read"));
    }
}
