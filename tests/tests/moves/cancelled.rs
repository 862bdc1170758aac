//! Cancel, in every phase that lets itself be cancelled (M5): the guest runs on, and nothing of it is left where it was
//! on its way to (S0-36).

use std::fs;

use migrated::phase::{Outcome, Phase};
use migrated::report::Undone;
use tests::guest_kit::Recipe;
use tests::hosts::Hosts;
use tests::hosts::resident::{Resident, Work};
use tests::hosts::settings::Settings;
use tests::prober::Prober;
use tests::require;
use tests::wait::{PATIENCE, wait_until};
use tests::wan::End;
use tests::world::Plan;

use crate::{MAIN_JOB, SLOWLY, memory_at_once};

/// Room for this guest once: what a cancelled move does not give back, the next one lacks.
const ROOM_FOR_ONE: &str = "memory_mib = 200";

fn cancel_in(hosts: &Hosts, phase: Phase, before: &[String], prober: &Prober) {
    println!("cancel in {}", phase.name());
    let sending = hosts.send(End::SiteA, &[&MAIN_JOB[..], &SLOWLY].concat());
    sending.wait_for(phase);
    assert_eq!(hosts.states("web")[0], "migrating");
    hosts.migrated(End::SiteA, &["cancel", "web"]).run();
    let report = sending.end().stayed(Outcome::Cancelled);
    assert!(report.phases.iter().any(|(entered, _)| *entered == phase), "{:?}", report.phases);
    assert!(report.reasons.iter().any(|reason| reason.contains("cancelled")), "{:?}", report.reasons);
    let abort = report.abort.as_ref().expect("S0-48: it has not moved");
    assert_eq!((abort.phase, abort.operation), (phase, None));
    assert_eq!(abort.undone.contains(&Undone::MemoryGivenUp), phase == Phase::PreCopy, "{abort:?}");
    assert_eq!(hosts.states("web"), ["running", ""]);
    // Once memory goes, the destination hears of the broken stream first, and keeps its copies for another attempt.
    hosts.wait_until_clean(End::SiteB, before, phase != Phase::Bulk);
    assert_eq!(hosts.tunnels(End::SiteA), [] as [String; 0]);
    prober.wait_for_answers(10);
}

pub fn a_move_is_cancelled_in_each_phase_and_the_guest_runs_on_until_one_is_not() {
    let settings = Settings { limits_b: ROOM_FOR_ONE.to_owned(), ..Settings::default() };
    let hosts = require!(Hosts::with(Plan::default(), &settings));
    let resident = require!(Resident::start(&hosts, &Recipe::default(), Work::default()));
    let prober = resident.watch(&hosts);
    let before = hosts.traces(End::SiteB);

    // In whatever phase it is when it has just begun.
    let id = &*hosts.send_detached(End::SiteA, &MAIN_JOB);
    hosts.migrated(End::SiteA, &["cancel", id]).run();
    let watched = hosts.migrated(End::SiteA, &["status", id, "--watch"]).output();
    assert_eq!(watched.status.code(), Some(1), "{watched:?}");
    assert_eq!(hosts.states("web"), ["running", ""]);
    hosts.wait_until_clean(End::SiteB, &before, false);

    cancel_in(&hosts, Phase::Bulk, &before, &prober);
    hosts.send(End::SiteA, &MAIN_JOB).end().moved();
    assert_eq!(hosts.states("web"), ["moved", "running"]);
    // Too late, and said so.
    let late = hosts.migrated(End::SiteA, &["cancel", "web"]).refused();
    assert!(late.contains("has ended"), "{late}");
    prober.wait_for_answers(20);
    resident.judge(&hosts, End::SiteB, prober);
}

pub fn a_move_is_cancelled_while_memory_goes_and_the_guest_runs_on_until_one_is_not() {
    let mut settings = memory_at_once();
    settings.limits_b = ROOM_FOR_ONE.to_owned();
    let hosts = require!(Hosts::with(Plan::default(), &settings));
    let resident = require!(Resident::start(&hosts, &Recipe::default(), Work::default()));
    let prober = resident.watch(&hosts);
    let before = hosts.traces(End::SiteB);
    cancel_in(&hosts, Phase::PreCopy, &before, &prober);
    hosts.send(End::SiteA, &MAIN_JOB).end().moved();
    assert_eq!(hosts.states("web"), ["moved", "running"]);
    prober.wait_for_answers(20);
    resident.judge(&hosts, End::SiteB, prober);
}

/// A QEMU that begins when it may.
const PATIENT_QEMU: &str = "#!/bin/sh\ncase \"$*\" in *-incoming*) while [ ! -e /site/go ]; do sleep 0.1; done;; esac\n\
     exec qemu-system-x86_64 \"$@\"\n";

/// The destination is in the middle of starting what receives: it hears of the cancel when it has done so.
pub fn a_move_is_cancelled_while_the_destination_reserves_and_what_it_starts_ends_again() {
    let settings = Settings {
        limits_b: ROOM_FOR_ONE.to_owned(),
        qemu_b: Some("/site/qemu".to_owned()),
        ..Settings::default()
    };
    let hosts = require!(Hosts::with(Plan::default(), &settings));
    let site = hosts.site(End::SiteB);
    site.place_program("qemu", PATIENT_QEMU);
    let resident = require!(Resident::start(&hosts, &Recipe::default(), Work::default()));
    let prober = resident.watch(&hosts);
    let before = hosts.traces(End::SiteB);
    let sending = hosts.send(End::SiteA, &MAIN_JOB);
    sending.wait_for(Phase::Reservation);
    wait_until(PATIENCE, "the destination to begin", || !hosts.processes(End::SiteB, "blockd").is_empty());
    hosts.migrated(End::SiteA, &["cancel", "web"]).run();
    let report = sending.end().stayed(Outcome::Cancelled);
    assert!(report.phases.iter().all(|(entered, _)| *entered != Phase::Bulk), "{:?}", report.phases);
    assert_eq!(hosts.state(End::SiteA, "web"), "running");
    prober.wait_for_answers(10);
    fs::write(site.join("go"), "").expect("let it begin");
    hosts.wait_until_clean(End::SiteB, &before, true);
    hosts.send(End::SiteA, &MAIN_JOB).end().moved();
    prober.wait_for_answers(20);
    resident.judge(&hosts, End::SiteB, prober);
}
