//! What a test needs of the machine, and what happens where that is missing: the test is skipped
//! with a reason that is seen, except that in CI nothing is skipped for a missing package.
//!
//! ```text
//! let nbdinfo = require!(requires::program("nbdinfo"));
//! require!(requires::root());
//! ```

use std::env;
use std::ffi::OsString;
use std::fmt;
use std::fs::OpenOptions;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

/// Why a test cannot run here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Missing {
    /// Something that `make setup` or `make build` brings: never missing in CI.
    Installable(String),
    /// A right or a feature that this machine does not give.
    Denied(String),
}

impl fmt::Display for Missing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Missing::Installable(reason) | Missing::Denied(reason) => f.write_str(reason),
        }
    }
}

/// The path of a program that `make setup` installs.
pub fn program(name: &str) -> Result<PathBuf, Missing> {
    // Some of them are for root, and not on everybody's path.
    let path = env::var_os("PATH").unwrap_or_default();
    let mut folders: Vec<PathBuf> = env::split_paths(&path).collect();
    folders.extend(["/usr/sbin", "/sbin"].map(PathBuf::from));
    folders
        .iter()
        .map(|folder| folder.join(name))
        .find(|candidate| is_program(candidate))
        .ok_or_else(|| Missing::Installable(format!("{name} is not installed; run `make setup`")))
}

/// All of these programs.
pub fn programs(names: &[&str]) -> Result<(), Missing> {
    names.iter().try_for_each(|name| program(name).map(drop))
}

fn is_program(path: &Path) -> bool {
    path.metadata().is_ok_and(|metadata| metadata.is_file() && metadata.permissions().mode() & 0o111 != 0)
}

/// The rights of root: namespaces, block devices.
pub fn root() -> Result<(), Missing> {
    if nix::unistd::geteuid().is_root() {
        return Ok(());
    }
    Err(Missing::Denied("needs root; run `sudo -E make test`".to_owned()))
}

/// Loop devices, to be made by whoever is root where the kernel has them.
pub fn loop_devices() -> Result<(), Missing> {
    root()?;
    program("losetup")?;
    if Path::new("/dev/loop-control").exists() {
        return Ok(());
    }
    Err(Missing::Denied(
        "needs loop devices; this kernel or container gives none (/dev/loop-control)".to_owned(),
    ))
}

/// Says that `test` is skipped, where it is seen although the test passes. Panics in CI if an
/// installation is all that is missing.
#[track_caller]
pub fn skip(test: &str, missing: &Missing) {
    let line = skip_line(test, missing, is_ci(env::var_os("CI")));
    // Not by eprintln!, which the test harness keeps to itself.
    let _ = std::io::stderr().write_all(line.as_bytes());
    if let Some(log) = env::var_os("SKIPPED_LOG") {
        let file = OpenOptions::new().append(true).create(true).open(&log);
        let written = file.and_then(|mut file| file.write_all(line.as_bytes()));
        written.unwrap_or_else(|error| panic!("cannot write {}: {error}", log.display()));
    }
}

fn is_ci(value: Option<OsString>) -> bool {
    value.is_some_and(|value| value == "true" || value == "1")
}

#[track_caller]
fn skip_line(test: &str, missing: &Missing, in_ci: bool) -> String {
    let refused = in_ci && matches!(missing, Missing::Installable(_));
    assert!(!refused, "{test} must not be skipped in CI: {missing}");
    format!("skipped: {test}: {missing}\n")
}

/// Unwraps what a test needs, or skips the test that it stands in.
#[macro_export]
macro_rules! require {
    ($needed:expr) => {
        match $needed {
            Ok(found) => found,
            Err(missing) => {
                fn here() {}
                let name = std::any::type_name_of_val(&here).trim_end_matches("::here");
                $crate::requires::skip(name, &missing);
                return;
            }
        }
    };
}

#[cfg(test)]
mod tests {
    use super::{Missing, is_ci, program, skip_line};

    #[test]
    fn a_program_is_found_or_the_reason_says_how_to_get_it() {
        assert!(program("sh").unwrap().ends_with("sh"));
        let missing = program("no-such-program").unwrap_err();
        assert_eq!(missing.to_string(), "no-such-program is not installed; run `make setup`");
    }

    #[test]
    fn a_skip_names_the_test_and_the_reason() {
        let line = skip_line("disk::boots", &Missing::Denied("needs root".to_owned()), true);
        assert_eq!(line, "skipped: disk::boots: needs root\n");
        skip_line("disk::boots", &Missing::Installable("no fio".to_owned()), false);
    }

    #[test]
    #[should_panic(expected = "disk::boots must not be skipped in CI: no fio")]
    fn in_ci_a_missing_package_is_a_failure() {
        skip_line("disk::boots", &Missing::Installable("no fio".to_owned()), true);
    }

    #[test]
    fn ci_is_what_its_variable_says() {
        assert!(is_ci(Some("true".into())) && is_ci(Some("1".into())));
        assert!(!is_ci(None) && !is_ci(Some("".into())) && !is_ci(Some("false".into())));
    }

    #[test]
    fn the_macro_hands_over_what_is_there() {
        let path = require!(program("sh"));
        assert!(path.is_absolute());
    }
}
