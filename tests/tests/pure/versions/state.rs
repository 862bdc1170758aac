//! What a host keeps below its `state_dir`.

use std::fs;
use std::path::Path;

use migrated::io::destination::KeptArrival;
use migrated::io::journal_file::JournalFile;
use migrated::io::keys::PeerStore;
use migrated::io::registry::{Folder, Guests, Migrations};
use migrated::io::site::KeptPaths;
use migrated::io::source::Departure;
use migrated::journal::{Record, Step, decode, encode};
use migrated::phase::{Op, Outcome, Phase};
use migrated::report::Undone;
use serde::de::DeserializeOwned;
use tests::scratch::Scratch;
use tunnel::record::Record as TunnelRecord;

use super::values::state;
use super::{assert_covered, fixture, kinds, text};

/// Programs write into a `state_dir`.
fn copy(scratch: &Scratch) -> std::path::PathBuf {
    let to = scratch.join("state");
    copy_folder(&fixture("state"), &to);
    to
}

fn copy_folder(from: &Path, to: &Path) {
    fs::create_dir(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        let to = to.join(path.file_name().unwrap());
        if path.is_dir() { copy_folder(&path, &to) } else { fs::copy(&path, &to).map(drop).unwrap() }
    }
}

/// All that a folder keeps, in the order of `key`.
fn kept<T: DeserializeOwned>(folder: &Path, key: impl Fn(&T) -> String) -> Vec<T> {
    let mut kept: Vec<T> = Folder::open(folder.to_owned()).unwrap().load().unwrap();
    kept.sort_by_key(key);
    kept
}

#[test]
fn a_journal_of_0_1_0_is_read_and_gone_on_with() {
    let scratch = Scratch::new();
    let state = copy(&scratch);
    let journal = JournalFile::open(&state.join("journal")).unwrap();
    assert_eq!(journal.records(), state::journal());
    // What is written today 0.1.0 can read.
    let today: Vec<u8> = state::journal().iter().flat_map(encode).collect();
    assert_eq!(String::from_utf8(today).unwrap(), text("state/journal"));

    let torn = scratch.join("torn");
    fs::copy(fixture("journal-torn"), &torn).unwrap();
    let before = &state::journal()[..11];
    assert_eq!(decode(&fs::read(&torn).unwrap()).unwrap().0, before);
    let journal = JournalFile::open(&torn).unwrap();
    assert_eq!(journal.records(), before);
    let again = state::journal()[11].clone();
    journal.promise(again.subject(), again.step).unwrap();
    drop(journal);
    // But for the time of its last record it is the one that was not torn.
    let (gone_on, whole) = decode(&fs::read(&torn).unwrap()).unwrap();
    assert_eq!(whole as u64, fs::metadata(&torn).unwrap().len());
    let unix_ms = again.unix_ms;
    assert_eq!(gone_on[..11], *before);
    assert_eq!(Record { unix_ms, ..gone_on[11].clone() }, again);
}

#[test]
fn the_guests_of_0_1_0_and_where_they_went_are_known() {
    let scratch = Scratch::new();
    let state = copy(&scratch);
    let guests = Guests::<()>::load(&state).unwrap().list();
    let records: Vec<_> = guests.into_iter().map(|known| known.record).collect();
    assert_eq!(records, state::guests());
    assert_eq!(PeerStore::load(&state).unwrap().all(), state::peers());
    let [paths] = &kept::<KeptPaths>(&state.join("paths"), |paths| paths.guest.clone())[..] else {
        panic!("one guest has moved")
    };
    assert_eq!(paths, &state::paths());
    let tunnel = TunnelRecord::parse(paths.tunnels[0].number, &paths.tunnels[0].tunnel).unwrap();
    assert_eq!((tunnel.moved, tunnel.side), (state::moved_by(), tunnel::transfer::Side::Destination));
}

#[test]
fn the_moves_that_0_1_0_began_are_gone_on_with() {
    let scratch = Scratch::new();
    let state = copy(&scratch);
    let departures = kept::<Departure>(&state.join("departures"), |departure| departure.migration.clone());
    assert_eq!(departures, state::departures());
    let arrivals = kept::<KeptArrival>(&state.join("arrivals"), |arrival| arrival.reserve.guest.name.clone());
    assert_eq!(arrivals, state::arrivals());
}

#[test]
fn the_reports_of_0_1_0_are_shown() {
    let scratch = Scratch::new();
    let migrations = Migrations::load(&copy(&scratch)).unwrap();
    assert_eq!(migrations.list().len(), state::reports().len());
    for report in state::reports() {
        assert_eq!(migrations.find(&report.id).unwrap().report, Some(report));
    }
}

#[test]
fn every_step_and_every_word_of_a_report_has_a_fixture_or_is_newer() {
    let reports: String =
        state::reports().iter().map(|report| text(&format!("state/reports/{}.json", report.id))).collect();
    let journal = text("state/journal");
    let is_in = |text: &str, word: &str| text.contains(&format!("\"{word}\""));
    assert_covered("step", kinds::<Step>("?".into()), |word| is_in(&journal, word));
    assert_covered("phase", kinds::<Phase>("?".into()), |word| is_in(&reports, word));
    assert_covered("outcome", kinds::<Outcome>("?".into()), |word| is_in(&reports, word));
    assert_covered("undone", kinds::<Undone>("?".into()), |word| is_in(&reports, word));
    assert_covered("operation", kinds::<Op>("?".into()), |word| is_in(&reports, word));
}
