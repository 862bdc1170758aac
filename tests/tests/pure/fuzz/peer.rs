//! Hostile bytes in the place of another host: messages of the control channel, and descriptions of guests.
//!
//! Under plain `cargo test` each target runs a bounded number of inputs; under a fuzzing engine (`cargo bolero test`) it
//! runs for as long as it is let.

use std::path::{Component, Path};

use migrated::guest::Guest;
use migrated::peer::{Asked, Call, Message, Request, Told, decode, encode, read_call, read_message};
use serde_json::{Value, json};

/// Bounds each target to a second or two in an ordinary test run; a fuzzer ignores it.
const ITERATIONS: usize = 10_000;

/// Messages of which the fuzzer changes parts: from nothing but bytes it would hardly ever find one.
fn seeds() -> Vec<Value> {
    let guest = json!({
        "name": "web", "memory_mib": 256, "vcpus": 1, "machine": "pc-i440fx-7.2", "cpu": "qemu64", "accel": "tcg",
        "boot": {"kernel": "k", "initrd": "sub/i", "append": "console=ttyS0"},
        "disk": [{"id": "root", "image": "web.raw", "shared": false}],
        "nic": [{"id": "net0", "mac": "52:54:00:12:34:56", "bridge": "lan", "address": "10.1.0.7", "dns_name": "a.b"}],
    });
    let digest = "a".repeat(64);
    vec![
        json!({"id": 1, "request": {"request": "reserve", "migration": "ab", "generation": 1, "guest": guest,
            "disks": [{"id": "root", "size_bytes": 4096, "allocated_bytes": 0}], "boot_digests": [digest, digest],
            "qemu_version": "7.2.0", "accel": "tcg", "wan": true, "runs": true, "dry_run": false}}),
        json!({"id": 2, "request": {"request": "path-prepare", "tunnel": 7, "remote": "192.0.2.1"}}),
        json!({"id": 3, "request": {"request": "take", "migration": "ab", "generation": 2, "run": true}}),
        json!({"id": 4, "request": {"request": "verdict", "migration": "ab", "generation": 2}}),
        json!({"id": 5, "request": {"request": "abort", "reason": "why", "keep_disks": false}}),
    ]
}

/// One value somewhere in `value` becomes another one, chosen by `at`.
fn change(value: &mut Value, at: &mut usize, new: &Value) {
    if *at == 0 {
        *value = new.clone();
    }
    *at = at.wrapping_sub(1);
    match value {
        Value::Array(list) => list.iter_mut().for_each(|one| change(one, at, new)),
        Value::Object(fields) => fields.values_mut().for_each(|one| change(one, at, new)),
        _ => {}
    }
}

/// What must hold of every call that is let through.
fn judge(call: &Call) {
    match &call.request {
        Request::Take { migration, generation, .. } | Request::Verdict { migration, generation } => {
            assert!(is_one_file(migration) && *generation > 0 && generation.checked_add(1).is_some());
        }
        Request::PathPrepare(order) => assert!(order.tunnel > 0 && order.tunnel + 12 < 1 << 24),
        Request::Abort { reason, .. } => assert!(is_shown(reason)),
        Request::Reserve(wanted) if wanted.faults().is_empty() => {
            assert!(is_one_file(&wanted.migration));
            assert!(
                wanted.disks.iter().map(|disk| disk.size_bytes).try_fold(0u64, u64::checked_add).is_some()
            );
            harmless(&wanted.guest);
        }
        _ => {}
    }
}

/// Fit for a terminal, and not endless.
fn is_shown(text: &str) -> bool {
    text.chars().all(|letter| letter == '\n' || !letter.is_control()) && text.chars().count() <= 2000
}

fn is_one_file(name: &str) -> bool {
    let path = Path::new(name);
    !name.contains('\0')
        && path.components().count() == 1
        && path.file_name().is_some_and(|file| file == name)
}

/// A description that is taken names nothing outside its folders, and is one word wherever it is used.
fn harmless(guest: &Guest) {
    let boot = guest.boot.iter().flat_map(|boot| std::iter::once(&boot.kernel).chain(&boot.initrd));
    for path in boot.chain(guest.disks.iter().map(|disk| &disk.image)) {
        assert!(path.components().all(|part| matches!(part, Component::Normal(_))), "{path:?}");
    }
    let words = [&guest.name, &guest.machine].into_iter().chain(guest.nics.iter().map(|nic| &nic.bridge));
    for word in words.chain(guest.disks.iter().map(|disk| &disk.id)) {
        assert!(is_one_file(word) && !word.contains([',', ' ', '=']), "{word:?}");
    }
    assert!(
        guest.disks.len() <= 12
            && guest.nics.len() <= 12
            && guest.memory_mib <= 4 << 20
            && guest.vcpus <= 255
    );
}

#[test]
fn any_bytes_are_refused_or_say_only_what_may_be_said() {
    bolero::check!().with_iterations(ITERATIONS).with_max_len(512).for_each(|bytes: &[u8]| {
        match read_call(bytes) {
            Ok(Asked::Call(call)) => judge(&call),
            Ok(Asked::Unknown { reason, .. }) => assert!(is_shown(&reason), "{reason:?}"),
            Err(_) => {}
        }
        match read_message(bytes) {
            Ok(Told::Message(message)) => {
                assert_eq!(decode::<Message>(&encode(&message)[4..]).unwrap(), message);
            }
            Ok(Told::Unknown { kind } | Told::UnknownAnswer { kind, .. }) => {
                assert!(is_shown(&kind), "{kind:?}")
            }
            Err(_) => {}
        }
    });
}

#[test]
fn a_message_with_any_value_in_any_place_is_refused_or_harmless() {
    let seeds = seeds();
    for seed in &seeds {
        judge(&decode(seed.to_string().as_bytes()).unwrap());
    }
    bolero::check!().with_type::<(u8, u8, u8, String, u64)>().with_iterations(ITERATIONS).for_each(
        |(seed, at, kind, text, number)| {
            let mut value = seeds[usize::from(*seed) % seeds.len()].clone();
            let new = match kind % 5 {
                0 => json!(text),
                1 => json!(number),
                2 => json!("../".repeat(usize::from(*at) % 9) + text),
                3 => json!([text, text]),
                _ => Value::Null,
            };
            change(&mut value, &mut (usize::from(*at) % 64), &new);
            match read_call(value.to_string().as_bytes()) {
                Ok(Asked::Call(call)) => judge(&call),
                Ok(Asked::Unknown { reason, .. }) => assert!(is_shown(&reason), "{reason:?}"),
                Err(_) => {}
            }
        },
    );
}

#[test]
fn any_description_is_refused_or_harmless() {
    let whole = "name = \"web\"\nmemory_mib = 256\n[[disk]]\nid = \"root\"\nimage = \"web.raw\"\n";
    harmless(&Guest::parse(whole).unwrap());
    bolero::check!().with_type::<(u8, String)>().with_iterations(ITERATIONS).for_each(|(at, text)| {
        let lines: Vec<&str> = whole.lines().collect();
        let mut changed: Vec<String> = lines.iter().map(|line| (*line).to_owned()).collect();
        let line = &mut changed[usize::from(*at) % lines.len()];
        if let Some((key, _)) = line.clone().split_once(" = ") {
            *line = format!("{key} = {}", json!(text));
        }
        if let Ok(guest) = Guest::parse(&changed.join("\n")) {
            harmless(&guest);
        }
    });
}
