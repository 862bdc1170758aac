//! Other guests, and another way to send them: two disks, paused, without an address.

use migrated::guest::Guest;
use migrated::report::ReachReport;
use tests::guest_kit::place::Place;
use tests::guest_kit::service::Service;
use tests::guest_kit::{ADDRESS, Recipe};
use tests::hosts::Hosts;
use tests::hosts::resident::{Resident, Work};
use tests::hosts::settings::Settings;
use tests::require;
use tests::requires::Missing;
use tests::scratch::first_difference;
use tests::wan::End;
use tests::world::Plan;

use crate::qemu_versions::newer;
use crate::{MAIN_JOB, insist_on_verified};

/// Which QEMU runs at both sites.
#[derive(Clone, Copy, PartialEq, Eq)]
enum With {
    MachinesOwn,
    Newer,
}

impl With {
    fn settings(self) -> Result<Settings, Missing> {
        let qemu = (self == With::Newer).then(newer).transpose()?;
        Ok(Settings { qemu_a: qemu.clone(), qemu_b: qemu, ..Settings::default() })
    }
}

/// The oracle asks for every write of both (S4-29: the guest goes on only when all of them are there).
pub fn a_guest_with_two_disks_moves_with_both() {
    two_disks(With::MachinesOwn);
}

fn two_disks(with: With) {
    let hosts = require!(Hosts::with(Plan::default(), &require!(with.settings())));
    let recipe = Recipe { second_disk_mib: Some(32), ..Recipe::default() };
    let resident = require!(Resident::start(&hosts, &recipe, Work::default()));
    let prober = resident.watch(&hosts);
    // All but a ping gets through to the guest at its new place.
    hosts.site(End::SiteB).shell(
        "nft add table ip t; nft 'add chain ip t f { type filter hook forward priority 0; }'; \
         nft add rule ip t f icmp type echo-request drop",
    );
    let report = hosts.send(End::SiteA, &MAIN_JOB).end().moved();
    assert_eq!(hosts.states("web"), ["moved", "running"]);
    assert_eq!(report.reached, [ReachReport { address: ADDRESS, answered_ms: None }]);
    assert!(report.events.iter().any(|(_, event)| event.contains("warning: the guest does not answer")));
    insist_on_verified(&report, 2);
    prober.wait_for_answers(20);
    resident.judge(&hosts, End::SiteB, prober);
}

/// S2-20, S4-06: at the moment at which it has arrived both images are the same, byte for byte (S2-43).
pub fn a_paused_guest_arrives_paused_with_the_very_same_disk_and_goes_on_there() {
    paused(With::MachinesOwn);
}

fn paused(with: With) {
    let hosts = require!(Hosts::with(Plan::default(), &require!(with.settings())));
    let resident = require!(Resident::start(&hosts, &Recipe::default(), Work::default()));
    let prober = resident.watch(&hosts);
    hosts.migrated(End::SiteA, &["pause", "web"]).run();
    let report = hosts.send(End::SiteA, &MAIN_JOB).end().moved();
    assert_eq!(hosts.states("web"), ["moved", "paused"]);
    assert_eq!(report.downtime_ms, None, "it was never paused by the move");
    let images = [End::SiteA, End::SiteB].map(|end| resident.image(&hosts, end, 0));
    assert_eq!(first_difference(&images[0], &images[1]), None);
    hosts.migrated(End::SiteB, &["resume", "web"]).run();
    assert_eq!(hosts.states("web"), ["moved", "running"]);
    prober.wait_for_answers(20);
    resident.judge(&hosts, End::SiteB, prober);
}

/// Within one layer 2 the guest's address needs no help: no tunnel is made.
pub fn a_guest_without_an_address_of_ours_moves_without_wan_and_without_a_tunnel() {
    anonymous(With::MachinesOwn);
}

fn anonymous(with: With) {
    let hosts = require!(Hosts::with(Plan::default(), &require!(with.settings())));
    let anonymous = |mut guest: Guest| {
        guest.nics[0].address = None;
        guest
    };
    let _resident = require!(Resident::start_as(&hosts, &Recipe::default(), Work::default(), anonymous));
    // New ports pass nothing for four seconds: so long the guest runs where it is.
    hosts.site(End::SiteB).shell("ip link set br0 type bridge forward_delay 200 stp_state 1");
    let links = hosts.traces(End::SiteB);
    let report = hosts.send(End::SiteA, &["web", "site-b"]).end().moved();
    let ports = hosts.site(End::SiteB).ip_json(&["link", "show", "master", "br0"]);
    let ports = ports.as_array().into_iter().flatten().filter(|port| port["linkinfo"]["info_kind"] == "tun");
    let states: Vec<&str> =
        ports.filter_map(|tap| tap["linkinfo"]["info_slave_data"]["state"].as_str()).collect();
    assert_eq!(states, ["forwarding"]);
    assert!(
        report.events.iter().any(|(_, event)| event.contains("runs a spanning tree")),
        "{:?}",
        report.events
    );
    assert_eq!(hosts.states("web"), ["moved", "running"]);
    assert_eq!([End::SiteA, End::SiteB].map(|end| hosts.tunnels(end)), [[], []] as [[String; 0]; 2]);
    let is_new = |trace: &String| trace.starts_with("network: ") && !links.contains(trace);
    let made: Vec<String> = hosts.traces(End::SiteB).into_iter().filter(is_new).collect();
    assert!(made.iter().all(|trace| !trace.contains(&ADDRESS.to_string())), "{made:?}");
    // The router that the guest knows, as a shared layer 2 would have it.
    hosts
        .site(End::SiteB)
        .shell("ip link set br0 address 02:00:0a:01:00:01; ip addr add 10.1.0.1/24 dev br0");
    let there = Service::at(Place::beside(hosts.site(End::SiteB).pid()), ADDRESS);
    there.wait_until_it_answers();
    assert!(there.ask("writer disk=a stop").number("acknowledged") > 0);
    there.ask("check");
}

pub fn soak_kinds_of_guests_move_between_newer_qemus() {
    for kind in [two_disks, paused, anonymous] {
        kind(With::Newer);
    }
}
