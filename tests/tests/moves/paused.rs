//! The link is lost while the guest is paused: before *releasing* the guest is the source's again after its deadline
//! or at a word, whatever the link does (M3, M5); after it, exactly one side has the guest (M1, M2; S2-33).
//!
//! ```text
//!  the guest is paused ──── releasing is journalled ──── taken ──── running
//!        └─ cut, cancelled        └─ half cut: it runs there, and the source knows when the link is back
//!        └─ cut, deadline
//! ```

use std::time::Duration;

use migrated::phase::{Outcome, Phase};
use migrated::report::{PauseEnd, Undone};
use tests::guest_kit::place::Place;
use tests::guest_kit::service::Service;
use tests::guest_kit::{ADDRESS, Recipe};
use tests::hosts::Hosts;
use tests::hosts::hold::Hold;
use tests::hosts::resident::{Resident, Work};
use tests::hosts::settings::Settings;
use tests::require;
use tests::wait::{PATIENCE, wait_until};
use tests::wan::End;
use tests::world::Plan;

use crate::in_doubt::{cut_the_way_back, hold_the_handover};
use crate::{MAIN_JOB, insist_on_its_own_bytes};

/// What of the guest's card passes where it has been.
const ITS_CARD: &str = "ether src 52:54:00:10:00:10";

/// Memory begins at once, and a paused guest waits at most so long.
pub fn impatient(paused: Duration) -> Settings {
    let paused_ms = paused.as_millis();
    let migration =
        format!("ram_start_ms = 3600000\nmax_downtime_ms = 6000\npaused_deadline_ms = {paused_ms}");
    Settings { migration, ..Settings::default() }
}

/// The guest stands still, and nothing of it is handed over yet.
pub fn hold_the_pause(hosts: &Hosts, source: End) -> Hold {
    hosts.hold(source, "source-seal")
}

/// Cut the link while the guest stands still. Its disk is being sealed afterwards.
fn cut_while_paused(hosts: &Hosts, pause: Hold) {
    pause.wait();
    hosts.world.wan.cut(End::SiteB);
    pause.let_go();
}

pub fn cut_off_while_it_is_paused_a_guest_goes_on_at_a_cancel_and_the_destination_is_clean_when_the_link_is_back()
 {
    // No deadline but the operator's word, for the guest and for the seal of its disk.
    let hosts = require!(Hosts::with(Plan::default(), &impatient(Duration::from_secs(600))));
    let resident = require!(Resident::start(&hosts, &Recipe::default(), Work::default()));
    let prober = resident.watch(&hosts);
    let before = hosts.traces(End::SiteB);

    let pause = hold_the_pause(&hosts, End::SiteA);
    let sending = hosts.send(End::SiteA, &MAIN_JOB);
    cut_while_paused(&hosts, pause);
    sending.wait_for(Phase::StopAndCopy);
    hosts.migrated(End::SiteA, &["cancel", "web"]).run();
    // With the link still down.
    prober.wait_for_answers(20);
    prober.wait_for_writes(0, 20);
    let report = sending.end().stayed(Outcome::Cancelled);
    let abort = report.abort.clone().expect("it has not moved");
    assert_eq!((abort.phase, abort.operation), (Phase::StopAndCopy, None), "S0-48");
    let wanted =
        [Undone::PathBack, Undone::MemoryGivenUp, Undone::GuestResumed, Undone::DestinationUnreached];
    assert!(wanted.iter().all(|one| abort.undone.contains(one)), "{abort:?}");
    assert!(report.phases.iter().any(|(phase, _)| *phase == Phase::StopAndCopy), "{:?}", report.phases);
    assert!(report.phases.iter().all(|(phase, _)| *phase != Phase::Commitment), "{:?}", report.phases);
    let [pause] = &report.pauses[..] else { panic!("it stood still once: {:?}", report.pauses) };
    assert_eq!((pause.attempt, pause.phase, pause.end), (1, Phase::StopAndCopy, PauseEnd::Resumed));
    assert_eq!(report.downtime_ms, Some(pause.lasted_ms));
    assert_eq!(hosts.state(End::SiteA, "web"), "running");
    assert_eq!(hosts.tunnels(End::SiteA), [] as [String; 0]);
    hosts.world.wan.restore(End::SiteB);
    hosts.wait_until_clean(End::SiteB, &before, true);
    resident.judge(&hosts, End::SiteA, prober);
}

