//! QEMU is killed at either host, in each stretch of a handover: the guest is lost where it ran, and nowhere else; it
//! never runs twice.
//!
//! ```text
//!  source's QEMU       pre-copy, paused: off at the source     │ releasing: it moves
//!  destination's QEMU  (failures.rs)                           │ taken: handed back │ started: off at the destination
//! ```

use migrated::journal::Step;
use migrated::phase::{Outcome, Phase};
use nix::sys::signal::Signal;
use tests::guest_kit::Recipe;
use tests::hosts::Hosts;
use tests::hosts::resident::{Resident, Work};
use tests::program::signal;
use tests::require;
use tests::wait::{PATIENCE, wait_until};
use tests::wan::End;
use tests::world::Plan;

use crate::in_doubt::{hold_the_handover, promised};
use crate::paused::hold_the_pause;
use crate::{MAIN_JOB, SLOWLY, memory_at_once};

const BACK: [&str; 3] = ["--wan", "web", "site-a"];

/// Kill the guest's QEMU at a host, and wait until it is gone.
fn kill_qemu(hosts: &Hosts, end: End) {
    let [qemu] = hosts.processes(end, "qemu-system-x86_64")[..] else { panic!("one QEMU is there") };
    signal(qemu, Signal::SIGKILL);
    wait_until(PATIENCE, "QEMU to be gone", || hosts.processes(end, "qemu-system-x86_64").is_empty());
}

/// M8: between *taken* and *started* the source gets its guest back; from *started* on it does not, and never starts it.
pub fn a_guest_whose_qemu_dies_is_handed_back_before_it_was_started_and_off_at_its_new_host_after_that() {
    let hosts = require!(Hosts::with(Plan::default(), &memory_at_once()));
    let resident = require!(Resident::start(&hosts, &Recipe::default(), Work::default()));
    let prober = resident.watch(&hosts);
    let before = hosts.traces(End::SiteB);

    let start = hosts.hold(End::SiteB, "destination-start");
    let sending = hosts.send(End::SiteA, &MAIN_JOB);
    start.wait();
    assert_eq!(promised(&hosts, End::SiteB), Some(Step::Taken));
    kill_qemu(&hosts, End::SiteB);
    start.let_go();
    // Whoever stays with it hears first that it is in doubt.
    let id = sending.seen().pop().expect("it was shown").id;
    drop(sending.end());
    let ended = crate::restarts::wait_until(&hosts, &id, "the guest to be handed back", |status| {
        status.outcome == Some(Outcome::RolledBack)
    });
    let reasons = ended.reasons.join("\n");
    assert!(reasons.contains("QEMU"), "{reasons}");
    assert_eq!(promised(&hosts, End::SiteB), Some(Step::HandedBack));
    assert_eq!(hosts.states("web"), ["running", ""]);
    hosts.wait_until_clean(End::SiteB, &before, false);
    prober.wait_for_answers(20);

    let sending = hosts.send(End::SiteA, &MAIN_JOB);
    wait_until(PATIENCE, "the destination to start the guest", || {
        promised(&hosts, End::SiteB) == Some(Step::Started)
    });
    kill_qemu(&hosts, End::SiteB);
    let id = sending.seen().pop().expect("it was shown").id;
    drop(sending.end());
    crate::restarts::wait_until(&hosts, &id, "the move to be over", |status| {
        status.outcome == Some(Outcome::Moved)
    });
    wait_until(PATIENCE, "the guest to be off there", || hosts.states("web") == ["moved", "stopped"]);
    assert_eq!([End::SiteA, End::SiteB].map(|end| hosts.processes(end, "qemu-system-x86_64").len()), [0, 0]);
    let description = hosts.description(End::SiteB);
    let refused = hosts.migrated(End::SiteA, &["run", &description]).refused();
    assert!(refused.contains("site-b"), "{refused}");
    resident.judge_disks(&hosts, End::SiteB, prober);
    hosts.migrated(End::SiteB, &["run", &description]).run();
    resident.service.wait_until_it_answers();
}

/// The memory is lost with the source's QEMU, unless the destination has all of it and may have it.
pub fn a_guest_whose_qemu_dies_at_the_source_is_off_there_unless_it_was_handed_over() {
    let hosts = require!(Hosts::with(Plan::default(), &memory_at_once()));
    let resident = require!(Resident::start(&hosts, &Recipe::default(), Work::default()));
    let prober = resident.watch(&hosts);
    let handover = hold_the_handover(&hosts);
    let sending = hosts.send(End::SiteA, &MAIN_JOB);
    handover.wait();
    kill_qemu(&hosts, End::SiteA);
    handover.let_go();
    sending.end().moved();
    wait_until(PATIENCE, "both to say so", || hosts.states("web") == ["moved", "running"]);
    prober.wait_for_answers(20);
    resident.judge(&hosts, End::SiteB, prober);

    let description = hosts.description(End::SiteB);
    let before = hosts.traces(End::SiteA);
    for paused in [false, true] {
        hosts.migrated(End::SiteB, &["run", &description]).run();
        resident.service.wait_until_it_answers();
        let pause = paused.then(|| hold_the_pause(&hosts, End::SiteB));
        let words = if paused { BACK.to_vec() } else { [&BACK[..], &SLOWLY].concat() };
        let sending = hosts.send(End::SiteB, &words);
        match &pause {
            Some(pause) => pause.wait(),
            None => drop(sending.wait_for(Phase::PreCopy)),
        }
        kill_qemu(&hosts, End::SiteB);
        drop(pause);
        let reasons = sending.end().stayed(Outcome::RolledBack).reasons.join("\n");
        assert!(reasons.contains("QEMU has ended"), "{reasons}");
        wait_until(PATIENCE, "the guest to be off", || hosts.states("web") == ["moved", "stopped"]);
        hosts.wait_until_clean(End::SiteA, &before, true);
    }
}
