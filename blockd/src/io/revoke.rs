//! Gives a disk up that no daemon serves: its sidecar says so from then on, and every later start obeys (D11).
//!
//! Takes the daemons' lock of the image meanwhile (D12): of a disk that is being served the daemon has to be told. Whoever
//! else has the image stops nothing: not a byte of it is written, and to say that it is given up is then as right.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};

use crate::io::file_store::{Cache, FileStore, Options};
use crate::io::sidecar_file::SidecarFile;
use crate::io::sidecar_place::look;
use crate::sidecar::revoked;

/// How long to wait for the last requests of a daemon that has just ended.
const LOCK_TIMEOUT: Duration = Duration::from_secs(10);

/// Gives up the disk `disk_id` of `image` for `generation`, which is at `moved_to`; durable when this returns. False: no
/// sidecar says that there is one.
pub fn revoke(image: &Path, disk_id: &str, generation: u64, moved_to: &str) -> Result<bool> {
    let _locked = if image.exists() { Some(locked(image, LOCK_TIMEOUT)?) } else { None };
    let (place, _) = look(image, None, Some(disk_id), None)?;
    let Some(mut found) = SidecarFile::open(place.path())? else { return Ok(false) };
    let given_up = revoked(found.header(), generation, moved_to)
        .with_context(|| format!("cannot give {} up", image.display()))?;
    found.update(|header| *header = given_up).context("cannot write the sidecar")?;
    Ok(true)
}

fn locked(image: &Path, timeout: Duration) -> Result<FileStore> {
    let store = FileStore::open_within(image, Options { read_only: false, cache: Cache::Buffered }, timeout)?;
    store.lock_against_daemons(timeout)?;
    Ok(store)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::io::scratch::Scratch;
    use crate::sidecar::{Header, Role};

    #[test]
    fn a_disk_that_nobody_serves_is_given_up_and_one_that_is_no_disk_is_left_alone() {
        let scratch = Scratch::new();
        let (image, sidecar) = (scratch.path("image"), scratch.path("image.blockd"));
        std::fs::write(&image, vec![1; 1 << 20]).unwrap();
        assert!(!revoke(&image, "disk", 2, "site-a").unwrap());
        let header = Header::new("disk", 1 << 20, Role::Promoted, [1; 16]).unwrap();
        SidecarFile::create(&sidecar, Header { generation: 1, ..header }).unwrap();
        assert!(revoke(&image, "disk", 1, "site-a").is_err());
        assert!(revoke(&image, "disk", 2, "site-a").unwrap());
        let found = SidecarFile::peek(&sidecar).unwrap().unwrap();
        assert_eq!((found.role, found.generation, found.moved_to.as_str()), (Role::Fenced, 2, "site-a"));
    }

    #[test]
    fn a_disk_that_is_being_served_is_not_given_up_behind_its_daemons_back() {
        let scratch = Scratch::new();
        let image = scratch.path("image");
        std::fs::write(&image, vec![1; 1 << 20]).unwrap();
        let _served = locked(&image, Duration::ZERO).unwrap();
        let Err(refused) = locked(&image, Duration::ZERO) else { panic!("it is served") };
        assert!(refused.to_string().contains("another blockd serves"), "{refused}");
    }
}
