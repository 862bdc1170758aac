//! A dry run looks and touches nothing (S0-25), also while an earlier attempt of the same guest is still there.

use migrated::phase::{Outcome, Phase};
use tests::guest_kit::Recipe;
use tests::hosts::Hosts;
use tests::hosts::resident::{Resident, Work};
use tests::hosts::settings::Settings;
use tests::require;
use tests::wan::End;
use tests::world::Plan;

use crate::{MAIN_JOB, SLOWLY};

const DRY_RUN: [&str; 5] = ["send", "--dry-run", "--wan", "web", "site-b"];

pub fn a_dry_run_touches_nothing_at_either_host_also_while_an_earlier_attempt_is_there() {
    let mut hosts = require!(Hosts::with(Plan::default(), &Settings::default()));
    let resident = require!(Resident::start(&hosts, &Recipe::default(), Work::default()));
    let prober = resident.watch(&hosts);
    let traces = || [End::SiteA, End::SiteB].map(|end| hosts.traces(end));
    let before = traces();
    let said = hosts.migrated(End::SiteA, &DRY_RUN).run();
    assert!(said.contains("web can move from site-a to site-b"), "{said}");
    // S3-26: source, destination, disks, sizes.
    let looked = hosts.ask(End::SiteA, &DRY_RUN);
    let bytes = std::fs::metadata(resident.image(&hosts, End::SiteA, 0)).expect("its image").len();
    let planned = &looked["planned"];
    assert_eq!((&looked["possible"], &planned["source"]), (&true.into(), &"site-a".into()));
    assert_eq!(
        (&planned["destination"], &planned["disks"][0]["size_bytes"]),
        (&"site-b".into(), &bytes.into())
    );
    assert_eq!(traces(), before);
    assert_eq!(hosts.states("web"), ["running", ""]);

    // A second one is refused where the guest is, and the first goes on.
    let sending = hosts.send(End::SiteA, &[&MAIN_JOB[..], &SLOWLY].concat());
    sending.wait_for(Phase::Bulk);
    hosts.wait_for_event(End::SiteA, "tunnel: up");
    let under_way = traces();
    hosts.migrated(End::SiteA, &DRY_RUN).refused();
    assert_eq!(traces(), under_way);

    // Given up while the link is down, by a daemon that then ends: the destination does not know, and still has what
    // it began. Nobody tells it when the link is back: the session is gone, and what waits in sockets is not let
    // through.
    let wan = &hosts.world.wan;
    let connections = wan.forget_connections(End::SiteA, hosts.site(End::SiteA), End::SiteB);
    assert!(connections > 0, "there was a connection to forget");
    wan.cut(End::SiteB);
    hosts.migrated(End::SiteA, &["cancel", "web"]).run();
    sending.end().stayed(Outcome::Cancelled);
    let left = hosts.traces(End::SiteB);
    assert_eq!(left, under_way[1]);
    hosts.daemon(End::SiteA).kill();
    hosts.start(End::SiteA);
    hosts.world.wan.restore(End::SiteB);
    let looked = hosts.migrated(End::SiteA, &DRY_RUN).output();
    println!("with an earlier attempt there: {looked:?}");
    // The destination may find out by itself that its link is over, and clear away; nobody who only looks has it do so.
    assert!(!hosts.log(End::SiteB).contains("the source has begun anew"), "who only looks ends nothing");
    assert_eq!(hosts.state(End::SiteA, "web"), "running");

    // A real one takes its place.
    hosts.send(End::SiteA, &MAIN_JOB).end().moved();
    assert_eq!(hosts.states("web"), ["moved", "running"]);
    prober.wait_for_answers(20);
    resident.judge(&hosts, End::SiteB, prober);
}
