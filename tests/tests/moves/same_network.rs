//! Within one layer 2, with a disk that both hosts see: memory alone goes, and the guest announces itself (S3-18).

use std::fs;

use migrated::guest::Guest;
use migrated::phase::Phase;
use tests::guest_kit::Recipe;
use tests::hosts::Hosts;
use tests::hosts::resident::{Resident, Work};
use tests::hosts::settings::Settings;
use tests::require;
use tests::requires::program;
use tests::wan::End;
use tests::world::Plan;

use crate::{SLOWLY, memory_at_once};

/// The bridge of site B that the guest's description means by `lan` (S3-29).
const BRIDGE: &str = "guests0";

const MAC: [u8; 6] = [0x52, 0x54, 0x00, 0x10, 0x00, 0x10];

/// Reverse ARP, as a switch has to see it from a card that has come.
fn is_announcement(packet: &[u8]) -> bool {
    packet.len() >= 14 && packet[6..12] == MAC && packet[12..14] == [0x80, 0x35]
}

fn share(mut guest: Guest) -> Guest {
    guest.disks[0].shared = true;
    guest
}

/// S2-46, S3-18, S3-29; the neighbour and the client reach it all the while.
pub fn a_guest_with_a_shared_disk_moves_within_one_layer_2_and_nothing_of_its_disk_is_copied() {
    require!(program("tcpdump"));
    let settings = Settings { bridge_b: Some(BRIDGE), ..memory_at_once() };
    let hosts = require!(Hosts::with(Plan::default(), &settings));
    let site_b = hosts.site(End::SiteB);
    site_b.shell(&format!("ip link add {BRIDGE} type bridge mcast_snooping 0; ip link set {BRIDGE} up"));
    hosts.world.join_bridges(BRIDGE);
    let resident = require!(Resident::start_as(&hosts, &Recipe::default(), Work::default(), share));
    // One file, seen at the same path at both hosts.
    let image = &resident.guest.disks[0].image;
    let images = [End::SiteA, End::SiteB].map(|end| hosts.site(end).join("images").join(image));
    fs::hard_link(&images[0], &images[1]).expect("let both sites see one file");
    let prober = resident.watch(&hosts);

    let sending = hosts.send(End::SiteA, &[&["web", "site-b"][..], &SLOWLY].concat());
    sending.wait_for(Phase::PreCopy);
    // Plugged in long before it runs (S3-29).
    let ports = site_b.ip_json(&["link", "show", "master", BRIDGE]);
    let ports = ports.as_array().into_iter().flatten();
    assert_eq!(ports.filter(|port| port["linkinfo"]["info_kind"] == "tun").count(), 1);
    hosts.migrated(End::SiteA, &["cancel", "web"]).run();
    drop(sending.end());
    assert!(images[1].exists(), "a disk that is shared is not removed by who gives up");

    let lan = &hosts.world.lan_a;
    let captured = lan.capture("lan0", "");
    let report = hosts.send(End::SiteA, &["web", "site-b"]).end().moved();
    assert_eq!(hosts.states("web"), ["moved", "running"]);
    prober.wait_for_answers(20);
    let captured = captured.finish();
    let announced = captured.packets().into_iter().filter(|packet| is_announcement(packet)).count();
    assert!(announced > 1, "the neighbours hear where it is now, and hear it again");
    assert!(report.disks.is_empty(), "{:?}", report.disks);
    // It answered at site B from where it ran: nothing will break, and nobody else has its address.
    let alarms = ["connections break", "another machine"];
    let alarmed = report.events.iter().any(|(_, event)| alarms.iter().any(|alarm| event.contains(alarm)));
    assert!(!alarmed, "{:#?}", report.events);
    assert!(report.ram.sent_bytes > 0);
    assert_eq!([End::SiteA, End::SiteB].map(|end| hosts.tunnels(end)), [[], []] as [[String; 0]; 2]);
    resident.judge(&hosts, End::SiteB, prober);
}
