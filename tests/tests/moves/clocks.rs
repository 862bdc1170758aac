//! Wall clocks of both hosts are set by hours, forward and back, while a guest moves: nothing of the move cares (M9).
//! Leases, deadlines, heartbeats and what the report measures run by monotonic clocks; what people read has the host's
//! wall clock.

use std::fs;
use std::time::Instant;

use migrated::journal::{Record, decode};
use migrated::phase::Phase;
use tests::guest_kit::Recipe;
use tests::hosts::Hosts;
use tests::hosts::resident::{Resident, Work};
use tests::hosts::settings::Settings;
use tests::require;
use tests::wan::{End, WanProfile};

use crate::restarts::{restart, wait_until};
use crate::{MAIN_JOB, over};

/// Every step is longer than all of these.
const LIMITS: &str = "ram_start_ms = 3600000\npaused_deadline_ms = 20000\nlease_ms = 30000";

fn journal(hosts: &Hosts, end: End) -> Vec<Record> {
    let bytes = fs::read(hosts.site(end).join("state/journal")).expect("a journal");
    decode(&bytes).expect("a journal is whole").0
}

/// The longest step between two records, in hours, forward and back.
fn steps(records: &[Record]) -> (i64, i64) {
    let hours = records.windows(2).map(|pair| (pair[1].unix_ms as i64 - pair[0].unix_ms as i64) / 3_600_000);
    (hours.clone().max().unwrap_or_default(), hours.min().unwrap_or_default())
}

#[test]
fn wall_clocks_that_are_set_forward_and_back_are_nothing_to_a_move() {
    let settings = Settings { migration: LIMITS.to_owned(), own_clocks: true, ..Settings::default() };
    let mut hosts = require!(Hosts::with(over(WanProfile::wan20()), &settings));
    let resident = require!(Resident::start(&hosts, &Recipe::default(), Work::default()));
    let prober = resident.watch(&hosts);
    let begun = Instant::now();
    let words = [&["send", "--detach", "--bandwidth", "1MB"], &MAIN_JOB[..]].concat();
    let answer = hosts.ask(End::SiteA, &words);
    let id = answer["migration"].as_str().expect("a move has a number").to_owned();
    wait_until(&hosts, &id, "the copy", |status| status.phase >= Phase::Bulk);
    hosts.step_clock(End::SiteA, 30);
    hosts.step_clock(End::SiteB, -50);
    let before = wait_until(&hosts, &id, "memory", |status| {
        status.phase == Phase::PreCopy && status.ram.raw_bytes > 1 << 20
    });
    hosts.step_clock(End::SiteA, -20);
    hosts.step_clock(End::SiteB, 40);
    wait_until(&hosts, &id, "more memory", |status| status.ram.raw_bytes > before.ram.raw_bytes + (1 << 20));
    // The next daemon finds a journal that was written by a clock far ahead of its own.
    restart(&mut hosts, End::SiteA);
    wait_until(&hosts, &id, "another attempt", |status| status.phase == Phase::PreCopy);
    hosts.migrated(End::SiteA, &["set", &id, "bandwidth=none"]).run();
    hosts.wait_for_event(End::SiteA, "the guest is paused");
    hosts.step_clock(End::SiteA, 70);
    hosts.step_clock(End::SiteB, -90);
    let ended = wait_until(&hosts, &id, "the end", |status| status.outcome.is_some());
    let took_ms = begun.elapsed().as_millis() as u64;

    let report = ended.report.expect("a move that has ended has a report");
    let phases_ms: u64 = report.phases.iter().map(|(_, ms)| ms).sum();
    assert!(report.total_ms <= took_ms && phases_ms <= took_ms, "{} in {took_ms} ms", report.total_ms);
    assert!(
        report.downtime_ms.is_some_and(|downtime| downtime < report.total_ms),
        "{:?}",
        report.downtime_ms
    );
    assert!(report.events.is_sorted_by_key(|(at_ms, _)| *at_ms), "{:?}", report.events);
    let (forward, back) = steps(&journal(&hosts, End::SiteA));
    assert!(forward > 50 || back < -10, "the source's clock was set: {forward} h, {back} h");
    let (_, back) = steps(&journal(&hosts, End::SiteB));
    assert!(back < -50, "the destination's clock was set: {back} h");
    assert_eq!(hosts.states("web"), ["moved", "running"]);
    prober.wait_for_answers(20);
    resident.judge(&hosts, End::SiteB, prober);
}