/// S2-33, S2-44, S3-36.
pub fn with_the_way_back_cut_after_releasing_the_guest_is_at_the_destination_alone_and_the_source_asks() {
    let hosts = require!(Hosts::with(Plan::default(), &impatient(Duration::from_secs(8))));
    let resident = require!(Resident::start(&hosts, &Recipe::default(), Work::default()));
    let prober = resident.watch(&hosts);
    let captured = hosts.site(End::SiteA).capture("br0", ITS_CARD);
    prober.wait_for_answers(5);
    assert!(!captured.finish().packets().is_empty(), "the guest's packets are seen while it is here");
    let handover = hold_the_handover(&hosts);
    let sending = hosts.send(End::SiteA, &[&MAIN_JOB[..], &["--bandwidth", "4MB"]].concat());
    let capped = sending.wait_for(Phase::PreCopy);
    assert_eq!(capped.link.limit_bytes_per_s, Some(4_000_000));
    cut_the_way_back(&hosts, handover);
    let there = Service::at(Place::beside(hosts.site(End::SiteB).pid()), ADDRESS);
    there.wait_until_it_answers();
    let meanwhile = sending.wait_until("the link to be lost", |status| !status.link.up);
    assert!(matches!(meanwhile.phase, Phase::Commitment | Phase::InDoubt), "{:?}", meanwhile.phase);
    assert_eq!(meanwhile.link.limit_bytes_per_s, None, "S2-44: no limit while the guest stands still");
    assert_eq!(hosts.state(End::SiteA, "web"), "migrating");
    // Nothing leads back any more.
    let late = hosts.migrated(End::SiteA, &["cancel", "web"]).refused();
    assert!(late.contains("may have the guest already"), "{late}");
    // S3-36: nothing of its card passes here any more, until nothing of it is left here.
    let captured = hosts.site(End::SiteA).capture("br0", ITS_CARD);
    hosts.world.wan.restore(End::SiteB);
    sending.end().moved();
    prober.wait_for_answers(20);
    assert_eq!(captured.finish().packets(), [] as [&[u8]; 0]);
    wait_until(PATIENCE, "both to say so", || hosts.states("web") == ["moved", "running"]);
    resident.judge(&hosts, End::SiteB, prober);
}

/// M3, S2-44: the deadline runs while the link is down; the migration goes on when it is back.
pub fn cut_off_while_it_is_paused_a_guest_runs_again_after_its_deadline_and_moves_when_the_link_is_back() {
    let hosts = require!(Hosts::with(Plan::default(), &impatient(Duration::from_secs(8))));
    let resident = require!(Resident::start(&hosts, &Recipe::default(), Work::default()));
    let prober = resident.watch(&hosts);
    let pause = hold_the_pause(&hosts, End::SiteA);
    let sending = hosts.send(End::SiteA, &[&MAIN_JOB[..], &["--bandwidth", "4MB"]].concat());
    cut_while_paused(&hosts, pause);
    sending.wait_for(Phase::StopAndCopy);
    // The deadline gives it back, with the link still down.
    prober.wait_for_answers(20);
    assert_eq!(hosts.state(End::SiteA, "web"), "migrating");
    hosts.world.wan.restore(End::SiteB);
    sending.wait_until("S2-44: its limit again, now that the guest runs", |status| {
        status.phase == Phase::PreCopy && status.link.limit_bytes_per_s == Some(4_000_000)
    });
    let report = sending.end().moved();
    let [given_up, moved] = &report.pauses[..] else { panic!("two pauses: {:?}", report.pauses) };
    assert_eq!((given_up.attempt, given_up.end), (1, PauseEnd::Resumed));
    assert_eq!((moved.attempt, moved.end), (2, PauseEnd::Moved));
    assert!(given_up.lasted_ms >= 8_000, "its deadline: {given_up:?}");
    assert_eq!(report.downtime_ms, Some(given_up.lasted_ms + moved.lasted_ms));
    insist_on_its_own_bytes(&report);
    // It hears of the end a quarter of a second later.
    wait_until(PATIENCE, "both to say so", || hosts.states("web") == ["moved", "running"]);
    prober.wait_for_answers(20);
    resident.judge(&hosts, End::SiteB, prober);
}
