//! Room at the destination for one guest, and two that want it: one gets it, the other hears who has it (S0-37); the room
//! counts as used from the look until it is given back, whatever becomes of the one that has it (S0-38).
//!
//! ```text
//! one ─┐                 cancelled, QEMU killed, either daemon killed, the link cut: free again
//! two ─┴─► room for one ─┤
//!                        └ moved: in use until the guest ends there
//! ```

use std::fs;

use migrated::phase::{Outcome, Phase};
use migrated::report::{Report, Undone};
use nix::sys::signal::Signal;
use serde_json::Value;
use tests::hosts::Hosts;
use tests::hosts::sending::Sending;
use tests::hosts::settings::Settings;
use tests::program::signal;
use tests::require;
use tests::requires::Missing;
use tests::wait::{PATIENCE, wait_for, wait_until};
use tests::wan::End;
use tests::world::Plan;
use tests::{boot_sector, requires};

use crate::SLOWLY;

/// Room for one of 128 MiB; a link that is down is soon given up.
fn settings() -> Settings {
    Settings {
        limits_b: "memory_mib = 200".to_owned(),
        migration: "paused_deadline_ms = 3000\nlease_ms = 4000".to_owned(),
        json_logs: true,
        ..Settings::default()
    }
}

/// A guest that halts, with a disk that takes half a minute on a slow link. Gives its description.
fn describe(hosts: &Hosts, end: End, name: &str) -> String {
    let site = hosts.site(end);
    site.shell(&format!("head -c 8M /dev/urandom > /site/images/{name}.raw"));
    boot_sector::install(&site.join("images").join(format!("{name}.raw")), boot_sector::HALTING);
    let description = format!(
        "name = {name:?}\nmemory_mib = 128\naccel = \"tcg\"\n[[disk]]\nid = \"root\"\nimage = \"{name}.raw\"\n"
    );
    fs::write(site.join(format!("{name}.toml")), description).expect("write a description");
    site.inside(format!("{name}.toml")).display().to_string()
}

fn slowly(hosts: &Hosts, guest: &str) -> Sending {
    hosts.send(End::SiteA, &[&[guest, "site-b"], &SLOWLY[..]].concat())
}

fn look(guest: &str) -> [&str; 4] {
    ["send", "--dry-run", guest, "site-b"]
}

#[track_caller]
fn wait_until_free(hosts: &Hosts, guest: &str) {
    wait_until(PATIENCE, "the room to be free again", || {
        hosts.migrated(End::SiteA, &look(guest)).output().status.success()
    });
    assert_eq!(hosts.state(End::SiteB, guest), "", "a look leaves nothing");
}

/// S0-48: the one line of a daemon's log that says how a migration ended, its fields those of the report.
#[track_caller]
fn assert_logged(hosts: &Hosts, report: &Report) {
    let abort = report.abort.as_ref().expect("who has not moved has a record of it");
    let log = hosts.log(End::SiteA);
    let lines: Vec<Value> = log
        .lines()
        .filter_map(|line| serde_json::from_str::<Value>(line).ok())
        .filter(|fields| fields["migration"] == *report.id && fields["message"] == "the guest was not moved")
        .collect();
    let [fields] = &lines[..] else { panic!("one line for {}, not {lines:?}", report.id) };
    assert_eq!(fields["outcome"], report.outcome.name());
    assert_eq!(fields["phase"], abort.phase.name());
    assert_eq!(fields["operation"], abort.operation());
    assert_eq!(fields["cause"], abort.cause());
    assert_eq!(fields["undone"], abort.undone());
    assert!(!abort.causes.is_empty() && !abort.cause().is_empty(), "{abort:?}");
    let kept = fs::read(hosts.site(End::SiteA).join(format!("state/reports/{}.json", report.id)));
    let kept: Report = serde_json::from_slice(&kept.expect("the report is kept")).expect("it is one");
    assert_eq!(kept.abort.as_ref(), Some(abort));
}

fn undone(report: &Report) -> &[Undone] {
    &report.abort.as_ref().expect("it has not moved").undone
}

/// Two guests at site A that fit into site B one at a time.
fn two_guests() -> Result<Hosts, Missing> {
    requires::root()?;
    let hosts = Hosts::with(Plan::default(), &settings())?;
    for name in ["one", "two"] {
        hosts.migrated(End::SiteA, &["run", &describe(&hosts, End::SiteA, name)]).run();
    }
    Ok(hosts)
}

