//! What a host has promised, so that a crash cannot make it forget (M2, M4): one record a line, each with a checksum.
//!
//! ```text
//! 5f3a90c1 {"migration":"0e2f9a61","guest":"web","generation":1,"peer":"site-b","step":"releasing","unix_ms":…}
//! ```
//!
//! A record is durable before what it says is said or done. The file only grows; a torn last line is what a crash in
//! the middle of an append leaves, and is dropped. Anything else that cannot be read is an error: nobody guesses here.

use serde::{Deserialize, Serialize};
use thiserror::Error;

/// What was promised.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Step {
    /// Source: the migration exists.
    Begun,
    /// Source: the destination may take the guest from here on; the source does not run it until it knows.
    Releasing,
    /// Source: the destination has the guest.
    Released,
    /// Source: the guest stays here, and is being made as it was.
    RollingBack,
    /// Source: the guest stays here.
    RolledBack,
    /// Destination: room is kept.
    Reserved,
    /// Destination: this generation will never be taken.
    Refused,
    /// Destination: the guest is ours.
    Taken,
    /// Destination: the guest may have run here.
    Started,
    /// Destination: the guest was ours, its memory was lost before it ran here, and it is the source's again (M8).
    HandedBack,
    /// Source: an operator has said that the guest is here, with this generation; whoever had the one before has lost it.
    TakenBack,
    /// Both: nothing is left to do.
    Done,
}

/// A record.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Record {
    /// The migration's number.
    pub migration: String,
    /// Which guest.
    pub guest: String,
    /// The generation that its disks get by this migration.
    pub generation: u64,
    /// The other host.
    pub peer: String,
    /// What was promised.
    pub step: Step,
    /// When, by this host's clock, in milliseconds since 1970. For people: nothing is decided by it.
    pub unix_ms: u64,
}

/// What a promise is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Subject {
    /// The migration's number.
    pub migration: String,
    /// Which guest.
    pub guest: String,
    /// The generation that its disks get by this migration.
    pub generation: u64,
    /// The other host.
    pub peer: String,
}

impl Subject {
    /// The record of a promise about it.
    pub fn record(self, step: Step, unix_ms: u64) -> Record {
        let Self { migration, guest, generation, peer } = self;
        Record { migration, guest, generation, peer, step, unix_ms }
    }
}

impl Record {
    /// What it is about.
    pub fn subject(&self) -> Subject {
        let Self { migration, guest, generation, peer, .. } = self.clone();
        Subject { migration, guest, generation, peer }
    }
}

/// Why a journal cannot be trusted.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("line {line} of the journal is damaged: {what}")]
pub struct Damaged {
    /// Counted from one.
    pub line: usize,
    /// In which way.
    pub what: String,
}

/// Writes a record as a line.
pub fn encode(record: &Record) -> Vec<u8> {
    let json = serde_json::to_string(record).expect("records have no maps");
    format!("{:08x} {json}\n", crc32fast::hash(json.as_bytes())).into_bytes()
}

/// Reads a journal. Gives its records, and how many bytes of it are whole: what follows is a torn append.
pub fn decode(bytes: &[u8]) -> Result<(Vec<Record>, usize), Damaged> {
    let mut records = Vec::new();
    let mut whole = 0;
    for (index, line) in bytes.split_inclusive(|byte| *byte == b'\n').enumerate() {
        match decode_line(line) {
            Ok(record) => records.push(record),
            // Only the last line can be torn.
            Err(_) if whole + line.len() == bytes.len() => break,
            Err(what) => return Err(Damaged { line: index + 1, what }),
        }
        whole += line.len();
    }
    Ok((records, whole))
}

fn decode_line(line: &[u8]) -> Result<Record, String> {
    let text = std::str::from_utf8(line).map_err(|error| error.to_string())?;
    let text = text.strip_suffix('\n').ok_or("it has no end")?;
    let (sum, json) = text.split_once(' ').ok_or("it has no checksum")?;
    let sum = u32::from_str_radix(sum, 16).map_err(|_| format!("{sum:?} is no checksum"))?;
    if sum != crc32fast::hash(json.as_bytes()) {
        return Err("its checksum does not match".into());
    }
    serde_json::from_str(json).map_err(|error| error.to_string())
}

/// The last promise of a migration, if there was one.
pub fn last_step(records: &[Record], migration: &str) -> Option<Step> {
    records.iter().rev().find(|record| record.migration == migration).map(|record| record.step)
}

/// The promise by which a guest may be, or is, at another host: the last word on it is *releasing* or *released*. As
/// long as it is, the guest must not run here (M2).
pub fn handed_over<'a>(records: &'a [Record], guest: &str) -> Option<&'a Record> {
    let last = records.iter().rev().find(|record| record.guest == guest)?;
    matches!(last.step, Step::Releasing | Step::Released).then_some(last)
}

/// Whether a destination that has these records has taken the guest in this migration. None: it has promised neither
/// that nor the opposite.
pub fn verdict(records: &[Record], migration: &str) -> Option<bool> {
    records.iter().filter(|record| record.migration == migration).rev().find_map(|record| match record.step {
        Step::Taken | Step::Started => Some(true),
        Step::Refused | Step::HandedBack => Some(false),
        _ => None,
    })
}

