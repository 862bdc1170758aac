//! Other ways to send a guest: suspended, uncompressed, through a program, and with a limit of time.

use migrated::phase::{Outcome, Phase};
use nix::sys::signal::Signal;
use tests::guest_kit::Recipe;
use tests::hosts::Hosts;
use tests::hosts::resident::{Resident, Work};
use tests::program::signal;
use tests::require;
use tests::wait::{PATIENCE, wait_until};
use tests::wan::End;
use tests::world::Plan;

use crate::cuts::insist_on_one_attempt;
use crate::{MAIN_JOB, SLOWLY, insist_on_verified, long_lossy_link, memory_at_once};

/// S1-13, S3-18, S3-19: a cold move suspends the guest when nothing can refuse any more, and lets it go on when it is given up.
/// Without compression as much goes over as there is; with it less; the report has both.
pub fn a_guest_that_is_suspended_for_its_move_goes_on_where_the_move_ends() {
    let hosts = require!(Hosts::new(Plan::default()));
    let resident = require!(Resident::start(&hosts, &Recipe::default(), Work::default()));
    let prober = resident.watch(&hosts);

    let sending = hosts.send(End::SiteA, &[&MAIN_JOB[..], &SLOWLY, &["--cold"]].concat());
    hosts.wait_for_event(End::SiteA, "suspended for the move");
    sending.wait_for(Phase::Bulk);
    hosts.migrated(End::SiteA, &["cancel", "web"]).run();
    sending.end().stayed(Outcome::Cancelled);
    assert_eq!(hosts.state(End::SiteA, "web"), "running");
    prober.wait_for_answers(10);

    let stored =
        hosts.send(End::SiteA, &[&MAIN_JOB[..], &["--cold", "--compress", "off"]].concat()).end().moved();
    assert_eq!(hosts.states("web"), ["moved", "running"]);
    // S3-19: it stood still for the whole copy, and arrived as it was.
    let standing_ms = stored.downtime_ms.expect("it stood still");
    let copying = [Phase::Bulk, Phase::PreCopy, Phase::StopAndCopy];
    let of_copying = stored.phases.iter().filter(|(phase, _)| copying.contains(phase));
    assert_eq!(of_copying.clone().count(), copying.len(), "{:?}", stored.phases);
    let copying_ms: u64 = of_copying.map(|(_, ms)| ms).sum();
    assert!(standing_ms + stored.downtime_error_ms >= copying_ms, "{standing_ms} of {copying_ms} ms");
    insist_on_verified(&stored, 1);
    assert_eq!(stored.predicted_downtime_ms, None, "who suspends a guest asks for no prediction");
    assert!(stored.ram.sent_bytes >= stored.ram.raw_bytes, "{:?}", stored.ram);
    prober.wait_for_answers(20);

    let compressed = hosts.send(End::SiteB, &["--wan", "web", "site-a", "--compress", "on"]).end().moved();
    assert!(compressed.ram.sent_bytes * 2 < compressed.ram.raw_bytes, "{:?}", compressed.ram);
    assert_eq!(hosts.states("web"), ["running", "moved"]);
    prober.wait_for_answers(20);
    resident.judge(&hosts, End::SiteA, prober);
}

