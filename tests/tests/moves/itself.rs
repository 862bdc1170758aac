//! The guest ends or restarts itself while its memory goes: the outcomes that `docs/migration.md` promises.

use migrated::phase::{Outcome, Phase};
use tests::guest_kit::Recipe;
use tests::hosts::Hosts;
use tests::hosts::resident::{Resident, Work};
use tests::require;
use tests::wait::{PATIENCE, wait_until};
use tests::wan::End;
use tests::world::Plan;

use crate::{MAIN_JOB, SLOWLY, memory_at_once};

pub fn a_guest_that_restarts_itself_moves_and_one_that_switches_itself_off_is_off_where_it_was() {
    let hosts = require!(Hosts::with(Plan::default(), &memory_at_once()));
    let resident = require!(Resident::start(&hosts, &Recipe::default(), Work::default()));
    // Slow enough that it has not gone before it restarts.
    let sending = hosts.send(End::SiteA, &[&MAIN_JOB[..], &["--bandwidth", "2MB"]].concat());
    sending.wait_for(Phase::PreCopy);
    resident.service.ask("reboot");
    let report = sending.end().moved();
    assert!(report.events.iter().any(|(_, what)| what.contains("restarted itself")), "{:?}", report.events);
    assert_eq!(hosts.states("web"), ["moved", "running"]);
    // Its programs have begun anew.
    resident.service.wait_until_it_answers();
    resident.service.ask("writer disk=a rate=50 slots=1024");

    let before = hosts.traces(End::SiteA);
    let sending = hosts.send(End::SiteB, &["--wan", "web", "site-a", SLOWLY[0], SLOWLY[1]]);
    sending.wait_for(Phase::PreCopy);
    resident.service.ask("poweroff");
    let reasons = sending.end().stayed(Outcome::RolledBack).reasons.join("\n");
    // Which of the two is known first is chance.
    let is_named =
        ["QEMU has ended", "the guest has shut itself down"].iter().any(|why| reasons.contains(why));
    assert!(is_named, "{reasons}");
    wait_until(PATIENCE, "the guest to be off", || hosts.states("web") == ["moved", "stopped"]);
    hosts.wait_until_clean(End::SiteA, &before, true);
    assert!(hosts.processes(End::SiteB, "qemu-system-x86_64").is_empty());
}