/// Whether `peer` may have a say about a migration as its source: nothing is written of it here, or only that it came
/// from there. What this host sends, or another sent, is not its to end.
pub fn is_from(records: &[Record], migration: &str, peer: &str) -> bool {
    let own =
        [Step::Begun, Step::Releasing, Step::Released, Step::RollingBack, Step::RolledBack, Step::TakenBack];
    let mut records = records.iter().filter(|record| record.migration == migration);
    records.all(|record| record.peer == peer && !own.contains(&record.step))
}

/// What a host has written about one migration, oldest first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Account(Vec<Record>);

impl Account {
    /// That of a migration.
    pub fn of(records: &[Record], migration: &str) -> Self {
        Self(records.iter().filter(|record| record.migration == migration).cloned().collect())
    }

    /// What was written last.
    pub fn last(&self) -> Option<&Record> {
        self.0.last()
    }

    /// The last promise.
    pub fn last_step(&self) -> Option<Step> {
        self.last().map(|record| record.step)
    }

    /// Whether the guest was taken; none: neither that nor the opposite was promised ([`verdict`]).
    pub fn verdict(&self) -> Option<bool> {
        self.0.first().and_then(|record| verdict(&self.0, &record.migration))
    }

    /// The guest for which room was kept.
    pub fn reserved_guest(&self) -> Option<&str> {
        self.0.iter().find(|record| record.step == Step::Reserved).map(|record| record.guest.as_str())
    }

    /// Whether this host has ever promised, as a destination, that the guest is its own.
    pub fn was_taken(&self) -> bool {
        self.0.iter().any(|record| matches!(record.step, Step::Taken | Step::Started))
    }

    /// Whether the guest may have run here, and is here.
    pub fn has_started(&self) -> bool {
        matches!(self.last_step(), Some(Step::Started | Step::Done))
    }

    /// Whether `peer` may have a say about it as the guest's source ([`is_from`]).
    pub fn is_from(&self, peer: &str) -> bool {
        self.0.first().is_none_or(|record| is_from(&self.0, &record.migration, peer))
    }

    /// Whether the guest moved between `peer` and here, in either direction, or nothing is written.
    pub fn is_shared_with(&self, peer: &str) -> bool {
        self.0.iter().all(|record| record.peer == peer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(step: Step) -> Record {
        Record {
            migration: "m1".into(),
            guest: "web".into(),
            generation: 2,
            peer: "b".into(),
            step,
            unix_ms: 5,
        }
    }

    #[test]
    fn the_bytes_of_a_record_never_change() {
        let line = String::from_utf8(encode(&record(Step::Taken))).unwrap();
        let json = r#"{"migration":"m1","guest":"web","generation":2,"peer":"b","step":"taken","unix_ms":5}"#;
        assert_eq!(line, format!("{:08x} {json}\n", crc32fast::hash(json.as_bytes())));
    }

    #[test]
    fn only_its_source_has_a_say_about_a_migration() {
        let arrived = [record(Step::Reserved), record(Step::Taken)];
        assert!(is_from(&arrived, "m1", "b") && is_from(&[], "m1", "b"));
        assert!(!is_from(&arrived, "m1", "c") && is_from(&arrived, "m2", "c"));
        for step in [Step::Begun, Step::Releasing] {
            assert!(!is_from(&[record(step)], "m1", "b"), "this host is its source");
        }
    }

    #[test]
    fn a_torn_append_is_dropped_at_every_byte_and_nothing_before_it() {
        let (first, second) = (encode(&record(Step::Begun)), encode(&record(Step::Releasing)));
        let both = [first.clone(), second.clone()].concat();
        for cut in 0..=second.len() {
            let (records, whole) = decode(&both[..first.len() + cut]).unwrap();
            let expected = if cut == second.len() { 2 } else { 1 };
            assert_eq!(records.len(), expected, "cut after {cut} bytes");
            assert_eq!(whole, if expected == 2 { both.len() } else { first.len() });
        }
    }

    #[test]
    fn damage_before_the_last_line_is_an_error_at_every_byte() {
        let (first, second) = (encode(&record(Step::Begun)), encode(&record(Step::Releasing)));
        for at in 0..first.len() - 1 {
            let mut both = [first.clone(), second.clone()].concat();
            both[at] ^= 1;
            assert_eq!(decode(&both).unwrap_err().line, 1, "byte {at}");
        }
    }

    #[test]
    fn a_guest_that_may_be_elsewhere_is_known_until_the_last_word_is_another() {
        let records = [record(Step::Begun), record(Step::Releasing)];
        assert_eq!(handed_over(&records[..1], "web"), None);
        assert_eq!(handed_over(&records, "web").map(|record| record.step), Some(Step::Releasing));
        assert_eq!(handed_over(&records, "other"), None);
        let back = [record(Step::Releasing), record(Step::RolledBack)];
        assert_eq!(handed_over(&back, "web"), None);
    }

    #[test]
    fn the_verdict_is_what_was_promised_and_refusals_are_for_ever() {
        assert_eq!(verdict(&[], "m1"), None);
        assert_eq!(verdict(&[record(Step::Reserved)], "m1"), None);
        assert_eq!(verdict(&[record(Step::Reserved), record(Step::Refused)], "m1"), Some(false));
        assert_eq!(verdict(&[record(Step::Taken), record(Step::Done)], "m1"), Some(true));
        assert_eq!(verdict(&[record(Step::Taken), record(Step::HandedBack)], "m1"), Some(false));
        assert_eq!(verdict(&[record(Step::Taken)], "m2"), None);
        assert_eq!(last_step(&[record(Step::Taken), record(Step::Done)], "m1"), Some(Step::Done));
    }
}
