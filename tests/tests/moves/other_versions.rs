//! Hosts of different versions: what 0.1.0 sends arrives here, and the other way round.

use tests::guest_kit::Recipe;
use tests::hosts::Hosts;
use tests::hosts::resident::{Resident, Work};
use tests::hosts::settings::Settings;
use tests::older::V0_1_0;
use tests::require;
use tests::wan::{End, WanProfile};
use tests::world::Plan;

use crate::{MAIN_JOB, over};

/// The version that a host finds at the other.
fn version_found(hosts: &Hosts, at: End) -> String {
    let found = hosts.ask(at, &["hosts"]);
    found[0]["version"].as_str().unwrap_or_else(|| panic!("{found}")).to_owned()
}

/// From site A to site B and home again, each time over the same sessions of its users.
fn there_and_back(hosts: &Hosts, prober: &tests::prober::Prober) {
    hosts.send(End::SiteA, &MAIN_JOB).end().moved();
    assert_eq!(hosts.states("web"), ["moved", "running"]);
    prober.wait_for_answers(10);
    hosts.send(End::SiteB, &["--wan", "web", "site-a"]).end().moved();
    assert_eq!(hosts.states("web"), ["running", "moved"]);
    prober.wait_for_answers(10);
}

/// Twice, so that each version pairs, sends and receives as each of the hosts; then the guest runs on while its host gets
/// today's program, whose daemon finds what the earlier one has written and its processes, and moves it once more.
pub fn soak_a_guest_moves_to_and_from_a_host_of_0_1_0_in_both_roles_and_stays_when_that_is_upgraded() {
    let programs = require!(V0_1_0.programs());
    for old in [End::SiteB, End::SiteA] {
        let settings = Settings { older: Some((old, programs.clone())), ..Settings::default() };
        let plan: Plan = over(WanProfile::wan20());
        let mut hosts = require!(Hosts::with(plan, &settings));
        let new = if old == End::SiteA { End::SiteB } else { End::SiteA };
        assert_eq!(version_found(&hosts, new), V0_1_0.number);
        assert_eq!(version_found(&hosts, old), env!("CARGO_PKG_VERSION"));
        let resident = require!(Resident::start(&hosts, &Recipe::default(), Work::default()));
        let prober = resident.watch(&hosts);
        there_and_back(&hosts, &prober);
        hosts.upgrade();
        assert_eq!(version_found(&hosts, new), env!("CARGO_PKG_VERSION"));
        assert_eq!(hosts.states("web"), ["running", "moved"]);
        prober.wait_for_answers(10);
        there_and_back(&hosts, &prober);
        resident.judge(&hosts, End::SiteA, prober);
    }
}