/// S1-03: a move says how long it may take, and has ended by then; the guest goes on. The copy is gone on with.
pub fn a_move_that_takes_too_long_is_given_up_and_the_next_one_is_not_in_vain() {
    let hosts = require!(Hosts::new(Plan::default()));
    let resident = require!(Resident::start(&hosts, &Recipe::default(), Work::default()));
    let prober = resident.watch(&hosts);
    let limited = [&MAIN_JOB[..], &SLOWLY, &["--time-limit", "4s"]].concat();
    let sending = hosts.send(End::SiteA, &limited);
    hosts.wait_for_event(End::SiteA, "tunnel: up");
    // From here on no packet rule can be removed: that holds up neither the guest nor who wants something of it.
    let site = hosts.site(End::SiteA);
    site.shell("mount --bind /bin/false $(command -v nft)");
    let report = sending.end().stayed(Outcome::RolledBack);
    let warned = "warning: the way of the guest's packets is not as it was";
    assert!(report.events.iter().any(|(_, what)| what.starts_with(warned)), "{:?}", report.events);
    assert!(report.events.iter().all(|(_, what)| !what.contains("cannot go on yet")), "{:?}", report.events);
    for (word, state) in [("pause", "paused"), ("resume", "running")] {
        hosts.migrated(End::SiteA, &[word, "web"]).run();
        assert_eq!(hosts.state(End::SiteA, "web"), state);
    }
    site.shell("umount $(command -v nft)");
    hosts.wait_for_event(End::SiteA, "the way of its packets is as it was");
    assert_eq!(hosts.tunnels(End::SiteA), [] as [String; 0]);
    let has_said =
        report.events.iter().any(|(_, what)| what.contains("given up if it takes longer than 4.0 s"));
    assert!(has_said, "{:?}", report.events);
    let why = report.reasons.join("; ");
    assert!(why.contains("may not take longer (--time-limit)") && why.contains("bandwidth"), "{why}");
    assert_eq!(hosts.state(End::SiteA, "web"), "running");
    prober.wait_for_answers(10);

    let sending = hosts.send(End::SiteA, &MAIN_JOB);
    sending.end().moved();
    prober.wait_for_answers(20);
    resident.judge(&hosts, End::SiteB, prober);
}

/// The link lies on a program's standard input and output, over a real WAN; when the programs are killed others take
/// their place, and it is the same move.
pub fn a_guest_moves_through_a_program_and_the_end_of_the_program_is_a_stall() {
    let hosts = require!(Hosts::with(long_lossy_link(), &memory_at_once()));
    let resident = require!(Resident::start(&hosts, &Recipe::default(), Work::default()));
    let prober = resident.watch(&hosts);
    let program = hosts.program(End::SiteA).display().to_string();
    let transport = format!("exec:{program} link-stdio --to {}:7700", End::SiteB.address());
    let sending = hosts.send(End::SiteA, &[&MAIN_JOB[..], &SLOWLY, &["--transport", &transport]].concat());
    let carriers = || {
        let all = hosts.processes(End::SiteA, "migrated");
        let is_carrier = |pid: &u32| {
            let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            line.split(|byte| *byte == 0).nth(1) == Some(b"link-stdio")
        };
        all.into_iter().filter(is_carrier).collect::<Vec<u32>>()
    };
    sending.wait_until("memory", |status| status.phase == Phase::PreCopy && status.ram.raw_bytes > 0);
    let first = carriers();
    assert_eq!(first.len(), 2, "one for control, one for the rest");
    hosts.wait_for_broken_link(End::SiteA, || first.iter().for_each(|pid| signal(*pid, Signal::SIGKILL)));
    hosts.wait_for_event(End::SiteA, "was killed by signal 9, and said nothing");
    // It may take less time than there is between two looks at the status: it is the others that stay.
    wait_until(PATIENCE, "other programs to carry the link", || {
        let now = carriers();
        now.len() == 2 && !now.iter().any(|pid| first.contains(pid))
    });
    let before = sending.last().link.sent_bytes;
    let back =
        sending.wait_until("the link to be back", |status| status.link.up && status.link.sent_bytes > before);
    assert_eq!(back.phase, Phase::PreCopy, "it goes on where it was");
    hosts.migrated(End::SiteA, &["set", "web", "bandwidth=none"]).run();
    let report = sending.end().moved();
    insist_on_one_attempt(&report);
    assert!(report.link.congestion_control.starts_with("by "), "{:?}", report.link);
    assert_eq!(hosts.states("web"), ["moved", "running"]);
    prober.wait_for_answers(20);
    resident.judge(&hosts, End::SiteB, prober);
    assert_eq!(carriers(), [] as [u32; 0], "what carried the link has ended with it");
}
