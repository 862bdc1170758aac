//! Disks that run full or fail while a guest moves, at either host: it goes on where it is, somebody is told which disk of
//! which host it is and what to do, and with room again, or a disk that is well, it moves (docs/migration.md, disks).
//!
//! What fills a disk comes after the reservation has looked: somebody else's file.

use std::time::Duration;

use migrated::phase::{Outcome, Phase};
use migrated::status::Status;
use tests::hosts::Hosts;
use tests::hosts::resident::{Resident, Work};
use tests::hosts::settings::Settings;
use tests::require;
use tests::requires::programs;
use tests::site::volume::Volume;
use tests::wait::{PATIENCE, wait_until};
use tests::wan::End;
use tests::world::Plan;

use crate::cuts::{STAYER, recipe};
use crate::memory_at_once;
use crate::paused::{hold_the_pause, impatient};
use crate::restarts::restart;

/// Room for the guest's disk, and a little more.
const IMAGES_MIB: u64 = 104;

/// A rate at which there is time to do something to a disk, also where that takes long.
const SLOWER: [&str; 2] = ["--bandwidth", "500kB"];

fn has_begun_to_copy(status: &Status) -> bool {
    status.disks.iter().any(|disk| disk.sent_bytes > 1 << 20)
}

fn is_told(status: &Status, words: &str) -> bool {
    status.warnings.iter().any(|warning| warning.contains(words))
}

/// Room for what is in use of it, and for some of the rest.
const THIN_IMAGES_MIB: u64 = 66;

/// Full for as long as anybody waits, while memory goes. The disk was promised more room than there ever was.
pub fn a_destination_that_runs_full_says_so_and_the_guest_stays_until_there_is_room() {
    require!(programs(&["mkfs.ext4", "losetup"]));
    let mut settings = memory_at_once();
    settings.migration += "\ndisk_trouble_ms = 4000";
    settings.limits_b = "disk_overcommit = 4".to_owned();
    let hosts = require!(Hosts::with(Plan::default(), &settings));
    let site = hosts.site(End::SiteB);
    let images = Volume::plain(site, "images", THIN_IMAGES_MIB);
    let resident = require!(Resident::start(&hosts, &recipe(), Work::default()));
    let prober = resident.watch(&hosts);
    let before = hosts.traces(End::SiteB);

    let sending = hosts.send(End::SiteA, &[&STAYER[..], &SLOWER].concat());
    sending.wait_until("memory, and some of the disk", |status| {
        status.phase == Phase::PreCopy && has_begun_to_copy(status)
    });
    images.fill(site);
    let reasons = sending.end().stayed(Outcome::RolledBack).reasons.join("\n");
    for words in ["the copy of disk \"vda\" at site-b", "No space left", "make room in images_dir of site-b"]
    {
        assert!(reasons.contains(words), "no {words:?} in {reasons}");
    }
    assert_eq!(hosts.states("stayer"), ["running", ""]);
    hosts.wait_until_clean(End::SiteB, &before, true);
    prober.wait_for_answers(10);

    let refused = hosts.send(End::SiteA, &STAYER).end().stayed(Outcome::Refused).reasons.join("\n");
    assert!(refused.contains("disk: ") && refused.contains("make room"), "{refused}");
    images.make_room(site);
    hosts.send(End::SiteA, &STAYER).end().moved();
    prober.wait_for_answers(20);
    resident.judge(&hosts, End::SiteB, prober);
}

