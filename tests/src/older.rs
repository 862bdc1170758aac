//! The programs of an earlier version of ourselves, built from its commit: in a work tree below the target directory, which
//! is kept, so that it is built once.
//!
//! ```text
//! <target>/versions/0.1.0/          the work tree of its commit
//! <target>/versions/0.1.0/target/   what cargo builds of it
//! ```

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use crate::binaries::{cargo_build_command, target_dir};
use crate::requires::Missing;

/// A version, and the commit that it is.
#[derive(Debug, Clone, Copy)]
pub struct Version {
    /// Its number.
    pub number: &'static str,
    /// Its commit, as CHANGELOG.md says.
    pub commit: &'static str,
}

/// The first one.
pub const V0_1_0: Version = Version { number: "0.1.0", commit: "e3d8216" };

impl Version {
    /// Its `migrated` and `blockd`. Missing: there is no history to take them from.
    pub fn programs(self) -> Result<[PathBuf; 2], Missing> {
        let tree = target_dir().join("versions").join(self.number);
        self.check_out(&tree)?;
        let target = tree.join("target");
        let mut command = cargo_build_command();
        command.args(["-p", "blockd", "-p", "migrated", "--target-dir"]);
        let built = output(command.arg(&target).current_dir(&tree));
        assert!(built.status.success(), "{} does not build: {}", self.number, said(&built));
        Ok(["migrated", "blockd"].map(|program| target.join("debug").join(program)))
    }

    /// Has its commit lie at `tree`.
    fn check_out(self, tree: &Path) -> Result<(), Missing> {
        let root = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/.."));
        let git = |folder: &Path, words: &[&str]| output(Command::new("git").current_dir(folder).args(words));
        let known = git(root, &["rev-parse", "--verify", "--quiet", &format!("{}^{{commit}}", self.commit)]);
        if !known.status.success() {
            let (number, commit, said) = (self.number, self.commit, said(&known));
            return Err(Missing::Denied(format!(
                "no commit {commit} ({number}) in the history here; {said}"
            )));
        }
        let commit = String::from_utf8_lossy(&known.stdout).trim().to_owned();
        if tree.is_dir() {
            let there = git(tree, &["rev-parse", "HEAD"]);
            let there = String::from_utf8_lossy(&there.stdout);
            assert_eq!(there.trim(), commit, "{} is something else; remove it", tree.display());
            return Ok(());
        }
        let path = tree.to_str().expect("a plain path");
        // By force: git may still know of one that is gone.
        let made = git(root, &["worktree", "add", "--quiet", "--force", "--detach", path, &commit]);
        assert!(made.status.success(), "no work tree of {} at {path}: {}", self.number, said(&made));
        Ok(())
    }
}

fn output(command: &mut Command) -> Output {
    command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"))
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).trim().to_owned()
}
