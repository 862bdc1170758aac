//! What is refused before anything is started, with every reason at once (S0-25).

use std::fs;

use migrated::api::FailureCode;
use migrated::guest::Guest;
use migrated::io::keys::{Keys, Peer, PeerStore};
use migrated::phase::{Outcome, Phase};
use tests::boot_sector;
use tests::guest_kit::Recipe;
use tests::hosts::Hosts;
use tests::hosts::resident::{Resident, Work};
use tests::hosts::settings::Settings;
use tests::program::Tool;
use tests::require;
use tests::wan::End;
use tests::world::Plan;

use crate::restarts::restart;
use crate::{MAIN_JOB, SLOWLY};

/// A guest that halts, with a card that has this MAC; to be run.
fn double(hosts: &Hosts, end: End, mac: &str) -> Tool {
    let site = hosts.site(end);
    site.shell("truncate -s 1M /site/images/double.raw");
    boot_sector::install(&site.join("images/double.raw"), boot_sector::HALTING);
    let description = format!(
        "name = \"double\"\nmemory_mib = 64\naccel = \"tcg\"\n[[disk]]\nid = \"root\"\nimage = \"double.raw\"\n\
         [[nic]]\nid = \"net0\"\nmac = {mac:?}\nbridge = \"lan\"\n"
    );
    fs::write(site.join("double.toml"), description).expect("write a description");
    hosts.migrated(end, &["run", &site.inside("double.toml").display().to_string()])
}

/// No room for memory, none for the disk, nobody who could change the guest's name, no tunnel at either host, and a guest
/// with the same MAC.
pub fn a_destination_without_room_refuses_at_once_with_every_reason_and_nothing_is_touched() {
    let limits_b = "memory_mib = 64".to_owned();
    let settings = Settings { limits_b, without_network: true, ..Settings::default() };
    let mut hosts = require!(Hosts::with(Plan::default(), &settings));
    let named = |mut guest: Guest| {
        guest.nics[0].dns_name = Some("web.example.org".to_owned());
        guest
    };
    let resident = require!(Resident::start_as(&hosts, &Recipe::default(), Work::default(), named));
    let prober = resident.watch(&hosts);
    let mac = &resident.guest.nics[0].mac;
    let refused = double(&hosts, End::SiteA, mac).refused();
    assert!(refused.contains("is that of guest web here"), "{refused}");
    assert_eq!(hosts.state(End::SiteA, "double"), "");
    double(&hosts, End::SiteB, mac).run();
    // From here on there is no room for a disk either.
    let config = hosts.site(End::SiteB).join("config.toml");
    let text = fs::read_to_string(&config).expect("read a configuration");
    let tight = text.replace("[limits]\n", "[limits]\ndisk_reserve_mib = 1000000000\n");
    assert_ne!(tight, text, "there is such a table");
    fs::write(&config, tight).expect("write a configuration");
    restart(&mut hosts, End::SiteB);
    let before = [End::SiteA, End::SiteB].map(|end| hosts.traces(end));
    let report = hosts.send(End::SiteA, &MAIN_JOB).end().stayed(Outcome::Refused);
    let reasons = report.reasons.join("\n");
    let of_both = [
        "tunnel: this host has no [network] in its configuration, so there is no end",
        "site-b refuses: ",
        "memory: 128 MiB are needed",
        "disk: ",
        "dns: ",
        "tunnel: this host has no [network] in its configuration; add one",
        "is that of guest double here",
    ];
    for reason in of_both {
        assert!(reasons.contains(reason), "no {reason:?} in {reasons}");
    }
    // Not one byte of disk or memory went over.
    assert!(report.phases.iter().all(|(phase, _)| !matches!(phase, Phase::Bulk | Phase::PreCopy)));
    assert_eq!(report.ram.sent_bytes, 0);
    // S3-08: both are as they were.
    let unknown = hosts.migrated(End::SiteB, &["status", &report.id]).refused();
    assert!(unknown.contains("no migration"), "{unknown}");
    let looked = hosts.migrated(End::SiteA, &["send", "--dry-run", "--wan", "web", "site-b"]).refused();
    assert!(of_both.iter().all(|reason| looked.contains(reason)), "{looked}");
    assert_eq!(hosts.states("web"), ["running", ""]);
    assert_eq!([End::SiteA, End::SiteB].map(|end| hosts.traces(end)), before);
    prober.wait_for_answers(10);
    resident.judge(&hosts, End::SiteA, prober);
}

