//! The oracle finds what it is there for. Every test begins with evidence that it accepts, and breaks one thing.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::PathBuf;

use tests::guest_kit::service::Answer;
use tests::numbered::{BLOCK_BYTES, slot_of, stamp};
use tests::oracle::image::{self, Holds, WrittenDisk};
use tests::oracle::{Evidence, Kind, violations};
use tests::prober::record::{Connection, Exchange, Numbers, Record};
use tests::program::Tool;
use tests::require;
use tests::requires::{Missing, programs};
use tests::scratch::Scratch;

const SLOTS: u64 = 64;

/// More than the slots: some were overwritten.
const WRITTEN: u64 = 100;

/// A move that went well.
struct Case {
    scratch: Scratch,
    root: PathBuf,
    second: PathBuf,
    client: Record,
    memory: Answer,
}

impl Case {
    fn new() -> Result<Self, Missing> {
        programs(&["mke2fs", "e2fsck", "debugfs", "setpriv"])?;
        let scratch = Scratch::new();
        let (root, second) = (scratch.join("root.raw"), scratch.join("second.raw"));
        let tree = scratch.join("tree");
        fs::create_dir_all(tree.join("data")).expect("make a tree");
        for file in [&tree.join("data/w"), &second] {
            let file = File::create(file).expect("make a file");
            let mut block = vec![0; BLOCK_BYTES];
            for number in 1..=WRITTEN {
                stamp(&mut block, number);
                file.write_all_at(&block, slot_of(number, SLOTS) * BLOCK_BYTES as u64).expect("write");
            }
        }
        Tool::new("mke2fs")
            .args(["-q", "-t", "ext4", "-b", "4096", "-d"])
            .arg(&tree)
            .arg(&root)
            .arg("16M")
            .run();
        let memory = Answer::parse("ok pages=4096 versions=12");
        Ok(Self { scratch, root, second, client: client(), memory })
    }

    fn kinds(&self) -> Vec<Kind> {
        self.kinds_where(&["b"], &[])
    }

    fn kinds_where(&self, running: &[&str], identical: &[(PathBuf, PathBuf)]) -> Vec<Kind> {
        let disk = |image: &PathBuf, holds| WrittenDisk {
            image: image.clone(),
            holds,
            slots: SLOTS,
            most: Some(WRITTEN),
        };
        let evidence = Evidence {
            disks: vec![disk(&self.root, Holds::FileSystem), disk(&self.second, Holds::Numbers)],
            identical: identical.to_vec(),
            memory: Some(&self.memory),
            running: running.to_vec(),
            expected: "b",
            client: &self.client,
        };
        violations(&evidence, self.scratch.path()).into_iter().map(|violation| violation.kind).collect()
    }

    /// Overwrite the place of the block `number` in an image.
    fn overwrite(&self, image: &PathBuf, number: u64, bytes: &[u8]) {
        let at = image::find(image, number).expect("the block is there");
        let file = File::options().write(true).open(image).expect("open an image");
        file.write_all_at(bytes, at).expect("break an image");
    }
}

fn client() -> Record {
    let address = "10.0.0.1:7".parse().expect("an address");
    let connection = Connection { ends: (address, address), opened_us: 0, lost: None };
    let mut numbers = Numbers { connections: vec![connection.clone()], heard: vec![] };
    (1..=WRITTEN).for_each(|number| numbers.hear(number, number));
    Record {
        lines: vec![Exchange { sent_us: 1, answered_us: Some(2), guest_us: Some(1) }],
        connections: vec![connection],
        disks: vec![numbers.clone(), numbers],
        new_connection_us: Some(9),
        ..Record::default()
    }
}

#[test]
fn a_move_that_went_well_passes() {
    let case = require!(Case::new());
    assert_eq!(case.kinds(), []);
    assert_eq!(case.kinds_where(&["b"], &[(case.root.clone(), case.root.clone())]), []);
}

#[test]
fn one_acknowledged_write_that_is_lost_is_found_on_either_disk() {
    for number in [WRITTEN, WRITTEN - SLOTS + 1] {
        let case = require!(Case::new());
        case.overwrite(&case.root, number, &[0; BLOCK_BYTES]);
        assert_eq!(case.kinds(), [Kind::Block], "{number}");
        case.overwrite(&case.second, number, &[0; BLOCK_BYTES]);
        assert_eq!(case.kinds(), [Kind::Block, Kind::Block], "{number}");
    }
}

#[test]
fn a_block_that_went_back_to_an_older_version_is_found() {
    let case = require!(Case::new());
    let mut older = vec![0; BLOCK_BYTES];
    stamp(&mut older, 90 - SLOTS);
    case.overwrite(&case.root, 90, &older);
    assert_eq!(case.kinds(), [Kind::Block]);
}

#[test]
fn a_torn_block_is_found() {
    let case = require!(Case::new());
    case.overwrite(&case.root, 90, &[0; BLOCK_BYTES / 8]);
    let kinds = case.kinds();
    assert!(!kinds.is_empty() && kinds.iter().all(|kind| *kind == Kind::Block), "{kinds:?}");
}

#[test]
fn a_lost_write_is_found_when_the_client_has_not_heard_of_it_but_of_a_later_one_on_the_disk() {
    let mut case = require!(Case::new());
    for numbers in &mut case.client.disks {
        numbers.heard.retain(|heard| heard.last <= 80);
    }
    assert_eq!(case.kinds(), []);
    case.overwrite(&case.root, 90, &[0; BLOCK_BYTES]);
    assert_eq!(case.kinds(), [Kind::Block]);
}

#[test]
fn a_file_system_that_its_journal_cannot_mend_is_found() {
    let case = require!(Case::new());
    // A directory entry without an inode: no power cut leaves that.
    Tool::new("debugfs").args(["-w", "-R", "clri /data"]).arg(&case.root).run();
    assert_eq!(case.kinds(), [Kind::FileSystem]);
}

#[test]
fn two_sides_none_and_the_wrong_one_are_found() {
    let case = require!(Case::new());
    for running in [&["a", "b"][..], &[], &["a"]] {
        assert_eq!(case.kinds_where(running, &[]), [Kind::Sides], "{running:?}");
    }
}

#[test]
fn images_that_differ_in_one_byte_are_found() {
    let case = require!(Case::new());
    let other = case.scratch.join("other.raw");
    fs::copy(&case.second, &other).expect("copy an image");
    let pair = [(case.second.clone(), other.clone())];
    assert_eq!(case.kinds_where(&["b"], &pair), []);
    case.overwrite(&other, WRITTEN, b"n");
    assert_eq!(case.kinds_where(&["b"], &pair), [Kind::Image]);
}

#[test]
fn a_broken_page_a_reset_session_and_a_number_that_came_twice_are_found_together() {
    let mut case = require!(Case::new());
    case.memory = Answer::parse("bad page=7 version=3: torn");
    case.client.disks[0].hear(101, WRITTEN);
    let lost = tests::prober::record::Loss { at_us: 5, was_reset: true, why: "reset".into() };
    case.client.connections[0].lost = Some(lost);
    assert_eq!(case.kinds(), [Kind::Order, Kind::Memory, Kind::Session]);
}

#[test]
fn evidence_of_nothing_does_not_pass() {
    let mut case = require!(Case::new());
    case.client = Record::default();
    let kinds = case.kinds();
    assert!(kinds.contains(&Kind::Order) && kinds.contains(&Kind::Session), "{kinds:?}");
}
