//! The guest's name follows it: on a real Knot server, after the guest has answered at its new place, and only if that
//! was found possible before anything moved.

use std::fs::{self, Permissions};
use std::net::Ipv4Addr;
use std::os::unix::fs::PermissionsExt;

use migrated::phase::{Outcome, Phase};
use migrated::report::Report;
use migrated::status::Status;
use tests::guest_kit::service::Service;
use tests::guest_kit::{ADDRESS, Recipe};
use tests::hosts::Hosts;
use tests::hosts::names::{self, KEY_FILE, NAME, Names, named};
use tests::hosts::resident::{Resident, Work};
use tests::hosts::settings::Settings;
use tests::require;
use tests::wan::End;
use tests::world::Plan;

/// The first of site B's pool.
const NEW: Ipv4Addr = Ipv4Addr::new(10, 2, 0, 100);

/// The last status that `send --json` prints.
fn last_status(hosts: &Hosts) -> (Option<i32>, Status) {
    let output = hosts.migrated(End::SiteA, &["--json", "send", "--wan", "web", "site-b"]).output();
    let text = String::from_utf8_lossy(&output.stdout);
    let last = text.lines().last().expect("it says how it ended");
    (output.status.code(), serde_json::from_str(last).unwrap_or_else(|error| panic!("{error} in {last:?}")))
}

/// Where in the order of events something happened.
#[track_caller]
fn place(report: &Report, what: &str) -> usize {
    let found = report.events.iter().position(|(_, event)| event.starts_with(what));
    found.unwrap_or_else(|| panic!("no {what:?} in {:#?}", report.events))
}

pub fn a_name_leads_to_the_new_site_after_the_guest_has_answered_there() {
    let settings = Settings { dns: names::table("lab.test"), ..Settings::default() };
    let hosts = require!(Hosts::with(Plan::default(), &settings));
    let names = require!(Names::start(&hosts, &[ADDRESS]));
    let resident = require!(Resident::start_as(&hosts, &Recipe::default(), Work::default(), named));
    let prober = resident.watch(&hosts);
    assert_eq!(names.addresses(&hosts), [ADDRESS]);

    // Without its key nothing would move.
    let key = hosts.site(End::SiteB).join(KEY_FILE);
    fs::set_permissions(&key, Permissions::from_mode(0o644)).unwrap();
    let looked = hosts.migrated(End::SiteA, &["send", "--wan", "--dry-run", "web", "site-b"]).output();
    let said = String::from_utf8_lossy(&looked.stderr).into_owned();
    assert!(!looked.status.success() && said.contains(KEY_FILE) && said.contains("mode 644"), "{said}");
    fs::set_permissions(&key, Permissions::from_mode(0o600)).unwrap();
    // With it all is well, and what is worth knowing is told.
    let looked = hosts.migrated(End::SiteA, &["send", "--wan", "--dry-run", "web", "site-b"]).output();
    let said = String::from_utf8_lossy(&looked.stdout).into_owned();
    assert!(looked.status.success() && said.contains("warning: site-b: the guest is emulated"), "{said}");

    let (code, status) = last_status(&hosts);
    assert_eq!((code, status.outcome), (Some(0), Some(Outcome::Moved)), "{:?}", status.reasons);
    assert_eq!(names.addresses(&hosts), [NEW]);

    // New connections find the guest at its new address, while the old ones go on at the old one (S4-04).
    Service::at(hosts.client(), NEW).wait_until_it_answers();

    // The guest runs before anybody is sent to its new address (S4-20, S4-42).
    let report = status.report.expect("a migration that has ended has a report");
    let order = ["tunnel: up", "the guest is paused", "path: ", "commitment: taken", "resume: ", "names: "];
    let places = order.map(|what| place(&report, what));
    assert!(places.is_sorted(), "{order:?} came as {places:?} in {:#?}", report.events);
    let phases: Vec<Phase> = report.phases.iter().map(|(phase, _)| *phase).collect();
    assert!(phases.contains(&Phase::Readdress), "{phases:?}");
    let (_, told) = &report.events[place(&report, "names: ")];
    assert!(told.contains(&format!("{NAME} leads to {NEW}")), "{told}");
    assert!(told.contains("the guest answered"), "{told}");

    prober.wait_for_answers(20);
    resident.judge(&hosts, End::SiteB, prober);
}

pub fn a_name_that_no_zone_holds_is_refused_before_anything_moves() {
    let settings = Settings { dns: names::table("elsewhere.test"), ..Settings::default() };
    let hosts = require!(Hosts::with(Plan::default(), &settings));
    let names = require!(Names::start(&hosts, &[ADDRESS]));
    let resident = require!(Resident::start_as(&hosts, &Recipe::default(), Work::default(), named));
    let prober = resident.watch(&hosts);

    let (code, status) = last_status(&hosts);
    assert_eq!(code, Some(1), "{status:?}");
    let reasons = status.reasons.join("\n");
    assert!(reasons.contains(NAME) && reasons.contains("[[dns]]"), "{reasons}");
    let report = status.report.expect("a migration that has ended has a report");
    assert!(report.events.iter().all(|(_, event)| !event.contains("phase bulk")), "{:#?}", report.events);
    assert_eq!(report.downtime_ms, None);
    assert_eq!(hosts.states("web"), ["running", ""]);
    assert!(!resident.image(&hosts, End::SiteB, 0).exists(), "no disk is left at site B");
    assert_eq!(names.addresses(&hosts), [ADDRESS]);

    prober.wait_for_answers(5);
    resident.judge(&hosts, End::SiteA, prober);
}
