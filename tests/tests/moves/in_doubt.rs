//! The answer to the handover is lost: the guest stands still at the source until the destination's journal answers,
//! whatever ends and begins again meanwhile; or until an operator gives a word for it.
//!
//! ```text
//! A: releasing ── take ──► B: taken, started        the way back is cut while this is on its way
//! A: in doubt    ◄── ✗ ──
//! ```

use std::fs;
use std::time::Duration;

use migrated::journal::{Record, Step, decode};
use migrated::phase::{Outcome, Phase};
use migrated::report::PauseEnd;
use tests::guest_kit::Recipe;
use tests::hosts::Hosts;
use tests::hosts::hold::Hold;
use tests::hosts::resident::{Resident, Work};
use tests::hosts::settings::Settings;
use tests::require;
use tests::wait::{PATIENCE, found_within, wait_for};
use tests::wan::{End, Way};
use tests::world::Plan;

use crate::afterwards::refused_disk;
use crate::restarts::{restart, shown, wait_until};

/// A host's journal; nothing, where there is none yet.
pub fn journal(hosts: &Hosts, end: End) -> Vec<Record> {
    let bytes = fs::read(hosts.site(end).seen("state/journal")).unwrap_or_default();
    decode(&bytes).expect("a journal is whole").0
}

/// The last promise in it.
pub fn promised(hosts: &Hosts, end: End) -> Option<Step> {
    journal(hosts, end).last().map(|record| record.step)
}

/// A guest is being handed over, and the destination has not taken it yet.
pub fn hold_the_handover(hosts: &Hosts) -> Hold {
    hosts.hold(End::SiteB, "destination-take")
}

/// Cut the way back while the guest is handed over: the destination takes it, and the source can only ask.
pub fn cut_the_way_back(hosts: &Hosts, handover: Hold) {
    handover.wait();
    assert_eq!(promised(hosts, End::SiteA), Some(Step::Releasing));
    hosts.world.wan.cut_half(End::SiteB, Way::Out);
    handover.let_go();
}

/// A guest that was taken by site B, which site A does not know.
fn in_doubt() -> Result<(Hosts, Resident, String), tests::requires::Missing> {
    let settings = Settings { own_clocks: true, ..Settings::default() };
    let hosts = Hosts::with(Plan::default(), &settings)?;
    let resident = Resident::start(&hosts, &Recipe::default(), Work::default())?;
    let handover = hold_the_handover(&hosts);
    let id = hosts.send_detached(End::SiteA, &["--wan", "web", "site-b"]);
    cut_the_way_back(&hosts, handover);
    wait_for(PATIENCE, "the destination to start the guest", || {
        (promised(&hosts, End::SiteB) == Some(Step::Started)).then_some(())
    });
    wait_until(&hosts, &id, "doubt", |status| status.phase == Phase::InDoubt);
    Ok((hosts, resident, id))
}

/// M2, M4, M9, S2-33: both daemons end in doubt and begin again, their clocks are set forward and back; nothing is guessed,
/// and the guest is where it was taken.
pub fn a_guest_in_doubt_stands_still_until_the_journal_of_the_destination_answers() {
    let (mut hosts, resident, id) = require!(in_doubt());
    for (end, hours) in [(End::SiteA, 400), (End::SiteB, -400)] {
        hosts.step_clock(end, hours);
        restart(&mut hosts, end);
        hosts.step_clock(end, -hours);
    }
    wait_until(&hosts, &id, "doubt again", |status| status.phase == Phase::InDoubt);
    assert_eq!(hosts.states("web"), ["migrating", "running"]);
    let resumed = hosts.migrated(End::SiteA, &["resume", "web"]).output();
    assert_eq!(resumed.status.code(), Some(1), "{resumed:?}");
    let told = hosts.migrated(End::SiteA, &["recover", "web"]).run();
    assert!(told.contains("nobody here knows") && told.contains("--lost site-b"), "{told}");

    hosts.world.wan.restore(End::SiteB);
    // It was taken, so it answers at its new place.
    resident.service.wait_until_it_answers();
    let ended = wait_until(&hosts, &id, "the end", |status| status.outcome == Some(Outcome::Moved));
    assert_eq!(ended.phase, Phase::Done);
    // The daemon that saw it stop is no more; the account goes on.
    let report = ended.report.expect("it has ended");
    let [pause] = &report.pauses[..] else { panic!("it stood still once: {:?}", report.pauses) };
    assert_eq!((pause.attempt, pause.end), (1, PauseEnd::Moved));
    assert_eq!(report.downtime_ms, Some(pause.lasted_ms));
    assert!(report.total_ms >= pause.begun_ms + pause.lasted_ms, "{report:?}");
    wait_for(PATIENCE, "the guest to be gone here", || {
        (hosts.states("web") == ["moved", "running"]).then_some(())
    });
    let told = hosts.migrated(End::SiteB, &["recover", "web"]).run();
    assert!(told.contains("nothing is open"), "{told}");
}

/// M8: by an operator's word the guest goes on at the source, and a destination that lives after all stops it.
pub fn by_an_operators_word_a_guest_in_doubt_goes_on_and_the_other_host_stops_it_when_it_is_back() {
    let (hosts, resident, id) = require!(in_doubt());
    let refused = hosts.migrated(End::SiteA, &["recover", "web", "--lost", "site-c"]).output();
    assert_eq!(refused.status.code(), Some(1), "{refused:?}");
    let told = hosts.migrated(End::SiteA, &["recover", "web", "--lost", "site-b"]).run();
    assert!(told.contains("generation 2"), "{told}");
    let ended = wait_until(&hosts, &id, "the end", |status| status.outcome == Some(Outcome::RolledBack));
    assert_eq!(ended.phase, Phase::RolledBack);
    assert_eq!(hosts.state(End::SiteA, "web"), "running");

    hosts.world.wan.restore(End::SiteB);
    found_within(Duration::from_secs(120), || (hosts.state(End::SiteB, "web") == "paused").then_some(()))
        .expect("the other host stops the guest");
    let resumed = hosts.migrated(End::SiteB, &["resume", "web"]).output();
    assert_eq!(resumed.status.code(), Some(1), "{resumed:?}");
    assert_eq!(hosts.states("web"), ["running", "paused"]);
    assert_eq!(shown(&hosts, &id).outcome, Some(Outcome::RolledBack));
    // Nor does anybody serve its disk there by accident, when nobody has it any more (D11).
    hosts.migrated(End::SiteB, &["stop", "web", "--now"]).run();
    let refused = refused_disk(&hosts, &resident, End::SiteB);
    assert!(refused.contains("moved to site-a with generation 2"), "{refused}");
}

/// D11: the host that is gone for good comes back without its QEMU; it learns what was said of it before it serves a
/// disk.
pub fn a_host_that_was_given_up_and_comes_back_serves_no_disk_of_a_guest_that_was_taken_back() {
    let (mut hosts, resident, id) = require!(in_doubt());
    hosts.world.crash(End::SiteB);
    hosts.migrated(End::SiteA, &["recover", "web", "--lost", "site-b"]).run();
    wait_until(&hosts, &id, "the end", |status| status.outcome == Some(Outcome::RolledBack));
    hosts.world.wan.restore(End::SiteB);
    hosts.world.restart(End::SiteB);
    hosts.start(End::SiteB);
    wait_for(PATIENCE, "the host to know it", || (hosts.states("web") == ["running", "moved"]).then_some(()));
    let refused = refused_disk(&hosts, &resident, End::SiteB);
    assert!(refused.contains("moved to site-a with generation 2"), "{refused}");
    resident.service.wait_until_it_answers();
}
