//! Tests of what another host may say.

use std::net::Ipv4Addr;

use proptest::prelude::{ProptestConfig, any, proptest};

use super::{Bounded, TEXT_CHARS_MAX, TEXTS_MAX};
use crate::guest::Guest;
use crate::peer::{
    Answer, Call, DiskSize, GivenAddresses, Message, PathPrepare, Request, Reserve, decode, say,
};
use crate::status::Status;

fn reserve() -> Reserve {
    let guest = Guest::parse(
        "name = \"web\"\nmemory_mib = 512\n[boot]\nkernel = \"k\"\n[[disk]]\nid = \"root\"\nimage = \"w.raw\"\n\
         [[disk]]\nid = \"iso\"\nimage = \"i\"\nshared = true\n",
    );
    Reserve {
        migration: "0e2f9a61".into(),
        generation: 1,
        guest: guest.unwrap(),
        disks: vec![DiskSize { id: "root".into(), size_bytes: 1 << 30, allocated_bytes: 1 << 20 }],
        boot_digests: vec!["a".repeat(64)],
        qemu_version: "7.2.22 (Debian 1:7.2)".into(),
        architecture: "x86_64".into(),
        accel: "tcg".into(),
        wan: true,
        runs: true,
        dry_run: false,
        given_addresses: GivenAddresses::new(),
    }
}

fn call(request: Request) -> Result<Call, String> {
    let mut call = Call { id: 1, request };
    call.bound().map(|()| call)
}

#[test]
fn addresses_that_sites_gave_are_those_of_its_cards() {
    let given = GivenAddresses::from([("net0".to_owned(), vec![Ipv4Addr::new(10, 2, 0, 100)])]);
    let faults = Reserve { given_addresses: given, ..reserve() }.faults();
    assert!(faults.iter().any(|fault| fault.starts_with("given_addresses: ")), "{faults:?}");
}

#[test]
fn each_field_of_a_reservation_that_is_out_of_bounds_is_named() {
    assert_eq!(reserve().faults(), [""; 0]);
    type Change = fn(&mut Reserve);
    let cases: [(&str, Change); 19] = [
        ("migration: \"\"", |one| one.migration.clear()),
        ("migration: \"../../etc/x\"", |one| one.migration = "../../etc/x".into()),
        ("migration: \"a\\0\"", |one| one.migration = "a\0".into()),
        ("migration:", |one| one.migration = "a".repeat(65)),
        ("generation: 0", |one| one.generation = 0),
        ("generation:", |one| one.generation = u64::MAX),
        ("name:", |one| one.guest.name = "a/b".into()),
        ("disks:", |one| one.disks.clear()),
        ("disks:", |one| one.disks.push(one.disks[0].clone())),
        ("disks:", |one| one.disks[0].id = "iso".into()),
        ("disk \"root\": 0 bytes", |one| one.disks[0].size_bytes = 0),
        ("disk \"root\":", |one| one.disks[0].size_bytes = u64::MAX),
        ("disk \"root\":", |one| one.disks[0].allocated_bytes = u64::MAX),
        ("disk root: it has 1073741825 bytes", |one| one.disks[0].size_bytes += 1),
        ("truncate -s 1073741824", |one| one.disks[0].size_bytes -= 511),
        ("boot_digests:", |one| one.boot_digests.push("a".repeat(64))),
        ("boot_digests:", |one| one.boot_digests[0].push('\u{1b}')),
        ("qemu_version:", |one| one.qemu_version = "\u{1b}[2J".into()),
        ("accel:", |one| one.accel = "x".repeat(65)),
    ];
    for (named, change) in cases {
        let mut one = reserve();
        change(&mut one);
        let faults = one.faults();
        assert!(faults.len() == 1 && faults[0].contains(named), "{named}: {faults:?}");
    }
}

