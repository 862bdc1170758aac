//! What dies, stops or loses power while a guest moves, and what comes of it (docs/migration.md, the table of faults).

use migrated::phase::{Outcome, Phase};
use nix::sys::signal::Signal;
use tests::guest_kit::Recipe;
use tests::hosts::Hosts;
use tests::hosts::resident::{Resident, Work};
use tests::program::signal;
use tests::require;
use tests::wait::{PATIENCE, wait_for};
use tests::wan::End;
use tests::world::Plan;

use crate::memory_at_once;
use crate::restarts::wait_until;

/// Kill the daemon of a disk, not its supervisor.
fn kill_blockd(hosts: &Hosts, end: End) {
    let mut processes = hosts.processes(end, "blockd");
    processes.sort_unstable();
    let [_supervisor, daemon] = processes[..] else { panic!("a supervisor and a daemon: {processes:?}") };
    signal(daemon, Signal::SIGKILL);
    wait_for(PATIENCE, "another daemon of the disk", || {
        let now = hosts.processes(end, "blockd");
        (now.len() == 2 && !now.contains(&daemon)).then_some(())
    });
}

fn begin(hosts: &Hosts) -> String {
    let id = hosts.send_detached(End::SiteA, &["--wan", "--bandwidth", "1MB", "web", "site-b"]);
    wait_until(hosts, &id, "memory", |status| status.phase == Phase::PreCopy && status.ram.raw_bytes > 0);
    id
}

/// S2-16, S3-17: the daemons of the disks at both hosts are killed, the destination's daemon stands still until the link
/// counts as dead, and the destination loses power: each is a stall, and the guest moves.
pub fn what_dies_before_the_handover_is_a_stall_and_the_guest_moves() {
    let mut hosts = require!(Hosts::with(Plan::default(), &memory_at_once()));
    let resident = require!(Resident::start(&hosts, &Recipe::default(), Work::default()));
    let prober = resident.watch(&hosts);
    let id = begin(&hosts);
    for end in [End::SiteA, End::SiteB] {
        let sent = |status: &migrated::status::Status| -> u64 {
            status.disks.iter().map(|disk| disk.sent_bytes).sum()
        };
        kill_blockd(&hosts, end);
        let before = wait_until(&hosts, &id, "a look", |_| true);
        // A daemon that is started again counts from nothing.
        let before = if end == End::SiteA { 0 } else { sent(&before) };
        wait_until(&hosts, &id, "the disk to go on", |status| sent(status) > before);
    }
    hosts.daemon(End::SiteB).signal(Signal::SIGSTOP);
    wait_until(&hosts, &id, "the link to be lost", |status| !status.link.up);
    hosts.daemon(End::SiteB).signal(Signal::SIGCONT);
    let back = wait_until(&hosts, &id, "the link to be back", |status| status.link.up);
    assert_eq!(back.phase, Phase::PreCopy, "a stall, and no other attempt");
    prober.wait_for_answers(20);

    hosts.world.crash(End::SiteB);
    hosts.world.restart(End::SiteB);
    hosts.start(End::SiteB);
    wait_until(&hosts, &id, "another attempt", |status| {
        status.phase == Phase::PreCopy && status.ram.raw_bytes < back.ram.raw_bytes
    });
    hosts.migrated(End::SiteA, &["set", &id, "bandwidth=none"]).run();
    let ended = wait_until(&hosts, &id, "the end", |status| status.outcome.is_some());
    assert_eq!(ended.outcome, Some(Outcome::Moved), "{ended:?}");
    resident.judge(&hosts, End::SiteB, prober);
}

/// S0-49, S3-17, S4-31: the disk of a guest that moves is gone, its daemon and its supervisor: that is noticed, and the guest
/// is started again from it. The source loses power in the middle of a move. The guest's memory is lost with it; its disk is not, and the
/// guest is at the source alone.
pub fn a_source_that_loses_power_has_its_guest_afterwards_and_starts_it_from_its_disk() {
    let mut hosts = require!(Hosts::with(Plan::default(), &memory_at_once()));
    let resident = require!(Resident::start(&hosts, &Recipe::default(), Work::default()));
    // Before QEMU is told to send memory: after that it gives nothing up until its disk is back, and says nothing.
    let sending = hosts.hold(End::SiteA, "source-start-ram");
    let id = hosts.send_detached(End::SiteA, &["--wan", "web", "site-b"]);
    sending.wait();
    let blockds = hosts.processes(End::SiteA, "blockd");
    assert_eq!(blockds.len(), 2, "a supervisor and a daemon");
    blockds.into_iter().for_each(|pid| signal(pid, Signal::SIGKILL));
    let ended = wait_until(&hosts, &id, "its end", |status| status.outcome.is_some());
    assert_eq!(ended.outcome, Some(Outcome::RolledBack), "{ended:?}");
    let reasons = ended.reasons.join("; ");
    assert!(reasons.contains("has ended, and its supervisor too"), "{reasons}");
    sending.let_go();
    hosts.migrated(End::SiteA, &["stop", "web", "--now"]).run();
    hosts.migrated(End::SiteA, &["run", &hosts.description(End::SiteA)]).run();
    resident.service.wait_until_it_answers();

    begin(&hosts);
    hosts.world.crash(End::SiteA);
    hosts.world.restart(End::SiteA);
    hosts.start(End::SiteA);
    wait_for(PATIENCE, "the guest to be known as off", || {
        (hosts.state(End::SiteA, "web") == "stopped").then_some(())
    });
    let told = hosts.migrated(End::SiteA, &["recover", "web"]).run();
    assert!(told.contains("the guest is here"), "{told}");
    hosts.migrated(End::SiteA, &["run", &hosts.description(End::SiteA)]).run();
    resident.service.wait_until_it_answers();
    assert_eq!(hosts.state(End::SiteA, "web"), "running");
}
