//! Something at the destination dies before it has the guest: the guest runs on at the source, and the reason is named.

use migrated::phase::{Outcome, Phase};
use migrated::report::Undone;
use nix::sys::signal::Signal;
use tests::guest_kit::Recipe;
use tests::hosts::Hosts;
use tests::hosts::resident::{Resident, Work};
use tests::program::signal;
use tests::require;
use tests::wan::End;
use tests::world::Plan;

use crate::{MAIN_JOB, SLOWLY, memory_at_once};

pub fn when_the_destinations_qemu_dies_the_guest_runs_on_and_the_next_attempt_moves_it() {
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
    let report = sending.end().stayed(Outcome::RolledBack);
    let reasons = report.reasons.join("\n");
    assert!(reasons.contains("QEMU"), "{reasons}");
    // S0-48: what was undone, at each side.
    let abort = report.abort.expect("it has not moved");
    assert_eq!(abort.phase, Phase::PreCopy);
    // Its own migration QEMU may have given up by itself.
    for undone in [Undone::DestinationTold, Undone::RecordingEnded, Undone::TunnelsRemoved] {
        assert!(abort.undone.contains(&undone), "{abort:?}");
    }
    let there = hosts.ask(End::SiteB, &["status", &report.id]);
    let there = &there[0]["report"]["abort"];
    // In which phase, it knows from the source's word, once a second.
    assert!(there["causes"][0]["text"].as_str().is_some_and(|why| why.contains("QEMU")), "{there}");
    for undone in ["processes-ended", "tunnels-removed", "copies-kept", "reservation-released"] {
        assert!(there["undone"].as_array().is_some_and(|all| all.contains(&undone.into())), "{there}");
    }
    assert_eq!(hosts.states("web"), ["running", ""]);
    hosts.wait_until_clean(End::SiteB, &before, true);
    prober.wait_for_answers(10);

    hosts.send(End::SiteA, &MAIN_JOB).end().moved();
    resident.judge(&hosts, End::SiteB, prober);
}
