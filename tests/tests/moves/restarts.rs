//! Daemons that end while a guest moves, and are started again: the guest is not touched, and it moves all the same.

use migrated::phase::{Outcome, Phase};
use migrated::status::Status;
use tests::guest_kit::Recipe;
use tests::hosts::Hosts;
use tests::hosts::resident::{Resident, Work};
use tests::require;
use tests::wait::{PATIENCE, wait_for};
use tests::wan::End;
use tests::world::Plan;

use crate::memory_at_once;

/// The migration, as the source shows it now.
pub fn shown(hosts: &Hosts, id: &str) -> Status {
    let all = hosts.ask(End::SiteA, &["status", id]);
    let one = all.as_array().and_then(|all| all.first()).unwrap_or(&all);
    serde_json::from_value(one.clone()).unwrap_or_else(|error| panic!("{all}: {error}"))
}

#[track_caller]
pub fn wait_until(hosts: &Hosts, id: &str, what: &str, holds: impl Fn(&Status) -> bool) -> Status {
    wait_for(PATIENCE, what, || {
        let status = shown(hosts, id);
        let may_change = matches!(status.outcome, None | Some(Outcome::InDoubt));
        assert!(may_change || holds(&status), "no {what}: {status:?}");
        holds(&status).then_some(status)
    })
}

pub fn restart(hosts: &mut Hosts, end: End) {
    hosts.daemon(end).kill();
    hosts.start(end);
}

/// S1-12, S2-33: killed in the bulk copy and while memory goes over, at either side, the same migration goes on by
/// itself, and the disk is not copied again.
pub fn daemons_that_are_killed_and_started_again_move_the_guest_all_the_same() {
    let mut hosts = require!(Hosts::with(Plan::default(), &memory_at_once()));
    let guest = require!(Resident::start(&hosts, &Recipe::default(), Work::default()));
    let prober = guest.watch(&hosts);
    let id = hosts.send_detached(End::SiteA, &["--wan", "--bandwidth", "1500kB", "web", "site-b"]);
    let half = |status: &Status| {
        let total: u64 = status.disks.iter().map(|disk| disk.total_bytes).sum();
        let left: u64 = status.disks.iter().map(|disk| disk.left_bytes).sum();
        total > 0 && left < total / 2
    };
    let before = wait_until(&hosts, &id, "half of the disk", half);
    let left_before: u64 = before.disks.iter().map(|disk| disk.left_bytes).sum();

    restart(&mut hosts, End::SiteA);
    let after = wait_until(&hosts, &id, "memory again", |status| status.phase == Phase::PreCopy);
    let left: u64 = after.disks.iter().map(|disk| disk.left_bytes).sum();
    // What was on its way is sent again; that is at most a window.
    assert!(left <= left_before + (17 << 20), "copied again: {left} bytes left after {left_before}");
    let sent = |status: &Status| status.disks[0].sent_bytes;
    assert!(sent(&after) >= sent(&before), "the account goes on: {after:?} after {before:?}");

    restart(&mut hosts, End::SiteB);
    wait_until(&hosts, &id, "another attempt", |status| status.phase != Phase::PreCopy);
    wait_until(&hosts, &id, "memory once more", |status| {
        status.phase == Phase::PreCopy && status.ram.raw_bytes > 0
    });
    hosts.migrated(End::SiteA, &["set", &id, "bandwidth=none"]).run();
    let ended = wait_until(&hosts, &id, "the end", |status| status.outcome.is_some());
    assert_eq!(ended.outcome, Some(Outcome::Moved), "{ended:?}");
    guest.judge(&hosts, End::SiteB, prober);
}
