//! Where the tests find what they run: the programs, and the kernel of test guests.
//!
//! The programs are those of the profile that the test itself was built in, and cargo is asked for them before the first
//! is used: nobody tests a program that is older than its sources, and a benchmark measures what is shipped.

use std::env;
use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use crate::requires::Missing;

/// Says that the programs are built, to processes that a test starts.
const ARE_BUILT: &str = "PROGRAMS_ARE_BUILT";

/// `blockd`: `$BLOCKD`, or the one that is built with this test.
pub fn blockd() -> Result<PathBuf, Missing> {
    program("blockd", "BLOCKD")
}

/// `migrated`: `$MIGRATED`, or the one that is built with this test.
pub fn migrated() -> Result<PathBuf, Missing> {
    program("migrated", "MIGRATED")
}

/// The client's program.
pub fn prober() -> Result<PathBuf, Missing> {
    program("prober", "PROBER")
}

fn program(name: &str, variable: &str) -> Result<PathBuf, Missing> {
    if let Some(path) = env::var_os(variable) {
        return Ok(PathBuf::from(path));
    }
    build()?;
    Ok(profile_dir().join(name))
}

/// Have cargo build every program in this test's profile, once; what is fresh takes no time.
pub fn build() -> Result<(), Missing> {
    static BUILT: OnceLock<Result<(), String>> = OnceLock::new();
    BUILT.get_or_init(ask_cargo).clone().map_err(Missing::Installable)
}

/// The environment variable that spares the processes of this one to ask cargo again.
pub fn are_built() -> (&'static str, &'static str) {
    (ARE_BUILT, "yes")
}

fn ask_cargo() -> Result<(), String> {
    if env::var_os(ARE_BUILT).is_some() {
        return Ok(());
    }
    if !is_release() {
        let folder = profile_dir();
        let profile = folder.file_name().expect("a profile has a name");
        let profile = if profile == "debug" { OsStr::new("dev") } else { profile };
        return cargo_build(&["--workspace", "--bins"], profile);
    }
    // As `make build` does it. With the tests in the same build, features that they ask of our dependencies would be
    // switched on in what is measured.
    cargo_build(&["-p", "blockd", "-p", "migrated"], OsStr::new("release"))?;
    cargo_build(&["-p", "tests", "--bin", "prober"], OsStr::new("release"))
}

/// Whether the programs are those that are shipped.
pub fn is_release() -> bool {
    profile_dir().ends_with("release")
}

/// `cargo build` without what cargo says of this test's package to this process: to build scripts it would be a change.
pub fn cargo_build_command() -> Command {
    let mut command = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    let of_package = |name: &str| name.starts_with("CARGO_PKG_") || name.starts_with("CARGO_MANIFEST_");
    for (name, _) in env::vars_os() {
        if name.to_str().is_some_and(of_package) {
            command.env_remove(&name);
        }
    }
    command.args(["build", "--quiet", "--locked"]);
    command
}

fn cargo_build(what: &[&str], profile: &OsStr) -> Result<(), String> {
    let mut command = cargo_build_command();
    command.current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/.."));
    let output =
        command.args(what).arg("--profile").arg(profile).arg("--target-dir").arg(target_dir()).output();
    let output = output.map_err(|error| format!("cannot run cargo to build the programs: {error}"))?;
    // Sources that do not compile are no reason to skip a test.
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Ok(())
}

/// A QEMU that is newer than the machine's own, which `make setup` unpacked.
pub fn newer_qemu() -> Result<PathBuf, Missing> {
    let path = target_dir().join("qemu-backports/qemu-system-x86_64");
    match path.exists() {
        true => Ok(path),
        false => Err(Missing::Installable("no QEMU from the backports; run `make setup`".to_owned())),
    }
}

/// BIND's name server, which `make setup` unpacked.
pub fn named() -> Result<PathBuf, Missing> {
    of_bind("named")
}

/// The program that makes keys for BIND.
pub fn tsig_keygen() -> Result<PathBuf, Missing> {
    of_bind("tsig-keygen")
}

fn of_bind(program: &str) -> Result<PathBuf, Missing> {
    let path = target_dir().join("bind9").join(program);
    match path.exists() {
        true => Ok(path),
        false => Err(Missing::Installable(format!("BIND's {program} is not there; run `make setup`"))),
    }
}

/// A kernel for test guests.
#[derive(Clone, Debug)]
pub struct GuestKernel {
    /// For `qemu -kernel`.
    pub image: PathBuf,
    /// Its modules: `lib/modules/<release>`.
    pub modules: PathBuf,
}

/// The newest Debian cloud kernel that `make setup` unpacked or the machine has.
pub fn guest_kernel() -> Result<GuestKernel, Missing> {
    let roots = [target_dir().join("guest-kernel"), PathBuf::from("/")];
    let missing = || Missing::Installable("no kernel for guests; run `make setup`".to_owned());
    roots.iter().find_map(|root| kernel_below(root)).ok_or_else(missing)
}

fn kernel_below(root: &Path) -> Option<GuestKernel> {
    let kernels = fs::read_dir(root.join("boot")).ok()?.flatten().filter_map(|entry| {
        let name = entry.file_name().into_string().ok()?;
        let release = name.strip_prefix("vmlinuz-").filter(|release| release.ends_with("-cloud-amd64"))?;
        let modules = root.join("lib/modules").join(release);
        // Numbers as numbers: 6.1.0-9 comes before 6.1.0-10.
        let version: Vec<u32> =
            release.split(|c: char| !c.is_ascii_digit()).filter_map(|n| n.parse().ok()).collect();
        modules.is_dir().then_some((version, GuestKernel { image: entry.path(), modules }))
    });
    kernels.max_by(|a, b| a.0.cmp(&b.0)).map(|(_, kernel)| kernel)
}

/// The target directory that this very program was built into.
pub fn target_dir() -> PathBuf {
    profile_dir().parent().expect("a profile lies in the target directory").to_owned()
}

/// The folder in it of the profile that this very program was built in.
fn profile_dir() -> PathBuf {
    let program = env::current_exe().expect("a program knows its path");
    let folder = program.parent().expect("a program lies in a folder");
    // <target>/<profile>/deps/<test> or <target>/<profile>/<program>
    let profile = if folder.ends_with("deps") { folder.parent() } else { Some(folder) };
    profile.expect("a folder lies in a folder").to_owned()
}

#[cfg(test)]
mod tests {
    use super::{kernel_below, target_dir};
    use std::fs;

    #[test]
    fn the_newest_kernel_that_has_its_modules_is_taken() {
        let root = target_dir().join(format!("guest-kernel-test-{}", std::process::id()));
        for (release, has_modules) in [("6.1.0-9", true), ("6.1.0-10", true), ("6.1.0-11", false)] {
            fs::create_dir_all(root.join("boot")).unwrap();
            fs::write(root.join(format!("boot/vmlinuz-{release}-cloud-amd64")), "").unwrap();
            if has_modules {
                fs::create_dir_all(root.join(format!("lib/modules/{release}-cloud-amd64"))).unwrap();
            }
        }
        let kernel = kernel_below(&root).unwrap();
        assert!(kernel.image.ends_with("boot/vmlinuz-6.1.0-10-cloud-amd64"));
        assert!(kernel.modules.ends_with("lib/modules/6.1.0-10-cloud-amd64"));
        fs::remove_dir_all(&root).unwrap();
        assert!(kernel_below(&root).is_none());
    }
}
