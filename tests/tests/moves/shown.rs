//! A move in the background, and what can be asked of it (S2-22, S2-24).

use migrated::phase::{Outcome, Phase};
use migrated::report::Report;
use migrated::status::Status;
use tests::guest_kit::Recipe;
use tests::hosts::Hosts;
use tests::hosts::resident::{Resident, Work};
use tests::hosts::settings::Settings;
use tests::require;
use tests::wait::{PATIENCE, wait_for, wait_until};
use tests::wan::End;
use tests::world::Plan;

use crate::MAIN_JOB;

/// The phases of a move that succeeds, in order (S3-25).
const PHASES: [Phase; 11] = [
    Phase::PreMigration,
    Phase::Connect,
    Phase::Reservation,
    Phase::Bulk,
    Phase::PreCopy,
    Phase::StopAndCopy,
    Phase::Releasing,
    Phase::Commitment,
    Phase::Resume,
    Phase::Readdress,
    Phase::Done,
];

fn status(hosts: &Hosts, end: End, id: &str) -> Status {
    let [found]: [Status; 1] =
        serde_json::from_value(hosts.ask(end, &["status", id])).expect("one migration has this number");
    found
}

fn when(report: &Report, what: &str) -> usize {
    let found = report.events.iter().position(|(_, event)| event.contains(what));
    found.unwrap_or_else(|| panic!("no {what:?} in {:?}", report.events))
}

pub fn a_move_in_the_background_is_shown_while_it_runs_and_its_report_is_kept() {
    let hosts = require!(Hosts::with(Plan::default(), &Settings { qemu_logs: true, ..Settings::default() }));
    let resident = require!(Resident::start(&hosts, &Recipe::default(), Work::default()));
    let words = [&MAIN_JOB[..], &["--bandwidth", "2MB"]].concat();
    // S3-08: the destination shows it before it has even looked at itself.
    let looking = hosts.hold(End::SiteB, "destination-look");
    let id = &*hosts.send_detached(End::SiteA, &words);
    looking.wait();
    let [here, there] = [End::SiteA, End::SiteB].map(|end| status(&hosts, end, id));
    assert_eq!((here.phase, here.incoming), (Phase::Reservation, false));
    assert_eq!((there.phase, there.incoming), (Phase::Reservation, true));
    assert_eq!(hosts.state(End::SiteA, "web"), "migrating");
    looking.let_go();
    // The prompt is back, and the move goes on.
    let running = wait_for(PATIENCE, "the disk to go", || {
        let now = status(&hosts, End::SiteA, id);
        (now.phase == Phase::Bulk && !now.disks.is_empty()).then_some(now)
    });
    assert_eq!((running.outcome, running.guest.as_str(), running.incoming), (None, "web", false));
    let mirrored = wait_for(PATIENCE, "the destination to show it too", || {
        Some(status(&hosts, End::SiteB, id)).filter(|there| !there.disks.is_empty())
    });
    assert!(mirrored.incoming);
    // S2-41: the guest is started there, and waits; what it writes here is recorded.
    assert_eq!(hosts.states("web"), ["migrating", "incoming"]);
    let bytes = [End::SiteA, End::SiteB].map(|end| {
        let image = resident.image(&hosts, end, 0);
        std::fs::metadata(image).expect("a disk's image").len()
    });
    assert_eq!(bytes[0], bytes[1], "S4-12: a disk is as large as its copy");
    assert_eq!(hosts.processes(End::SiteB, "qemu-system-x86_64").len(), 1);
    wait_until(PATIENCE, "a write to be recorded", || {
        status(&hosts, End::SiteA, id).disks.iter().any(|disk| disk.deltas_total > 0)
    });
    let page = hosts.migrated(End::SiteA, &["status", id]).run();
    assert!(page.contains("site-a -> site-b") && page.contains(id), "{page}");
    hosts.migrated(End::SiteA, &["set", id, "bandwidth=none"]).run();
    let watched = hosts.migrated(End::SiteA, &["status", id, "--watch"]).output();
    assert_eq!(watched.status.code(), Some(0), "{watched:?}");

    // Asked again afterwards it has the report, as JSON and as text.
    let ended = status(&hosts, End::SiteA, id);
    assert_eq!((ended.phase, ended.outcome), (Phase::Done, Some(Outcome::Moved)));
    let report = ended.report.expect("the report is kept");
    let phases: Vec<Phase> = report.phases.iter().map(|(phase, _)| *phase).collect();
    assert_eq!(phases, PHASES);
    assert!(report.events.is_sorted_by_key(|(at_ms, _)| *at_ms), "{:?}", report.events);
    let orders: [(&str, &[&str]); 2] = [
        ("S4-12", &["link: up", "reserved as", "initialised", "memory: the first pass begins"]),
        ("S4-20", &["tunnel: up", "the guest is paused", "is up at the destination", "phase readdress"]),
    ];
    for (row, order) in orders {
        let order: Vec<usize> = order.iter().map(|what| when(&report, what)).collect();
        assert!(order.is_sorted(), "{row}: {order:?} in {:?}", report.events);
    }
    // M7, S3-36: taken only when disks and memory have arrived and the source's tap is down.
    let releasing = when(&report, "releasing is journalled");
    assert!(when(&report, "sealed") < releasing && when(&report, "taps are down here") < releasing);
    let page = hosts.migrated(End::SiteA, &["status", id]).run();
    assert!(page.contains("web moved from site-a to site-b") && page.contains("downtime"), "{page}");
    resident.service.wait_until_it_answers();
    // S2-02: what was said to QEMU, each with its answer.
    for (end, commands) in [
        (End::SiteA, &["migrate-set-parameters", "migrate", "migrate-continue", "quit"][..]),
        (End::SiteB, &["migrate-incoming", "cont", "announce-self"]),
    ] {
        let log = hosts.log(end);
        for command in commands {
            let said = |what: &str| {
                log.lines()
                    .filter(|line| line.contains(what) && line.contains(&format!("{command:?}")))
                    .count()
            };
            let (asked, answered) = (said("to QEMU"), said("from QEMU"));
            // One that ends QEMU may go without.
            let least = if *command == "quit" { 0 } else { asked };
            assert!(asked > 0 && answered >= least, "{command}: {asked} times, {answered} answers");
        }
    }
}
