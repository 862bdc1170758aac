//! Hold points: an operation waits before it begins for as long as a file with its name lies in a folder. For tests, which
//! so meet a migration exactly where they want it, and for whoever studies one.
//!
//! ```text
//! FOLDER/source-release        made by who wants to hold: the source journals no *releasing*
//! FOLDER/source-release.held   made by the daemon: something waits there
//! (both removed)               it goes on
//! ```
//!
//! The names are `source-` with the operation of the table in docs/migration.md, and `destination-` with the request of
//! docs/wire.md, `destination-look`, before that host is looked at, or `destination-start`, after *taken* was journalled.
//! Deadlines run on while something is held.
//!
//! Off unless `migrated daemon --hold-points FOLDER` asks for it, which only root may, with a folder of root's alone:
//! who can hold an operation can keep a guest from its users.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use tokio::time::sleep;

/// How often a held operation looks whether it may go on.
const LOOKED_EVERY: Duration = Duration::from_millis(5);

/// The hold points of a daemon.
#[derive(Clone, Debug, Default)]
pub struct HoldPoints(Option<PathBuf>);

impl HoldPoints {
    /// None: nothing is ever held.
    pub const OFF: Self = Self(None);

    /// Holds by the files in a folder, if this process and the folder are root's alone.
    pub fn by(folder: &Path) -> Result<Self> {
        let name = folder.display();
        if !nix::unistd::geteuid().is_root() {
            bail!("--hold-points {name}: only a daemon that runs as root may hold operations");
        }
        let found = fs::symlink_metadata(folder).with_context(|| format!("--hold-points {name}"))?;
        if !found.is_dir() || found.uid() != 0 || found.mode() & 0o022 != 0 {
            bail!(
                "--hold-points {name}: it has to be a folder that belongs to root and that nobody else can write to"
            );
        }
        Ok(Self(Some(folder.to_owned())))
    }

    /// What to tell whoever looks at a migration of this daemon.
    pub fn warning(&self) -> Option<String> {
        let folder = self.0.as_ref()?;
        Some(format!("hold points are on: operations wait for files in {}", folder.display()))
    }

    /// Waits for as long as `point` is held; true if it was.
    pub async fn pass(&self, point: &str) -> bool {
        let Some(folder) = &self.0 else { return false };
        let file = folder.join(point);
        if !file.exists() {
            return false;
        }
        let held = folder.join(format!("{point}.held"));
        tracing::warn!(point, "held before it begins, by --hold-points");
        if let Err(error) = fs::write(&held, "") {
            tracing::warn!(point, %error, "cannot say that it is held");
        }
        while file.exists() {
            sleep(LOOKED_EVERY).await;
        }
        let _ = fs::remove_file(&held);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_point_is_held_while_its_file_is_there_and_no_other_one() {
        let folder = std::env::temp_dir().join(format!("hold-points-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        let points = HoldPoints(Some(folder.clone()));
        fs::write(folder.join("source-seal"), "").unwrap();
        assert!(!points.pass("source-release").await);
        assert!(!HoldPoints::OFF.pass("source-seal").await);
        let held = tokio::spawn(async move { points.pass("source-seal").await });
        while !folder.join("source-seal.held").exists() {
            tokio::task::yield_now().await;
        }
        fs::remove_file(folder.join("source-seal")).unwrap();
        assert!(held.await.unwrap());
        assert!(!folder.join("source-seal.held").exists());
        fs::remove_dir_all(&folder).unwrap();
    }

    #[test]
    fn a_folder_that_others_can_write_to_holds_nothing() {
        if !nix::unistd::geteuid().is_root() {
            assert!(HoldPoints::by(Path::new("/")).is_err());
            return;
        }
        let refused = HoldPoints::by(&std::env::temp_dir()).unwrap_err().to_string();
        assert!(refused.contains("belongs to root and that nobody else can write to"), "{refused}");
        let missing = HoldPoints::by(Path::new("/no/such/folder")).unwrap_err();
        assert!(format!("{missing:#}").contains("/no/such/folder"), "{missing:#}");
    }
}