/// S0-37, S0-38, S0-48.
pub fn of_two_guests_that_want_the_same_room_one_gets_it_until_it_is_given_back() {
    let hosts = require!(two_guests());
    // At once: one wins, and the other is told by whom.
    let sendings = ["one", "two"].map(|guest| slowly(&hosts, guest));
    let is_refused = |sending: &Sending| {
        sending.seen().last().is_some_and(|status| status.outcome == Some(Outcome::Refused))
    };
    let refused = wait_for(PATIENCE, "one to be refused", || sendings.iter().position(is_refused));
    let [first, second] = sendings;
    let (winner, guest, loser, other) =
        if refused == 1 { (first, "one", second, "two") } else { (second, "two", first, "one") };
    let id = winner.wait_for(Phase::Bulk).id;
    let report = loser.end().stayed(Outcome::Refused);
    let held = format!("migration {id} from site-a holds it");
    assert!(report.reasons.iter().any(|reason| reason.contains(&held)), "{:?}", report.reasons);
    assert_eq!(report.abort.as_ref().map(|abort| abort.phase), Some(Phase::Reservation));
    assert_logged(&hosts, &report);
    // It counts from the look on, also for those who only look.
    let looked = hosts.migrated(End::SiteA, &look(other)).refused();
    assert!(looked.contains(&held), "{looked}");
    // And for those who start a guest there, who are told all that is in the way at once.
    let third = describe(&hosts, End::SiteB, "third");
    let site = hosts.site(End::SiteB);
    site.shell("rm /site/images/third.raw");
    let taken = hosts.migrated(End::SiteB, &["run", &third]).refused();
    assert!(taken.contains("memory: 128 MiB are needed") && taken.contains(&held), "{taken}");
    assert!(taken.contains("disk root: image third.raw: it is not in images_dir"), "{taken}");
    assert_eq!(hosts.state(End::SiteB, "third"), "", "it never was a guest of this host");

    // Cancelled.
    hosts.migrated(End::SiteA, &["cancel", &id]).run();
    let report = winner.end().stayed(Outcome::Cancelled);
    wait_until_free(&hosts, other);
    assert_eq!(report.abort.as_ref().map(|abort| abort.phase), Some(Phase::Bulk));
    assert_eq!(undone(&report), [Undone::DestinationTold, Undone::RecordingEnded]);
    assert_logged(&hosts, &report);

    // Failed: the destination's QEMU dies.
    let sending = slowly(&hosts, guest);
    sending.wait_for(Phase::Bulk);
    let [qemu] = hosts.processes(End::SiteB, "qemu-system-x86_64")[..] else { panic!("one QEMU waits") };
    signal(qemu, Signal::SIGKILL);
    let report = sending.end().stayed(Outcome::RolledBack);
    wait_until_free(&hosts, other);
    assert!(report.abort.as_ref().is_some_and(|abort| abort.cause().contains("QEMU")), "{report:?}");
    assert_logged(&hosts, &report);

    // Moved: in use as long as it is there.
    hosts.send(End::SiteA, &[guest, "site-b"]).end().moved();
    let looked = hosts.migrated(End::SiteA, &look(other)).refused();
    assert!(looked.contains("memory: 128 MiB are needed"), "{looked}");
    let third = describe(&hosts, End::SiteB, "third");
    let taken = hosts.migrated(End::SiteB, &["run", &third]).refused();
    assert!(taken.contains("memory: 128 MiB are needed") && !taken.contains("disk"), "{taken}");
    hosts.migrated(End::SiteB, &["stop", guest, "--now"]).run();
    wait_until_free(&hosts, other);
    hosts.migrated(End::SiteB, &["run", &third]).run();
    let looked = hosts.migrated(End::SiteA, &look(other)).refused();
    assert!(looked.contains("memory: 128 MiB are needed"), "{looked}");
}

/// S0-37: after a crash of either daemon, and when the link does not come back.
pub fn room_is_free_again_when_a_daemon_that_reserved_it_dies_or_is_not_heard_any_more() {
    let (guest, other) = ("one", "two");
    let mut hosts = require!(two_guests());
    let before = hosts.traces(End::SiteB);

    // The destination's daemon crashes; the migration is given up before it is back.
    let sending = slowly(&hosts, guest);
    let id = sending.wait_for(Phase::Bulk).id;
    hosts.daemon(End::SiteB).kill();
    hosts.migrated(End::SiteA, &["cancel", &id]).run();
    let report = sending.end().stayed(Outcome::Cancelled);
    assert!(undone(&report).contains(&Undone::DestinationUnreached), "{report:?}");
    hosts.start(End::SiteB);
    wait_until_free(&hosts, other);

    // The link is cut, and the lease ends.
    let sending = slowly(&hosts, guest);
    sending.wait_for(Phase::Bulk);
    hosts.world.wan.cut(End::SiteB);
    hosts.wait_until_clean(End::SiteB, &before, true);
    let report = sending.end().stayed(Outcome::RolledBack);
    assert!(undone(&report).contains(&Undone::DestinationUnreached), "{report:?}");
    hosts.world.wan.restore(End::SiteB);
    wait_until_free(&hosts, other);

    // The source's daemon crashes; the next one is told to give the migration up.
    let sending = slowly(&hosts, guest);
    let id = sending.wait_for(Phase::Bulk).id;
    hosts.daemon(End::SiteA).kill();
    drop(sending);
    hosts.wait_until_clean(End::SiteB, &before, true);
    hosts.start(End::SiteA);
    hosts.migrated(End::SiteA, &["cancel", &id]).run();
    hosts.migrated(End::SiteA, &["status", &id, "--watch"]).output();
    wait_until_free(&hosts, other);
}
