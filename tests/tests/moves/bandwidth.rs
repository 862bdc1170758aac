//! How a move uses its bandwidth: `set ID bandwidth=RATE` is followed by the one that runs and refused where it means
//! nothing, and memory does not wait for the bulk of a disk.

use migrated::phase::Phase;
use tests::guest_kit::Recipe;
use tests::hosts::Hosts;
use tests::hosts::resident::{Resident, Work};
use tests::require;
use tests::wan::End;
use tests::world::Plan;

use crate::{MAIN_JOB, SLOWLY, memory_at_once};

pub fn a_move_follows_the_bandwidth_that_it_is_set_until_it_has_ended() {
    let hosts = require!(Hosts::new(Plan::default()));
    let resident = require!(Resident::start(&hosts, &Recipe::default(), Work::default()));
    let prober = resident.watch(&hosts);
    let sending = hosts.send(End::SiteA, &[&MAIN_JOB[..], &SLOWLY].concat());
    assert_eq!(sending.wait_for(Phase::Bulk).link.limit_bytes_per_s, Some(300_000));
    let answer = hosts.ask(End::SiteA, &["set", "web", "bandwidth=200kB"]);
    assert_eq!(answer["link"]["limit_bytes_per_s"], 200_000, "{answer}");
    sending.wait_until("lower limit", |status| status.link.limit_bytes_per_s == Some(200_000));
    // The destination has nothing to say here.
    let elsewhere = hosts.migrated(End::SiteB, &["set", "web", "bandwidth=1MB"]).refused();
    assert!(elsewhere.contains("at its source, \"site-a\""), "{elsewhere}");
    let said = hosts.migrated(End::SiteA, &["set", "web", "bandwidth=none"]).run();
    assert!(said.contains("what the link gives"), "{said}");
    let report = sending.end().moved();
    let told = report.events.iter().filter(|(_, what)| what.starts_with("bandwidth: ")).count();
    assert_eq!(told, 2, "{:?}", report.events);
    let late = hosts.migrated(End::SiteA, &["set", "web", "bandwidth=1MB"]).refused();
    assert!(late.contains("has ended"), "{late}");
    resident.judge(&hosts, End::SiteB, prober);
}

pub fn memory_gets_more_of_the_link_than_the_bulk_of_a_disk() {
    let hosts = require!(Hosts::with(Plan::default(), &memory_at_once()));
    let resident = require!(Resident::start(&hosts, &Recipe::default(), Work::default()));
    let prober = resident.watch(&hosts);
    let sending = hosts.send(End::SiteA, &[&MAIN_JOB[..], &SLOWLY].concat());
    let before = sending.wait_until("memory to go", |status| status.ram.sent_bytes > 0);
    let enough = before.ram.sent_bytes + 3_000_000;
    let after = sending.wait_until("more memory", |status| status.ram.sent_bytes >= enough);
    assert!(after.disks[0].left_bytes > 10_000_000, "the disk is not nearly done: {:?}", after.disks);
    let bulk = after.disks[0].sent_bytes - before.disks[0].sent_bytes;
    let memory = after.ram.sent_bytes - before.ram.sent_bytes;
    assert!(bulk < memory / 2, "{bulk} bytes of bulk beside {memory} of memory");
    hosts.migrated(End::SiteA, &["set", "web", "bandwidth=none"]).run();
    sending.end().moved();
    resident.judge(&hosts, End::SiteB, prober);
}
