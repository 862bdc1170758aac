//! Wall clocks of both hosts are set by days, forward and back, while a guest moves: nothing of the move cares (M9).
//! Leases, deadlines, heartbeats and what a report measures run by monotonic clocks.

use std::time::Instant;

use migrated::phase::Phase;
use tests::guest_kit::Recipe;
use tests::hosts::Hosts;
use tests::hosts::resident::{Resident, Work};
use tests::hosts::settings::Settings;
use tests::require;
use tests::wan::{End, WanProfile};

use crate::in_doubt::journal;
use crate::restarts::{restart, wait_until};
use crate::{memory_at_once, over};

/// How far, in hours, the wall clock went at most between two records of a host's journal, forward or back.
fn went_h(hosts: &Hosts, end: End) -> u64 {
    let records = journal(hosts, end);
    let went_ms = records.windows(2).map(|pair| pair[0].unix_ms.abs_diff(pair[1].unix_ms));
    went_ms.max().unwrap_or(0) / 3_600_000
}

pub fn wall_clocks_that_are_set_forward_and_back_are_nothing_to_a_move() {
    let settings = Settings { own_clocks: true, ..memory_at_once() };
    let mut hosts = require!(Hosts::with(over(WanProfile::lan100()), &settings));
    let resident = require!(Resident::start(&hosts, &Recipe::default(), Work::default()));
    let prober = resident.watch(&hosts);
    let begun = Instant::now();
    let id = hosts.send_detached(End::SiteA, &["--wan", "--bandwidth", "1500kB", "web", "site-b"]);
    wait_until(&hosts, &id, "the copy", |status| status.phase >= Phase::Bulk);
    hosts.step_clock(End::SiteA, 30);
    hosts.step_clock(End::SiteB, -50);
    let before = wait_until(&hosts, &id, "memory", |status| status.ram.raw_bytes > 1 << 20);
    hosts.step_clock(End::SiteA, -200);
    hosts.step_clock(End::SiteB, 400);
    wait_until(&hosts, &id, "more memory", |status| status.ram.raw_bytes > before.ram.raw_bytes + (1 << 20));
    // The next daemon finds a journal that was written by a clock days ahead of its own.
    restart(&mut hosts, End::SiteA);
    wait_until(&hosts, &id, "another attempt", |status| status.phase == Phase::PreCopy);
    hosts.migrated(End::SiteA, &["set", &id, "bandwidth=none"]).run();
    hosts.wait_for_event(End::SiteA, "the guest is paused");
    hosts.step_clock(End::SiteA, 1000);
    hosts.step_clock(End::SiteB, -1000);
    let ended = wait_until(&hosts, &id, "the end", |status| status.outcome.is_some());
    let took_ms = begun.elapsed().as_millis() as u64;

    let report = ended.report.expect("a move that has ended has a report");
    let phases_ms: u64 = report.phases.iter().map(|(_, ms)| ms).sum();
    assert!(report.total_ms <= took_ms && phases_ms <= took_ms, "{} in {took_ms} ms", report.total_ms);
    assert!(report.downtime_ms.is_some_and(|ms| ms < report.total_ms), "{:?}", report.downtime_ms);
    assert!(report.events.is_sorted_by_key(|(at_ms, _)| *at_ms), "{:?}", report.events);
    // Not in vain: the clocks by which the journals were dated did go so.
    let went_h = [End::SiteA, End::SiteB].map(|end| went_h(&hosts, end));
    assert!(went_h[0] > 150 && went_h[1] > 300, "{went_h:?}");
    assert_eq!(hosts.states("web"), ["moved", "running"]);
    prober.wait_for_answers(20);
    resident.judge(&hosts, End::SiteB, prober);
}
