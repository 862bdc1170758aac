//! What is done to the guest's QEMU behind the daemon's back while the guest moves: each has the outcome that
//! `docs/migration.md` promises (S1-21).

use migrated::phase::{Op, Outcome, Phase};
use migrated::report::Undone;
use serde_json::json;
use tests::guest_kit::Recipe;
use tests::hosts::Hosts;
use tests::hosts::monitor::TALKATIVE;
use tests::hosts::resident::{Resident, Work};
use tests::hosts::settings::Settings;
use tests::require;
use tests::requires::program;
use tests::wait::{PATIENCE, wait_until};
use tests::wan::End;
use tests::world::Plan;

use crate::{MAIN_JOB, SLOWLY, memory_at_once};

fn talkative(settings: Settings) -> Settings {
    Settings { qemu_a: Some(TALKATIVE.to_owned()), qemu_b: Some(TALKATIVE.to_owned()), ..settings }
}

/// In the bulk copy QEMU does not know yet that the guest moves, and lets everything be plugged.
pub fn a_device_that_is_plugged_in_during_the_copy_is_named_before_memory_goes_and_one_that_is_out_again_harms_not()
 {
    let hosts = require!(Hosts::with(Plan::default(), &talkative(Settings::default())));
    for end in [End::SiteA, End::SiteB] {
        hosts.place_talkative_qemu(end);
    }
    let resident = require!(Resident::start(&hosts, &Recipe::default(), Work::default()));
    let prober = resident.watch(&hosts);
    let mut operator = hosts.operator(End::SiteA);

    let sending = hosts.send(End::SiteA, &[&MAIN_JOB[..], &SLOWLY].concat());
    sending.wait_for(Phase::Bulk);
    // A node that no device uses is nothing of the guest's.
    operator.ask("blockdev-add", json!({ "driver": "null-co", "node-name": "spare" }));
    operator.ask("device_add", json!({ "driver": "virtio-balloon-pci", "id": "late" }));
    hosts.migrated(End::SiteA, &["set", "web", "bandwidth=none"]).run();
    let report = sending.end().stayed(Outcome::RolledBack);
    assert!(report.reasons.iter().any(|reason| reason.contains("late")), "{:?}", report.reasons);
    let abort = report.abort.expect("it has not moved");
    assert_eq!((abort.phase, abort.operation), (Phase::PreCopy, Some(Op::StartRam)));
    assert_eq!(report.ram.sent_bytes, 0);
    assert_eq!(hosts.states("web"), ["running", ""]);
    prober.wait_for_answers(10);

    // Known from the beginning, it is refused.
    let reasons = hosts.send(End::SiteA, &MAIN_JOB).end().stayed(Outcome::Refused).reasons.join("\n");
    assert!(reasons.contains("late") && reasons.contains("plug them out"), "{reasons}");
    operator.ask("device_del", json!({ "id": "late" }));
    operator.wait_for_event(PATIENCE, "DEVICE_DELETED", |data| data["device"] == "late");
    hosts.send(End::SiteA, &MAIN_JOB).end().moved();
    resident.judge(&hosts, End::SiteB, prober);
}

/// Also S3-17, S2-47: the end of QEMU, and of its migration, is noticed, and the guest runs where it was.
pub fn what_is_done_to_qemu_behind_the_daemons_back_while_memory_goes_ends_as_promised() {
    require!(program("python3"));
    let mut hosts = require!(Hosts::with(Plan::default(), &talkative(memory_at_once())));
    for end in [End::SiteA, End::SiteB] {
        hosts.place_talkative_qemu(end);
    }
    let resident = require!(Resident::start(&hosts, &Recipe::default(), Work::default()));
    let prober = resident.watch(&hosts);
    let before = [End::SiteA, End::SiteB].map(|end| hosts.traces(end));

    // By the command line nothing else can be done with it; by QEMU nothing plugged.
    let mut operator = hosts.operator(End::SiteA);
    let sending = hosts.send(End::SiteA, &[&MAIN_JOB[..], &SLOWLY].concat());
    let id = sending.wait_for(Phase::PreCopy).id;
    for words in [&["stop", "web", "--now"][..], &["pause", "web"], &["resume", "web"]] {
        let refused = hosts.migrated(End::SiteA, words).refused();
        assert!(refused.contains(&id), "{words:?}: {refused}");
    }
    let late = json!({ "driver": "virtio-balloon-pci", "id": "late" });
    let disk = json!({ "id": resident.guest.disks[0].id });
    for (command, of) in [("device_add", late), ("device_del", disk)] {
        let refused = operator.refused(command, of);
        assert!(refused.contains("migrating"), "{refused}");
    }

    // An operator has QEMU give its migration up.
    operator.ask("migrate_cancel", json!({}));
    let report = sending.end().stayed(Outcome::RolledBack);
    let abort = report.abort.expect("it has not moved");
    assert_eq!((abort.phase, abort.operation), (Phase::PreCopy, Some(Op::AwaitPause)));
    // QEMU shuts its socket before it notes why: its memory's thread can find the one before the other.
    let cause = abort.cause();
    assert!(cause.contains("cancel") || cause.contains("Unable to write to socket"), "{abort:?}");
    assert!(abort.undone.contains(&Undone::DestinationTold), "{abort:?}");
    assert_eq!(hosts.states("web"), ["running", ""]);
    hosts.wait_until_clean(End::SiteB, &before[1], true);
    prober.wait_for_answers(10);

    // The daemon's own connection breaks, and is made again: the same migration goes on.
    let sending = hosts.send(End::SiteA, &[&MAIN_JOB[..], &SLOWLY].concat());
    sending.wait_for(Phase::PreCopy);
    hosts.break_monitor(End::SiteA, "web");
    hosts.wait_for_event(End::SiteA, "broke, and was made again");
    assert_eq!(sending.wait_for(Phase::PreCopy).outcome, None);
    hosts.migrated(End::SiteA, &["set", "web", "bandwidth=none"]).run();
    let report = sending.end().moved();
    let attempts = report.phases.iter().filter(|(phase, _)| *phase == Phase::PreCopy).count();
    assert_eq!(attempts, 1, "{:?}", report.phases);
    assert_eq!(hosts.states("web"), ["moved", "running"]);
    prober.wait_for_answers(10);
    drop(prober);

    // QEMU is told to end at its source: the guest is off there, and the reason is named.
    let operator = hosts.operator(End::SiteB);
    let before = hosts.traces(End::SiteA);
    let sending = hosts.send(End::SiteB, &["--wan", "web", "site-a", SLOWLY[0], SLOWLY[1]]);
    sending.wait_for(Phase::PreCopy);
    operator.quit();
    let report = sending.end().stayed(Outcome::RolledBack);
    // Which of the two is known first is chance.
    let reasons = report.reasons.join("\n");
    assert!(reasons.contains("QEMU has ended") || reasons.contains("has shut itself down"), "{reasons}");
    wait_until(PATIENCE, "the guest to be off", || hosts.states("web") == ["moved", "stopped"]);
    hosts.wait_until_clean(End::SiteA, &before, true);
}