/// Room is made while the move waits for it. The folders in which both hosts remember run full besides: a move does not
/// begin then, but one that has begun ends, and so does what could not be written down meanwhile.
pub fn with_room_in_time_a_move_goes_on_and_full_state_folders_stop_none_that_has_begun() {
    require!(programs(&["mkfs.ext4", "losetup"]));
    let settings = Settings { state_mib: Some(8), ..Settings::default() };
    let mut hosts = require!(Hosts::with(Plan::default(), &settings));
    let images = Volume::plain(hosts.site(End::SiteB), "images", IMAGES_MIB);
    let resident = require!(Resident::start(&hosts, &recipe(), Work::default()));
    let prober = resident.watch(&hosts);
    for (end, state) in [End::SiteA, End::SiteB].into_iter().zip(&hosts.state_dirs) {
        state.fill(hosts.site(end));
        let refused = hosts.send(End::SiteA, &STAYER).end().stayed(Outcome::Refused).reasons.join("\n");
        assert!(refused.contains("state_dir") && refused.contains("No space left"), "{refused}");
        assert_eq!(hosts.states("stayer"), ["running", ""]);
        state.make_room(hosts.site(end));
    }

    let sending = hosts.send(End::SiteA, &[&STAYER[..], &SLOWER].concat());
    let copying = |status: &Status| status.phase == Phase::Bulk && has_begun_to_copy(status);
    let id = sending.wait_until("some of the disk", copying).id;
    images.fill(hosts.site(End::SiteB));
    for (end, state) in [End::SiteA, End::SiteB].into_iter().zip(&hosts.state_dirs) {
        state.fill(hosts.site(end));
    }
    let told = sending.wait_until("the trouble to be told", |status| {
        is_told(status, "make room in images_dir of site-b: it is tried again for 60 s")
    });
    assert_eq!(told.phase, Phase::Bulk);
    prober.wait_for_answers(10);
    images.make_room(hosts.site(End::SiteB));
    hosts.wait_for_event(End::SiteA, "disk vda: it works again");
    hosts.migrated(End::SiteA, &["set", &id, "bandwidth=none"]).run();
    sending.end().moved();
    assert_eq!(hosts.states("stayer"), ["moved", "running"]);

    for (end, state) in [End::SiteA, End::SiteB].into_iter().zip(&hosts.state_dirs) {
        state.make_room(hosts.site(end));
    }
    for end in [End::SiteA, End::SiteB] {
        restart(&mut hosts, end);
    }
    wait_until(PATIENCE, "both to know it again", || hosts.states("stayer") == ["moved", "running"]);
    prober.wait_for_answers(20);
    resident.judge(&hosts, End::SiteB, prober);
}

/// The destination's disk fails: while the guest runs that is waited for, while it stands still it is not.
pub fn a_destination_whose_disk_fails_is_waited_for_but_by_no_guest_that_stands_still() {
    require!(programs(&["mkfs.ext4", "losetup", "nbdfuse", "nbdkit"]));
    let hosts = require!(Hosts::with(Plan::default(), &impatient(Duration::from_secs(12))));
    let site = hosts.site(End::SiteB);
    let images = Volume::faulty(site, "images", IMAGES_MIB, Duration::ZERO);
    let resident = require!(Resident::start(&hosts, &recipe(), Work::default()));
    let prober = resident.watch(&hosts);
    let pause = hold_the_pause(&hosts, End::SiteA);
    let sending = hosts.send(End::SiteA, &[&STAYER[..], &["--bandwidth", "3MB"]].concat());
    let id = sending.wait_until("some of the disk", has_begun_to_copy).id;
    images.fail_writes(site, true);
    sending.wait_until("the trouble to be told", |status| is_told(status, "look at that disk of site-b"));
    images.fail_writes(site, false);
    hosts.migrated(End::SiteA, &["set", &id, "bandwidth=none"]).run();
    pause.wait();
    images.fail_writes(site, true);
    pause.let_go();
    let reasons = sending.end().stayed(Outcome::RolledBack).reasons.join("\n");
    let words = "the copy of disk \"vda\" at site-b fails";
    assert!(reasons.contains(words) && reasons.contains("Input/output error"), "{reasons}");
    assert_eq!(hosts.states("stayer"), ["running", ""]);
    prober.wait_for_answers(10);
    images.fail_writes(site, false);
    hosts.send(End::SiteA, &STAYER).end().moved();
    prober.wait_for_answers(20);
    resident.judge(&hosts, End::SiteB, prober);
}

