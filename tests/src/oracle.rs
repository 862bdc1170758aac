//! Says what a move has broken: everything that is wrong, from what was seen at the client, on the disks, in the
//! guest and at the sites (S0-02, S0-22).
//!
//! ```text
//! client's record ── acknowledged numbers ─┬─► every one is on the destination's disk, none stale, none torn
//! destination's image (journal replayed) ──┘
//! two images that must be the same ──────────► no byte differs
//! the guest's own check of its memory ───────► the pattern is whole
//! who runs ──────────────────────────────────► exactly one side, the right one
//! client's record ── sessions ───────────────► the same connections from begin to end, no line lost
//! ```
//!
//! It believes the client and the disk. What the guest, the source or the destination say of themselves is no
//! evidence, but for the check of the memory, which nobody else can make. Evidence that proves nothing (no number
//! heard, no pattern laid) is a violation too: a test must not pass because nothing happened.

pub mod image;

use std::fmt;
use std::path::{Path, PathBuf};

use crate::guest_kit::service::Answer;
use crate::numbered;
use crate::prober::record::{Connection, Numbers, Record};
use crate::scratch::first_difference;
use image::{Holds, WrittenDisk};

/// What was seen.
#[derive(Debug)]
pub struct Evidence<'a> {
    /// The disks as the move has left them, in the order in which the prober counts them.
    pub disks: Vec<WrittenDisk>,
    /// Images that must be the same.
    pub identical: Vec<(PathBuf, PathBuf)>,
    /// The guest's answer to `check`; none: its memory held no pattern.
    pub memory: Option<&'a Answer>,
    /// Where the guest runs.
    pub running: Vec<&'a str>,
    /// Where it has to run.
    pub expected: &'a str,
    /// What the client has seen.
    pub client: &'a Record,
}

/// What kind of thing is wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// An acknowledged write is lost or stale, or a block is torn.
    Block,
    /// The file system needs more than its journal.
    FileSystem,
    /// The client heard numbers twice, or in the wrong order, or none.
    Order,
    /// Images differ that must not.
    Image,
    /// A page does not hold what was written to it.
    Memory,
    /// Not exactly the right side runs.
    Sides,
    /// A session was lost, or a line of it.
    Session,
}

/// Something that is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// What kind of thing.
    pub kind: Kind,
    /// What exactly, and where.
    pub what: String,
}

impl Violation {
    fn new(kind: Kind, what: impl Into<String>) -> Self {
        Self { kind, what: what.into() }
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}: {}", self.kind, self.what)
    }
}

/// Everything that is wrong. `folder` takes the copies on which journals are replayed; the evidence stays as it is.
pub fn violations(evidence: &Evidence<'_>, folder: &Path) -> Vec<Violation> {
    let mut found = Vec::new();
    for (index, disk) in evidence.disks.iter().enumerate() {
        match evidence.client.disks.get(index) {
            Some(heard) => found.extend(on_disk(disk, heard, folder)),
            None => found.push(Violation::new(Kind::Order, format!("nobody listened to disk {index}"))),
        }
    }
    for (left, right) in &evidence.identical {
        found.extend(first_difference(left, right).map(|at| {
            let what = format!("{} and {} differ at byte {at}", left.display(), right.display());
            Violation::new(Kind::Image, what)
        }));
    }
    found.extend(evidence.memory.and_then(in_memory));
    found.extend(sides(&evidence.running, evidence.expected));
    found.extend(sessions(evidence.client));
    found
}

/// Panic with everything that is wrong, if anything is.
#[track_caller]
pub fn insist(evidence: &Evidence<'_>, folder: &Path) {
    let found: Vec<String> = violations(evidence, folder).iter().map(Violation::to_string).collect();
    assert!(found.is_empty(), "{} violations:\n{}", found.len(), found.join("\n"));
}

fn on_disk(disk: &WrittenDisk, heard: &Numbers, folder: &Path) -> Vec<Violation> {
    let acknowledged = heard.highest();
    let mut found: Vec<Violation> =
        heard.disorder().into_iter().map(|what| Violation::new(Kind::Order, what)).collect();
    if acknowledged == 0 {
        found.push(Violation::new(Kind::Order, "the client heard of no write at all"));
    }
    let name = disk.image.display();
    let file = match disk.holds {
        Holds::Numbers => disk.image.clone(),
        Holds::FileSystem => match image::replay(&disk.image, folder) {
            Ok(file) => file,
            Err(why) => {
                found.push(Violation::new(Kind::FileSystem, format!("{name}: {why}")));
                return found;
            }
        },
    };
    match image::blocks(&file) {
        Ok(blocks) => {
            let survey = numbered::survey(disk.slots, acknowledged, disk.most, |slot, block| {
                blocks.read(slot, block);
            });
            let faults = survey.faults.into_iter();
            found.extend(faults.map(|what| Violation::new(Kind::Block, format!("{name}: {what}"))));
        }
        Err(why) => found.push(Violation::new(Kind::Block, format!("{name}: {why}"))),
    }
    found
}

