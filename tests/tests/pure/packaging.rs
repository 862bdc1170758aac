//! The units that are shipped: what systemd says of them, and what they promise.

use std::fs;
use std::path::{Path, PathBuf};

use tests::program::Tool;
use tests::require;
use tests::requires::program;
use tests::scratch::Scratch;

fn units() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../packaging/systemd");
    let mut units: Vec<PathBuf> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    units.sort();
    units
}

/// The programs are not installed where the units look for them, so copies of the units name one that is.
fn copies(scratch: &Scratch) -> Vec<String> {
    let copy = |unit: &PathBuf| {
        let text = fs::read_to_string(unit).unwrap();
        let text = text
            .replace("/usr/local/bin/migrated ", "/bin/true ")
            .replace("/usr/local/bin/blockd ", "/bin/true ");
        let name = unit.file_name().unwrap().to_str().unwrap().replace("@.", "@web.");
        let path = scratch.join(&name);
        fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    };
    units().iter().map(copy).collect()
}

#[test]
fn systemd_finds_nothing_wrong_with_the_units() {
    require!(program("systemd-analyze"));
    let scratch = Scratch::new();
    let copies = copies(&scratch);
    assert_eq!(copies.len(), 3, "{copies:?}");
    let said = Tool::new("systemd-analyze")
        .args(["verify", "--man=no", "--recursive-errors=no"])
        .args(&copies)
        .output();
    let words = String::from_utf8_lossy(&said.stderr).into_owned();
    assert!(said.status.success() && words.trim().is_empty(), "{words}");
    // What it would say: a key that does not exist is found.
    let wrong = scratch.join("wrong.service");
    fs::write(&wrong, "[Service]\nExecStart=/bin/true\nKilMode=process\n").unwrap();
    let said =
        Tool::new("systemd-analyze").args(["verify", "--man=no"]).arg(wrong.to_str().unwrap()).output();
    assert!(String::from_utf8_lossy(&said.stderr).contains("KilMode"));
}

/// Guests are processes of the daemon's unit: it may end, die or be upgraded, and they go on.
#[test]
fn the_end_of_the_daemon_is_not_the_end_of_its_guests() {
    let text = fs::read_to_string(&units()[1]).unwrap();
    let lines: Vec<&str> = text.lines().collect();
    for line in ["KillMode=process", "OOMPolicy=continue", "Type=notify", "Restart=on-failure"] {
        assert!(lines.contains(&line), "{line}");
    }
}