/// S0-04: the guest leaves a host whose disk is slow, and of which some reads fail until they are tried again.
pub fn a_guest_leaves_a_slow_disk_of_which_some_reads_fail() {
    require!(programs(&["mkfs.ext4", "losetup", "nbdfuse", "nbdkit"]));
    let hosts = require!(Hosts::new(Plan::default()));
    let site = hosts.site(End::SiteA);
    let images = Volume::faulty(site, "images", IMAGES_MIB, Duration::from_millis(2));
    let resident = require!(Resident::start(&hosts, &recipe(), Work::default()));
    let prober = resident.watch(&hosts);
    images.drop_cache(site);
    let sending = hosts.send(End::SiteA, &[&STAYER[..], &["--bandwidth", "3MB"]].concat());
    let id = sending.wait_until("some of the disk", has_begun_to_copy).id;
    images.fail_reads(site, true);
    sending.wait_until("the trouble to be told", |status| is_told(status, "disk \"vda\" at site-a fails"));
    images.fail_reads(site, false);
    hosts.migrated(End::SiteA, &["set", &id, "bandwidth=none"]).run();
    let report = sending.end().moved();
    assert!(report.events.iter().any(|(_, what)| what.contains("it works again")), "{:?}", report.events);
    assert_eq!(hosts.states("stayer"), ["moved", "running"]);
    prober.wait_for_answers(20);
    resident.judge(&hosts, End::SiteB, prober);
}

/// S1-21, D9: a disk of the guest's own fails it, and QEMU pauses it. A flush that failed is never called done afterwards, so
/// the guest has to begin anew, with all that it was told is on its disk.
pub fn a_guest_whose_own_disk_fails_while_it_moves_stays_where_it_is_and_lies_to_nobody_about_its_writes() {
    require!(programs(&["mkfs.ext4", "losetup", "nbdfuse", "nbdkit"]));
    let hosts = require!(Hosts::new(Plan::default()));
    let site = hosts.site(End::SiteA);
    let images = Volume::faulty(site, "images", IMAGES_MIB, Duration::ZERO);
    let resident = require!(Resident::start(&hosts, &recipe(), Work::default()));
    let prober = resident.watch(&hosts);
    let before = hosts.traces(End::SiteB);
    let sending = hosts.send(End::SiteA, &[&STAYER[..], &SLOWER].concat());
    sending.wait_until("some of the disk", has_begun_to_copy);
    images.fail_writes(site, true);
    let report = sending.end().stayed(Outcome::RolledBack);
    let why = report.reasons.join("\n");
    for words in ["QEMU has paused the guest", "on its disk-vda failed", "`migrated resume stayer`"] {
        assert!(why.contains(words), "no {words:?} in {why}");
    }
    assert_eq!(hosts.states("stayer"), ["io-error", ""]);
    hosts.wait_until_clean(End::SiteB, &before, true);
    let listed = hosts.migrated(End::SiteA, &["list"]).run();
    assert!(listed.contains("a disk of its own failed: see to the disk"), "{listed}");
    let refused = hosts.send(End::SiteA, &STAYER).end().stayed(Outcome::Refused).reasons.join("\n");
    assert!(refused.contains("the guest stands still") && refused.contains("see to the disk"), "{refused}");

    images.fail_writes(site, false);
    hosts.migrated(End::SiteA, &["resume", "stayer"]).run();
    wait_until(PATIENCE, "the guest to stand still again", || hosts.states("stayer") == ["io-error", ""]);
    hosts.migrated(End::SiteA, &["stop", "stayer", "--now"]).run();
    images.drop_cache(site);
    resident.judge_disks(&hosts, End::SiteA, prober);
    hosts.migrated(End::SiteA, &["run", &hosts.description(End::SiteA)]).run();
    resident.service.wait_until_it_answers();
    hosts.send(End::SiteA, &STAYER).end().moved();
    assert_eq!(hosts.states("stayer"), ["moved", "running"]);
    resident.service.wait_until_it_answers();
}
