//! Something at the destination dies before it has the guest: the guest runs on at the source, and the reason is named.

use migrated::phase::{Outcome, Phase};
use nix::sys::signal::Signal;
use tests::guest_kit::Recipe;
use tests::hosts::Hosts;
use tests::hosts::resident::{Resident, Work};
use tests::program::signal;
use tests::require;
use tests::wan::End;
use tests::world::Plan;

use crate::{MAIN_JOB, SLOWLY, memory_at_once};

#[test]
fn when_the_destinations_qemu_dies_the_guest_runs_on_and_the_next_attempt_moves_it() {
    let hosts = require!(Hosts::with(Plan::default(), &memory_at_once()));
    let resident = require!(Resident::start(&hosts, &Recipe::default(), Work::default()));
    let prober = resident.watch(&hosts);
    let before = hosts.traces(End::SiteB);

    let sending = hosts.send(End::SiteA, &[&MAIN_JOB[..], &SLOWLY].concat());
    sending.wait_for(Phase::PreCopy);
    let [qemu] = hosts.processes(End::SiteB, "qemu-system-x86_64")[..] else {
        panic!("one QEMU waits there")
    };
    signal(qemu, Signal::SIGKILL);
    let reasons = sending.end().stayed(Outcome::RolledBack).reasons.join("\n");
    assert!(reasons.contains("QEMU"), "{reasons}");
    assert_eq!(hosts.states("web"), ["running", ""]);
    hosts.wait_until_clean(End::SiteB, &before, true);
    prober.wait_for_answers(10);

    hosts.send(End::SiteA, &MAIN_JOB).end().moved();
    resident.judge(&hosts, End::SiteB, prober);
}
