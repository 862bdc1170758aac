//! A guest that comes home (S4-41): of its tunnels nothing is left at either host, also when both daemons were started anew
//! since it left, and the address that it had at the other site is free again. Its name
//! follows it there and back, and what else that leads to stays. Until then the tunnels are there, also after
//! a host has lost power.

use std::net::Ipv4Addr;

use tests::guest_kit::{ADDRESS, Recipe};
use tests::hosts::Hosts;
use tests::hosts::names::{self, Names, named};
use tests::hosts::resident::{Resident, Work};
use tests::hosts::settings::Settings;
use tests::require;
use tests::wait::{PATIENCE, wait_until};
use tests::wan::End;
use tests::world::Plan;

use crate::MAIN_JOB;
use crate::restarts::restart;

/// What the guest gets at site B, and another machine that its name leads to.
const THERE: Ipv4Addr = Ipv4Addr::new(10, 2, 0, 100);
const OTHER: Ipv4Addr = Ipv4Addr::new(10, 1, 0, 99);

const BOTH: [End; 2] = [End::SiteA, End::SiteB];

/// Devices, routes, rules, neighbours and packet rules.
fn network(hosts: &Hosts) -> [Vec<String>; 2] {
    BOTH.map(|end| hosts.traces(end).into_iter().filter(|trace| trace.starts_with("network: ")).collect())
}

/// What the one tunnel of a host remembers of its move.
fn tunnel(hosts: &Hosts, end: End) -> String {
    let [device] = &hosts.tunnels(end)[..] else { panic!("one tunnel, not {:?}", hosts.tunnels(end)) };
    let links = hosts.site(end).ip_json(&["link", "show", device]);
    links[0]["ifalias"].as_str().expect("a tunnel has a record").to_owned()
}

pub fn a_guest_that_comes_home_after_both_daemons_began_anew_leaves_no_tunnel_and_no_address() {
    let settings = Settings { dns: names::table("lab.test"), ..Settings::default() };
    let mut hosts = require!(Hosts::with(Plan::default(), &settings));
    let names = require!(Names::start(&hosts, &[ADDRESS, OTHER]));
    let resident = require!(Resident::start_as(&hosts, &Recipe::default(), Work::default(), named));
    let prober = resident.watch(&hosts);
    let before = network(&hosts);
    hosts.send(End::SiteA, &MAIN_JOB).end().moved();
    assert_eq!(names.addresses(&hosts), [OTHER, THERE]);
    prober.wait_for_answers(10);
    let first = tunnel(&hosts, End::SiteB);
    assert!(first.contains(&ADDRESS.to_string()) && first.contains("10.2.0.100"), "{first}");
    for end in BOTH {
        restart(&mut hosts, end);
    }
    // The guest is reached by it all the while.
    prober.wait_for_answers(10);
    assert_eq!(tunnel(&hosts, End::SiteB), first);

    let report = hosts.send(End::SiteB, &["--wan", "web", "site-a"]).end().moved();
    assert_eq!(hosts.states("web"), ["running", "moved"]);
    // Site A cannot know which of the addresses was the guest's: site B has said so.
    assert_eq!(names.addresses(&hosts), [ADDRESS, OTHER]);
    // Our own tunnel answers for its address, and is taken for nobody else.
    let alarmed =
        report.events.iter().any(|(_, event)| event.contains("warning: ") && event.contains("net0: "));
    assert!(!alarmed, "{:#?}", report.events);
    assert!(report.reached.iter().any(|reached| reached.answered_ms.is_some()), "{:?}", report.reached);
    prober.wait_for_answers(10);
    let mut left = network(&hosts);
    // The last of it goes when the other host has hung up.
    wait_until(PATIENCE, "nothing of a tunnel to be left", || {
        left = network(&hosts);
        left.iter().zip(&before).all(|(left, before)| left.iter().all(|trace| before.contains(trace)))
    });
    assert_eq!(left[1].len(), before[1].len(), "{left:?}");
    prober.wait_for_answers(10);

    // So it may leave again, and gets the same address there.
    hosts.send(End::SiteA, &MAIN_JOB).end().moved();
    assert_eq!(names.addresses(&hosts), [OTHER, THERE]);
    let second = tunnel(&hosts, End::SiteB);
    assert!(second.contains("10.2.0.100"), "{second}");
    prober.wait_for_answers(10);
    resident.judge(&hosts, End::SiteB, prober);
}

/// S4-41: the home of a guest that has moved loses power, then the host where it is.
pub fn hosts_that_lost_power_lead_to_a_guest_that_has_moved_as_they_did_before() {
    let mut hosts = require!(Hosts::new(Plan::default()));
    let resident = require!(Resident::start(&hosts, &Recipe::default(), Work::default()));
    let prober = resident.watch(&hosts);
    hosts.send(End::SiteA, &MAIN_JOB).end().moved();
    prober.wait_for_answers(10);

    hosts.world.crash(End::SiteA);
    hosts.world.restart(End::SiteA);
    hosts.start(End::SiteA);
    // Over the same sessions, whose packets all go by way of its home.
    prober.wait_for_answers(20);
    assert_eq!(hosts.states("web"), ["moved", "running"]);

    hosts.world.crash(End::SiteB);
    hosts.world.restart(End::SiteB);
    hosts.start(End::SiteB);
    wait_until(PATIENCE, "the guest to be known as off", || hosts.state(End::SiteB, "web") == "stopped");
    let made_again = tunnel(&hosts, End::SiteB);
    assert!(made_again.contains("10.2.0.100"), "{made_again}");
    hosts.migrated(End::SiteB, &["run", &hosts.description(End::SiteB)]).run();
    resident.service.wait_until_it_answers();

    hosts.send(End::SiteB, &["--wan", "web", "site-a"]).end().moved();
    wait_until(PATIENCE, "no tunnel to be left", || BOTH.iter().all(|end| hosts.tunnels(*end).is_empty()));
    resident.service.wait_until_it_answers();
    drop(prober);
}
