//! The main job (S4-01): disk, memory, address and session go over a WAN.

use tests::guest_kit::Recipe;
use tests::hosts::Hosts;
use tests::hosts::resident::{Resident, Work};
use tests::require;
use tests::wan::{End, WanProfile};
use tests::world::Plan;

fn plan(profile: WanProfile) -> Plan {
    Plan { profile: Some(profile), ..Plan::default() }
}

#[test]
fn a_guest_moves_over_a_fast_link_and_nobody_notices() {
    let hosts = require!(Hosts::new(plan(WanProfile::lan100())));
    let resident = require!(Resident::start(&hosts, &Recipe::default(), Work::default()));
    let prober = resident.watch(&hosts);
    let sent = hosts.migrated(End::SiteA, &["send", "--wan", "web", "site-b"]).run();
    println!("{sent}");
    assert_eq!(hosts.states("web"), ["moved", "running"]);
    prober.wait_for_answers(20);
    let figures = resident.judge(&hosts, End::SiteB, prober);
    println!("{figures:#?}");
}
