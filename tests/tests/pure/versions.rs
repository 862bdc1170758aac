//! What 0.1.0 wrote and said, read by today's program: `tests/fixtures/0.1.0` was made by the code of commit e3d8216.
//!
//! ```text
//! fixtures ──► read today ──► the values in `values`, field by field
//!     ▲                              │
//!     └── the same, word for word ◄──┘ written today: so 0.1.0 can read it
//! ```
//!
//! A kind of message, a step or a role that is newer than 0.1.0 has no fixture there, and is named in [`NEWER`].

use std::fmt::Debug;
use std::fs;
use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;
use serde_json::Value;

mod values;
mod peer;
mod unknown;
mod state;
mod link;
mod disk;

/// Kinds that 0.1.0 does not know, as "what: kind". What goes to another host may be of such a kind only if that host is
/// known to be newer (`docs/wire.md`).
const NEWER: &[&str] = &["request: path-try", "phase: releasing", "operation: call-off"];

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/0.1.0").join(name)
}

fn text(name: &str) -> String {
    fs::read_to_string(fixture(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
}

/// A fixture with a name and bytes in each line.
fn named_bytes(name: &str) -> Vec<(String, Vec<u8>)> {
    let bytes = |hex: &str| {
        let pairs = (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16));
        pairs.collect::<Result<Vec<u8>, _>>().expect("hexadecimal digits")
    };
    let line = |line: &str| {
        let (name, hex) = line.split_once(": ").expect("a name and bytes");
        (name.to_owned(), bytes(hex))
    };
    text(name).lines().map(line).collect()
}

/// Every kind of `T` that today's program knows. `wrong` has "?" in the place of one.
fn kinds<T: DeserializeOwned + Debug>(wrong: Value) -> Vec<String> {
    let error = serde_json::from_value::<T>(wrong).expect_err("\"?\" is no kind").to_string();
    let (_, expected) = error.split_once(", expected ").expect("serde lists what it knows");
    expected.split('`').skip(1).step_by(2).map(str::to_owned).collect()
}

/// Each of these kinds has a fixture, or is known to be newer.
#[track_caller]
fn assert_covered(what: &str, kinds: Vec<String>, has_fixture: impl Fn(&str) -> bool) {
    assert!(kinds.len() > 1, "only {kinds:?}");
    for kind in kinds {
        let is_newer = NEWER.contains(&format!("{what}: {kind}").as_str());
        assert!(
            has_fixture(&kind) != is_newer,
            "{what}: {kind} has no fixture: if 0.1.0 does not know it, name it in NEWER"
        );
    }
}

/// Every one of these values has its bytes in a fixture of `named_bytes`, or is known to be newer; and no fixture is left.
#[track_caller]
fn assert_same_bytes(file: &str, today: Vec<(String, Vec<u8>)>) {
    let fixtures = named_bytes(file);
    let find = |all: &[(String, Vec<u8>)], name: &str| {
        all.iter().find(|(known, _)| known == name).map(|(_, bytes)| bytes.clone())
    };
    for (name, bytes) in &today {
        match find(&fixtures, name) {
            Some(fixture) => assert_eq!(&fixture, bytes, "{file}: {name}"),
            None => assert!(NEWER.contains(&format!("{file}: {name}").as_str()), "{file}: no {name}"),
        }
    }
    for (name, _) in &fixtures {
        assert!(find(&today, name).is_some(), "{file}: {name} is not looked at");
    }
}

#[test]
fn the_kinds_that_are_known_are_read_off_what_serde_says() {
    let outcomes = kinds::<migrated::phase::Outcome>("?".into());
    assert_eq!(outcomes, ["moved", "refused", "cancelled", "rolled-back", "in-doubt"]);
}