/// S0-08, S0-26, S0-27, S0-28, S0-36.
pub fn a_move_that_makes_no_sense_is_refused_in_clear_words() {
    let mut hosts = require!(Hosts::new(Plan::default()));
    let resident = require!(Resident::start(&hosts, &Recipe::default(), Work::default()));
    let refused = |hosts: &Hosts, words: &[&str], code: FailureCode, says: &str| {
        let failure = hosts.send(End::SiteA, words).end().refused();
        assert_eq!(failure.code, code, "{words:?}: {failure}");
        assert!(failure.message.contains(says), "{words:?}: {failure}");
        assert!(!failure.hint.is_empty(), "{words:?}: {failure}");
    };
    // Possible, but not what anybody wants (S4-47).
    let looked = hosts.migrated(End::SiteA, &["send", "--dry-run", "web", "site-b"]).run();
    assert!(looked.contains("warning: site-b: ") && looked.contains("connections break"), "{looked}");
    refused(&hosts, &["--wan", "web", "site-a"], FailureCode::Conflict, "this host");
    refused(&hosts, &["--wan", "web", "atlantis"], FailureCode::NotFound, "\"atlantis\"");
    refused(&hosts, &["--wan", "nobody", "site-b"], FailureCode::NotFound, "\"nobody\"");
    let nonsense = hosts.migrated(End::SiteA, &["send", "web"]).output();
    assert_eq!(nonsense.status.code(), Some(2), "{nonsense:?}");

    // Paired with itself, under another name and address.
    let state = hosts.site(End::SiteA).join("state");
    let key = *Keys::load(&state).expect("the key of a host").spki();
    let address = "192.0.2.77:7700".parse().expect("an address");
    let mirror = Peer { name: "mirror".to_owned(), address, data_addresses: Vec::new(), key };
    PeerStore::load(&state).expect("the peers of a host").put(mirror).expect("write a peer down");
    restart(&mut hosts, End::SiteA);
    refused(&hosts, &["--wan", "web", "mirror"], FailureCode::Conflict, "this host");

    // A second one while the first is under way.
    let sending = hosts.send(End::SiteA, &[&MAIN_JOB[..], &SLOWLY].concat());
    // A disk of which little was written goes at once.
    let id = sending.wait_until("the move to be under way", |status| status.phase >= Phase::Bulk).id;
    refused(&hosts, &MAIN_JOB, FailureCode::Conflict, &id);
    assert_eq!(hosts.states("web"), ["migrating", "incoming"]);
    hosts.migrated(End::SiteA, &["cancel", &id]).run();
    sending.end().stayed(Outcome::Cancelled);

    // Nothing comes back from there.
    hosts.world.wan.cut(End::SiteB);
    let report = hosts.send(End::SiteA, &MAIN_JOB).end().stayed(Outcome::Refused);
    let reasons = report.reasons.join("; ");
    assert!(reasons.contains("does not answer within 5 s"), "{reasons}");
    assert_eq!(hosts.state(End::SiteA, "web"), "running");
    hosts.world.wan.restore(End::SiteB);

    // Nobody is there.
    hosts.daemon(End::SiteB).kill();
    let report = hosts.send(End::SiteA, &MAIN_JOB).end().stayed(Outcome::Refused);
    assert!(
        report.reasons.iter().any(|reason| reason.contains("site-b") || reason.contains("192.0.2.5")),
        "{:?}",
        report.reasons
    );
    assert_eq!(hosts.state(End::SiteA, "web"), "running");
    resident.service.wait_until_it_answers();

    // S2-37: what was saved goes on through a pipe, without a file.
    hosts.migrated(End::SiteA, &["stop", "web", "--save", "/site/web.gz"]).run();
    refused(&hosts, &MAIN_JOB, FailureCode::Conflict, "stopped");
    let program = hosts.program(End::SiteA).display();
    hosts
        .site(End::SiteA)
        .shell(&format!("gunzip -c /site/web.gz | {program} run /site/guest.toml --restore -"));
    resident.service.wait_until_it_answers();
    hosts.migrated(End::SiteA, &["stop", "web", "--now"]).run();
}
