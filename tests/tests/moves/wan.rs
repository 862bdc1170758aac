//! The main job (S4-01): disk, memory, address and sessions go over a WAN, without shared storage (S0-14, S4-03) and
//! between networks that only routers join (S0-15), and whoever uses the guest does not notice (S4-08).

use migrated::phase::Phase;
use tests::guest_kit::place::Place;
use tests::guest_kit::{ADDRESS, Recipe};
use tests::hosts::Hosts;
use tests::hosts::resident::{Resident, Work};
use tests::prober::{Prober, Watch};
use tests::require;
use tests::wan::{End, WanProfile};

use crate::{MAIN_JOB, insist_on_verified, over};

/// S0-22, S2-03, S2-45, S4-05, S4-06; card, address and routes as they were, and the neighbour's session: S0-18, S3-28.
pub fn a_guest_moves_over_a_fast_link_and_neither_its_users_nor_its_neighbour_notice() {
    let hosts = require!(Hosts::new(over(WanProfile::lan100())));
    let resident = require!(Resident::start(&hosts, &Recipe::default(), Work::default()));
    let neighbour = Prober::start(
        &Place::beside(hosts.world.lan_a.pid()),
        &Watch { disks: 0, datagrams_per_s: 0, ..Watch::over(ADDRESS) },
    );
    neighbour.wait_for_answers(10);
    let prober = resident.watch(&hosts);
    let seen_by_guest = resident.service.ask("network");
    look_first(&hosts);
    let report = hosts.send(End::SiteA, &MAIN_JOB).end().moved();
    assert_eq!(hosts.states("web"), ["moved", "running"]);
    let [reached] = &report.reached[..] else { panic!("{:?}", report.reached) };
    assert!(reached.address == ADDRESS && reached.answered_ms.is_some(), "{reached:?}");
    assert!(hosts.processes(End::SiteA, "qemu-system-x86_64").is_empty());
    assert_eq!(resident.service.ask("network"), seen_by_guest);
    prober.wait_for_answers(20);
    neighbour.wait_for_answers(20);
    let seen = neighbour.finish();
    let unanswered = seen.lines.iter().filter(|line| line.answered_us.is_none()).count();
    assert_eq!((seen.connections.len(), unanswered), (1, 0), "{:?}", seen.connections);
    assert!(seen.connections[0].lost.is_none(), "{:?}", seen.connections);
    // The digests of both disks were compared while nobody wrote (S2-43).
    insist_on_verified(&report, 1);
    let figures = resident.judge(&hosts, End::SiteB, prober);
    println!("{figures:#?}");
}

/// A dry run tells what will be missed, sends a packet through the tunnel, and leaves nothing of it behind.
fn look_first(hosts: &Hosts) {
    let site = hosts.site(End::SiteB);
    // A machine of site B's network has an address of the pool, and the firewall lets nothing pass of which it does not know.
    hosts.world.join_stranger("10.2.0.100");
    site.shell(
        "nft add table ip t; nft 'add chain ip t f { type filter hook forward priority 0; policy drop; }'",
    );
    let traces = || [End::SiteA, End::SiteB].map(|end| hosts.traces(end));
    let before = traces();
    let look = || hosts.migrated(End::SiteA, &["send", "--dry-run", "--wan", "web", "site-b"]);
    let said = look().run();
    for words in ["10.2.0.100 is answered for by", "chain `ip t f` drops"] {
        assert!(said.contains(words), "no {words:?} in {said}");
    }
    assert_eq!(traces(), before);
    // The tunnel's own packets: the look is refused, and leaves nothing either.
    site.shell("nft delete table ip t; nft add table ip t; nft 'add chain ip t i { type filter hook input priority 0; }'; \
                nft add rule ip t i udp dport 4789 drop");
    let before = traces();
    let refused = look().refused();
    assert!(refused.contains("is UDP 4789 open"), "{refused}");
    assert_eq!(traces(), before);
    site.shell("nft delete table ip t; ip link del s0");
}

/// S2-42, S4-01, S4-05.
pub fn a_guest_moves_over_a_thin_long_lossy_link_and_its_sessions_live() {
    let hosts = require!(Hosts::new(over(WanProfile::wan20())));
    let resident = require!(Resident::start(&hosts, &Recipe::default(), Work::default()));
    let prober = resident.watch(&hosts);
    let sending = hosts.send(End::SiteA, &MAIN_JOB);
    sending.wait_for(Phase::Bulk);
    // The guest works on while its disk goes, and while its memory goes.
    prober.wait_for_answers(5);
    sending.wait_for(Phase::PreCopy);
    prober.wait_for_answers(5);
    // The whole memory first, then what is dirtied meanwhile.
    sending.wait_until("a second pass", |status| status.ram.passes > 1);
    let report = sending.end().moved();
    assert_eq!(hosts.states("web"), ["moved", "running"]);
    assert!(report.disks[0].deltas_total > 0, "writes were recorded while the disk went");
    assert!(report.ram.passes > 1 && report.ram.sent_bytes > 0);
    prober.wait_for_answers(20);
    let figures = resident.judge(&hosts, End::SiteB, prober);
    println!("{figures:#?}");
}
