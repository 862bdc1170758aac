//! When the guest has gone, nothing starts it where it was.

use std::fs;

use tests::binaries;
use tests::guest_kit::Recipe;
use tests::hosts::Hosts;
use tests::hosts::resident::{Resident, Work};
use tests::require;
use tests::wan::End;
use tests::world::Plan;

use crate::MAIN_JOB;

#[test]
fn a_disk_that_was_left_is_fenced_and_nothing_starts_its_guest_there() {
    let hosts = require!(Hosts::new(Plan::default()));
    let blockd = require!(binaries::blockd());
    let resident = require!(Resident::start(&hosts, &Recipe::default(), Work::default()));
    let prober = resident.watch(&hosts);
    hosts.send(End::SiteA, &MAIN_JOB).end().moved();
    assert_eq!(hosts.states("web"), ["moved", "running"]);

    // Nothing starts it by accident, and nothing serves its disk (M1, D11).
    let site = hosts.site(End::SiteA);
    let description = site.inside("guest.toml").display().to_string();
    let refused = hosts.migrated(End::SiteA, &["run", &description]).refused();
    assert!(refused.contains("moved to") && refused.contains("site-b"), "{refused}");
    let image = site.inside("images").join(&resident.guest.disks[0].image);
    let (nbd, control) = (site.inside("x.nbd"), site.inside("x.ctl"));
    let serve = site.tool(&blockd).args(["serve", "--no-supervisor", "--image"]).arg(&image);
    let refused = serve.arg("--nbd").arg(&nbd).arg("--control").arg(&control).refused();
    assert!(refused.contains("moved") || refused.contains("fenced"), "{refused}");
    assert!(!fs::exists(site.join("x.nbd")).expect("look for a socket"));

    prober.wait_for_answers(20);
    resident.judge(&hosts, End::SiteB, prober);
}
