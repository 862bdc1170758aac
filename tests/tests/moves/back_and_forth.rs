//! A guest that moves to and fro under load: its sessions live, and neither host keeps anything of it but what it needs.

use std::env;
use std::fs;
use std::path::PathBuf;

use tests::guest_kit::Recipe;
use tests::hosts::Hosts;
use tests::hosts::resident::{Resident, Work};
use tests::require;
use tests::wait::{PATIENCE, found_within};
use tests::wan::End;
use tests::world::Plan;

use crate::cuts::insist_on_one_attempt;
use crate::insist_on_its_own_bytes;

/// Moves before the first look: whatever is made once is made by then.
const WARM_UP: usize = 4;

/// What a daemon's memory may grow by in all the moves after the first look.
const GROWTH_KIB_MAX: u64 = 64 << 10;

/// What a daemon holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Held {
    files: usize,
    resident_kib: u64,
}

fn held(hosts: &mut Hosts, end: End) -> Held {
    let process = PathBuf::from(format!("/proc/{}", hosts.daemon(end).pid()));
    let files = fs::read_dir(process.join("fd")).expect("list a daemon's files").count();
    let status = fs::read_to_string(process.join("status")).expect("read a daemon's status");
    let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:")?.trim().strip_suffix(" kB"));
    Held { files, resident_kib: resident.expect("a process has memory").trim().parse().expect("a number") }
}

/// What of a host's traces counts things and does not name them: tunnels have another number in each move.
fn counts(hosts: &Hosts, end: End) -> (usize, usize, usize) {
    let traces = hosts.traces(end);
    let of = |kind: &str| traces.iter().filter(|trace| trace.starts_with(kind)).count();
    (of("process: "), of("network: "), of("image: "))
}

fn moves_to_and_fro(count: usize) -> Result<(), tests::requires::Missing> {
    let mut hosts = Hosts::new(Plan::default())?;
    let resident = Resident::start(&hosts, &Recipe::default(), Work::default())?;
    let prober = resident.watch(&hosts);
    let mut first_look = None;
    for number in 1..=count {
        let (from, to) = if number % 2 == 1 { (End::SiteA, "site-b") } else { (End::SiteB, "site-a") };
        let report = hosts.send(from, &["--wan", "web", to]).end().moved();
        let there = if from == End::SiteA { End::SiteB } else { End::SiteA };
        let listed = hosts.migrated(there, &["list"]).run();
        assert!(!listed.contains("arriving"), "its new host has let go of it: {listed}");
        insist_on_its_own_bytes(&report);
        insist_on_one_attempt(&report);
        prober.wait_for_answers(5);
        if number < WARM_UP || number % 2 == 1 {
            continue;
        }
        let now = [End::SiteA, End::SiteB].map(|end| (counts(&hosts, end), held(&mut hosts, end)));
        println!("after {number} moves: {now:?}");
        let Some(first) = first_look else {
            first_look = Some(now);
            continue;
        };
        // What is being ended may take a moment.
        let mut left = String::new();
        let is_as_before = found_within(PATIENCE, || {
            let now = [End::SiteA, End::SiteB].map(|end| (counts(&hosts, end), held(&mut hosts, end)));
            left = format!("{now:?} after {number} moves, {first:?} after {WARM_UP}");
            let same = first.iter().zip(&now).all(|((before, kept), (counts, held))| {
                let grown_kib = held.resident_kib.saturating_sub(kept.resident_kib);
                before == counts && held.files <= kept.files && grown_kib <= GROWTH_KIB_MAX
            });
            same.then_some(())
        });
        assert!(is_as_before.is_some(), "something is left: {left}");
    }
    assert_eq!(hosts.states("web"), ["running", "moved"]);
    resident.judge(&hosts, End::SiteA, prober);
    Ok(())
}

/// S0-02: nothing is lost, and no move needs a second attempt; no process, socket, tunnel, rule or file is left, and no memory grows.
pub fn a_guest_that_moves_to_and_fro_leaves_nothing_behind_and_loses_nothing() {
    require!(moves_to_and_fro(6));
}

/// S0-05, five times over; `MOVES=n` for another number.
pub fn soak_a_guest_moves_to_and_fro_two_hundred_times() {
    let count = env::var("MOVES").map_or(200, |moves| moves.parse().expect("MOVES is a whole number"));
    require!(moves_to_and_fro(count));
}