fn in_memory(answer: &Answer) -> Option<Violation> {
    let pages = answer.values.get("pages").and_then(|pages| pages.parse::<u64>().ok());
    match (answer.is_ok(), pages) {
        (true, Some(1..)) => None,
        (true, _) => Some(Violation::new(Kind::Memory, format!("no pattern was laid: {:?}", answer.line))),
        (false, _) => Some(Violation::new(Kind::Memory, answer.line.clone())),
    }
}

fn sides(running: &[&str], expected: &str) -> Option<Violation> {
    let what = match running {
        [] => format!("no side runs; {expected} should"),
        [one] if *one == expected => return None,
        [one] => format!("{one} runs; {expected} should"),
        all => format!("{} run; only {expected} should", all.join(" and ")),
    };
    Some(Violation::new(Kind::Sides, what))
}

fn sessions(client: &Record) -> Vec<Violation> {
    let mut found = Vec::new();
    let mut session = |name: &str, connections: &[Connection]| {
        if connections.is_empty() {
            found.push(format!("{name}: never came about"));
        }
        for loss in connections.iter().filter_map(|connection| connection.lost.as_ref()) {
            let how = if loss.was_reset { "reset" } else { "lost" };
            found.push(format!("{name}: {how} at {} us: {}", loss.at_us, loss.why));
        }
    };
    session("echo", &client.connections);
    for (index, disk) in client.disks.iter().enumerate() {
        session(&format!("writer of disk {index}"), &disk.connections);
    }
    let answered = client.lines.iter().filter(|line| line.answered_us.is_some()).count();
    if answered < client.lines.len() || answered == 0 {
        found.push(format!("echo: {answered} of {} lines were answered", client.lines.len()));
    }
    if client.new_connection_us.is_none() {
        found.push("no further connection could be made".to_owned());
    }
    found.into_iter().map(|what| Violation::new(Kind::Session, what)).collect()
}

#[cfg(test)]
mod tests {
    use super::{Kind, in_memory, sessions, sides};
    use crate::guest_kit::service::Answer;
    use crate::prober::record::{Connection, Exchange, Loss, Numbers, Record};

    fn client() -> Record {
        let address = "10.0.0.1:7".parse().unwrap();
        let connection = Connection { ends: (address, address), opened_us: 0, lost: None };
        Record {
            lines: vec![Exchange { sent_us: 1, answered_us: Some(2), guest_us: Some(1) }],
            connections: vec![connection.clone()],
            disks: vec![Numbers { connections: vec![connection], heard: vec![] }],
            new_connection_us: Some(9),
            ..Record::default()
        }
    }

    fn told(client: &Record) -> Vec<String> {
        sessions(client).into_iter().map(|violation| violation.what).collect()
    }

    #[test]
    fn sessions_that_lived_are_fine() {
        assert_eq!(told(&client()), [""; 0]);
    }

    #[test]
    fn a_reset_session_is_found_also_when_the_next_one_worked() {
        let mut one = client();
        let lost = Some(Loss { at_us: 5, was_reset: true, why: "reset by peer".into() });
        let fresh = one.connections[0].clone();
        one.connections[0].lost = lost.clone();
        one.connections.push(fresh);
        assert_eq!(told(&one), ["echo: reset at 5 us: reset by peer"]);
        let mut other = client();
        other.disks[0].connections[0].lost = lost;
        assert_eq!(told(&other), ["writer of disk 0: reset at 5 us: reset by peer"]);
    }

    #[test]
    fn a_lost_line_no_line_and_no_new_connection_are_found() {
        let mut record = client();
        record.lines.push(Exchange { sent_us: 3, answered_us: None, guest_us: None });
        record.new_connection_us = None;
        assert_eq!(
            told(&record),
            ["echo: 1 of 2 lines were answered", "no further connection could be made"]
        );
        record.lines.clear();
        assert!(told(&record)[0].contains("0 of 0"));
        assert_eq!(told(&Record::default())[0], "echo: never came about");
    }

    #[test]
    fn exactly_the_right_side_runs() {
        assert_eq!(sides(&["b"], "b"), None);
        for wrong in [&[][..], &["a"], &["a", "b"], &["b", "b"]] {
            assert_eq!(sides(wrong, "b").expect("it is wrong").kind, Kind::Sides, "{wrong:?}");
        }
    }

    #[test]
    fn a_broken_page_and_a_pattern_that_was_never_laid_are_found() {
        let of = |line: &str| in_memory(&Answer::parse(line));
        assert_eq!(of("ok pages=4096 versions=12"), None);
        for wrong in ["bad page=7 version=3: torn", "ok pages=0 versions=0", "error what", ""] {
            assert_eq!(of(wrong).expect("it is wrong").kind, Kind::Memory, "{wrong:?}");
        }
    }
}
