//! The link is lost while the guest runs, in every way in which links are lost: the same migration goes on, nothing is
//! begun again, and the guest, its users and QEMU see a stall and no error (S4-01 over the links that there are).
//!
//! ```text
//!   bulk ──── cut, flapping ──── pre-copy ──── cut, one direction, forgotten, another address ──── moved
//! ```

use migrated::phase::Phase;
use migrated::report::Report;
use tests::guest_kit::{Fill, Recipe};
use tests::hosts::Hosts;
use tests::hosts::resident::{Resident, Work};
use tests::hosts::sending::Sending;
use tests::hosts::settings::Settings;
use tests::prober::Prober;
use tests::require;
use tests::wan::{End, WanProfile, Way};

use crate::{AT_FIRST, long_lossy_link, over};

/// Where tunnels end that outlive an address of the WAN.
pub const BRIDGES: [&str; 2] = ["10.1.0.1", "10.2.0.1"];

/// Another address of a site, and of its gateway.
pub const OTHER: [&str; 2] = ["192.0.2.33", "192.0.2.34"];

/// A guest whose disk takes a while on a thin link.
pub fn recipe() -> Recipe {
    Recipe { name: "stayer".to_owned(), disk_mib: 64, fill: Fill::Thirds, ..Recipe::default() }
}

/// Its main job.
pub const STAYER: [&str; 3] = ["--wan", "stayer", "site-b"];

/// The link is lost while something goes over it, and comes back; the guest works all the while.
fn lose(
    hosts: &Hosts,
    sending: &Sending,
    prober: &Prober,
    how: &str,
    cut: impl FnOnce(),
    restore: impl FnOnce(),
) {
    println!("{how}");
    hosts.wait_for_broken_link(End::SiteA, cut);
    let lost = sending.last();
    prober.wait_for_answers(20);
    assert_eq!(hosts.states("stayer"), ["migrating", "incoming"], "{how}");
    restore();
    let back = sending.wait_until("the link to be back, and to carry something", |status| {
        status.link.up && status.link.sent_bytes > lost.link.sent_bytes
    });
    println!(
        "  lost in {} after {} ms, back after {} ms",
        lost.phase.name(),
        lost.elapsed_ms,
        back.elapsed_ms
    );
    assert_eq!(back.phase, lost.phase, "it goes on where it was");
}

/// It took one attempt.
pub fn insist_on_one_attempt(report: &Report) {
    assert!(report.phases.is_sorted_by_key(|(phase, _)| *phase), "{:?}", report.phases);
    let memory = report.events.iter().filter(|(_, what)| what.contains("the first pass begins"));
    assert_eq!(memory.count(), 1, "{:?}", report.events);
}

pub fn a_move_survives_cuts_half_open_links_and_a_nat_that_forgets_while_the_disk_and_while_the_memory_goes()
{
    let hosts = require!(Hosts::new(long_lossy_link()));
    let resident = require!(Resident::start(&hosts, &recipe(), Work::default()));
    let prober = resident.watch(&hosts);
    let wan = &hosts.world.wan;
    let cut = || wan.cut(End::SiteB);
    let half = |way| move || wan.cut_half(End::SiteB, way);
    let restore = || wan.restore(End::SiteB);
    let forget = || {
        let connections = wan.forget_connections(End::SiteA, hosts.site(End::SiteA), End::SiteB);
        assert!(connections > 0, "there was a connection to forget");
    };
    let sending = hosts.send(End::SiteA, &[&STAYER[..], &AT_FIRST].concat());
    sending.wait_for(Phase::Bulk);
    hosts.wait_for_event(End::SiteA, "tunnel: up");
    lose(&hosts, &sending, &prober, "a cut", cut, restore);
    lose(&hosts, &sending, &prober, "nothing goes there", half(Way::In), restore);
    sending.wait_for(Phase::PreCopy);
    lose(&hosts, &sending, &prober, "a cut", cut, restore);
    lose(&hosts, &sending, &prober, "nothing comes back", half(Way::Out), restore);
    lose(&hosts, &sending, &prober, "a NAT forgets", forget, || ());
    end_fast(&hosts, resident, prober, sending);
}

pub fn a_move_survives_a_flapping_link_and_another_address_of_its_source() {
    let settings = Settings { tunnel_addresses: Some(BRIDGES), ..Settings::default() };
    let hosts = require!(Hosts::with(long_lossy_link(), &settings));
    let resident = require!(Resident::start(&hosts, &recipe(), Work::default()));
    let prober = resident.watch(&hosts);
    let wan = &hosts.world.wan;
    let sending = hosts.send(End::SiteA, &[&STAYER[..], &AT_FIRST].concat());
    // In the middle of the first words about disks and tunnel.
    hosts.wait_for_event(End::SiteA, "reserved as");
    wan.cut_for(End::SiteB, 6);
    sending.wait_for(Phase::Bulk);
    wan.flap(End::SiteB, 2, 2);
    sending.wait_for(Phase::PreCopy);
    wan.flap(End::SiteB, 2, 2);
    let readdress = || wan.readdress(End::SiteA, hosts.site(End::SiteA), OTHER);
    lose(&hosts, &sending, &prober, "another address", readdress, || ());
    end_fast(&hosts, resident, prober, sending);
}

/// All has been tried: the rest of the move is at full speed, in one attempt, and nothing was lost.
fn end_fast(hosts: &Hosts, resident: Resident, prober: Prober, sending: Sending) {
    hosts.migrated(End::SiteA, &["set", "stayer", "bandwidth=none"]).run();
    let report = sending.end().moved();
    insist_on_one_attempt(&report);
    assert_eq!(hosts.states("stayer"), ["moved", "running"]);
    prober.wait_for_answers(20);
    resident.judge(hosts, End::SiteB, prober);
}

/// The same for as long as links are really away (S4-01 in `make soak`).
pub fn soak_a_move_survives_cuts_of_minutes_and_a_minute_of_flapping() {
    let hosts = require!(Hosts::new(over(WanProfile::wan20())));
    let resident = require!(Resident::start(&hosts, &recipe(), Work::default()));
    let prober = resident.watch(&hosts);
    let wan = &hosts.world.wan;
    let sending = hosts.send(End::SiteA, &STAYER);
    // At once, whatever it is doing.
    sending.wait_for(Phase::Bulk);
    wan.cut_for(End::SiteB, 60);
    sending.wait_until("the disk to go on", |status| status.link.up && status.disks[0].left_bytes > 0);
    wan.flap(End::SiteB, 15, 2);
    sending.wait_for(Phase::PreCopy);
    wan.cut_for(End::SiteB, 300);
    let report = sending.end().moved();
    insist_on_one_attempt(&report);
    prober.wait_for_answers(20);
    resident.judge(&hosts, End::SiteB, prober);
}
