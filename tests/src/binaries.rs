//! Where the tests find what they run: the programs as shipped, and the kernel of test guests.
//!
//! The programs come from `make build`, never from the build of the tests, which switches on
//! features that are not for shipping. An outdated one is refused: it would prove nothing.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use crate::requires::Missing;

/// The shipped `blockd`: `$BLOCKD`, or `release/blockd` in the target directory.
pub fn blockd() -> Result<PathBuf, Missing> {
    shipped("blockd", "BLOCKD")
}

/// The shipped `migrated`: `$MIGRATED`, or `release/migrated` in the target directory.
pub fn migrated() -> Result<PathBuf, Missing> {
    shipped("migrated", "MIGRATED")
}

fn shipped(name: &str, variable: &str) -> Result<PathBuf, Missing> {
    if let Some(path) = env::var_os(variable) {
        return Ok(PathBuf::from(path));
    }
    let path = target_dir().join("release").join(name);
    let Some(built_at) = modified(&path) else {
        let reason = format!("{} is not there; run `make build`", path.display());
        return Err(Missing::Installable(reason));
    };
    let changed_at = sources_of(&path).iter().filter_map(|source| modified(source)).max();
    let changed_at = changed_at.expect("a program has sources");
    assert!(built_at >= changed_at, "{} is older than its sources; run `make build`", path.display());
    Ok(path)
}

/// The files that a program was built from, as cargo noted beside it (`blockd.d`).
fn sources_of(program: &Path) -> Vec<PathBuf> {
    let noted =
        fs::read_to_string(program.with_extension("d")).expect("cargo notes what a program was built from");
    let (_, sources) = noted.split_once(": ").expect("a program, a colon, its sources");
    // A blank inside a path is written with a backslash before it.
    let sources = sources.replace("\\ ", "\0");
    sources.split_whitespace().map(|source| PathBuf::from(source.replace('\0', " "))).collect()
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
    let program = env::current_exe().expect("a program knows its path");
    let folder = program.parent().expect("a program lies in a folder");
    // <target>/<profile>/deps/<test> or <target>/<profile>/<program>
    let profile = if folder.ends_with("deps") { folder.parent() } else { Some(folder) };
    profile.and_then(Path::parent).expect("a profile lies in the target directory").to_owned()
}

fn modified(path: &Path) -> Option<SystemTime> {
    fs::metadata(path).ok()?.modified().ok()
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