#[test]
fn numbers_that_are_no_numbers_of_this_kind_end_the_link() {
    let take =
        |migration: &str, generation| Request::Take { migration: migration.into(), generation, run: true };
    let verdict = |migration: &str| Request::Verdict { migration: migration.into(), generation: 1 };
    let path =
        |tunnel, remote: &str| Request::PathPrepare(PathPrepare { tunnel, remote: remote.parse().unwrap() });
    for good in [take("0e2f9a61", 1), verdict("a-1"), path(1, "192.0.2.1")] {
        assert!(call(good.clone()).is_ok(), "{good:?}");
    }
    let bad = [
        take("0e2f9a61", 0),
        take("x y", 1),
        verdict("../x"),
        path(0, "192.0.2.1"),
        path((1 << 24) - 1, "192.0.2.1"),
        path(1, "224.0.0.1"),
        path(1, "127.0.0.1"),
        path(1, "0.0.0.0"),
    ];
    for bad in bad {
        assert!(call(bad.clone()).is_err(), "{bad:?}");
    }
}

/// Hosts' texts end on terminals: nothing in them may move a cursor or fill a disk.
#[test]
fn texts_are_cut_and_have_nothing_that_a_terminal_obeys() {
    let mut status = Status::new("1", "web\u{1b}[2J", "site-a", "site-b");
    status.warnings = vec!["w".into(); 1000];
    status.report = Some(status.to_report(crate::phase::Outcome::Moved, Vec::new(), 0));
    let Request::Mirror(status) = call(Request::Mirror(Box::new(status))).unwrap().request else {
        panic!("it is another one")
    };
    assert_eq!((status.guest.as_str(), status.warnings.len()), ("web\u{fffd}[2J", TEXTS_MAX));
    assert_eq!(status.report, None);
    let reason = format!("\u{9b}a\nb{}", "x".repeat(5000));
    let Request::Abort { reason, .. } = call(Request::Abort { reason, keep_disks: true }).unwrap().request
    else {
        panic!("it is another one")
    };
    assert!(reason.starts_with("\u{fffd}a\u{fffd}b") && reason.chars().count() == TEXT_CHARS_MAX, "{reason}");
}

#[test]
fn an_answer_that_quotes_what_a_host_said_is_no_longer_than_a_message_may_be() {
    let quoted = format!("{:?}", "\u{ad}".repeat(120_000));
    let reasons = [quoted, "\u{10ffff}\"".repeat(5000), "\\".repeat(200_000)];
    let reasons = reasons.iter().cycle().take(500).cloned().collect();
    let mut answer = Message::Answer { id: 1, answer: Answer::Refused { reasons } };
    let body = say(&mut answer).unwrap();
    assert!(matches!(decode::<Message>(&body[4..]), Ok(Message::Answer { .. })));
    let mut status = Status::new("1", "web", "site-a", "site-b");
    status.warnings = vec!["\u{10ffff}".repeat(2000); 64];
    status.reasons = status.warnings.clone();
    say(&mut Call { id: 1, request: Request::Mirror(Box::new(status)) }).unwrap();
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]

    #[test]
    fn whatever_a_host_gives_as_its_reason_is_fit_to_be_shown(reasons in any::<Vec<String>>()) {
        let mut message = Message::Answer { id: 1, answer: Answer::Refused { reasons } };
        message.bound().unwrap();
        let Message::Answer { answer: Answer::Refused { reasons }, .. } = message else { panic!("it is another one") };
        assert!(reasons.iter().all(|text| !text.chars().any(char::is_control)));
    }

    /// What is taken as a migration's number stays one file's name below a folder.
    #[test]
    fn a_number_of_a_migration_is_a_files_name_and_nothing_else(text in "[a-z./\\-\0 \u{1b}]{0,70}") {
        let verdict = Request::Verdict { migration: text.clone(), generation: 1 };
        if call(verdict).is_ok() {
            assert!(!text.is_empty() && !text.contains(['/', '.', '\0']), "{text:?}");
        }
    }
}
