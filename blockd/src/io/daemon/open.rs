//! From paths to a locked disk with its sidecar, or a reason why not.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use tracing::{info, warn};

use super::Start;
use crate::config::{CacheFlag, Serve};
use crate::io::file_store::{Cache, FileStore, Options, create_sparse};
use crate::io::image_ends::ImageEnds;
use crate::io::sidecar_file::{SidecarBits, SidecarFile, boot_id};
use crate::io::sidecar_place::{Place, Stray, look, mark_image};
use crate::sidecar::{self, Asked, Header, ImageState, Recovery, Role, startup};
use crate::store::BlockStore;

/// How long to wait for the last requests of a predecessor that died.
const LOCK_TIMEOUT: Duration = Duration::from_secs(30);
/// How long to wait where none is known of.
const FIRST_LOCK_TIMEOUT: Duration = Duration::from_secs(2);

/// What disks are made of for a guest, in bytes.
const SECTOR_BYTES: u64 = 512;

/// A disk that this daemon may serve.
pub struct Disk {
    /// Locked (D12).
    pub store: Arc<FileStore>,
    /// What the disk remembers.
    pub header: Header,
    /// Where it remembers it, and which blocks the replica may lack; none where it is served
    /// read-only.
    pub sidecar: Option<(SidecarFile, SidecarBits)>,
}

/// Opens the disk in the role that its sidecar allows.
pub fn open(serve: &Serve, start: Start) -> Result<Disk> {
    let present = is_present(&serve.image)?;
    let store = if present { Some(open_locked(serve, start)?) } else { None };
    let size = store.as_ref().map(|store| store.geometry().size);
    let (place, found) = look(&serve.image, serve.sidecar.as_deref(), serve.disk_id.as_deref(), size)?;
    let disk_id = match (&serve.disk_id, &found) {
        (Some(id), _) => id.clone(),
        (None, Some(header)) => header.disk_id.clone(),
        (None, None) => serve.derived_disk_id()?,
    };
    let asked = match &serve.replica {
        Some(target) if target.claim => Asked::AsClaimedReplica(target.size),
        Some(target) => Asked::AsReplica(target.size),
        None => Asked::AsDisk,
    };
    let image = match &store {
        Some(store) => ImageState::Present(store.geometry().size),
        None if serve.image.exists() => ImageState::Empty,
        None => ImageState::Absent,
    };
    let decided = startup(found.as_ref(), image, asked, &disk_id).with_context(|| {
        format!("cannot serve {} (sidecar {})", serve.image.display(), place.path().display())
    })?;
    log_start(decided);
    if found.is_none() && !start.restarted && matches!(decided, sidecar::Start::Disk { .. }) {
        check_format(serve)?;
    }
    if serve.read_only {
        return read_only(store, found, &disk_id);
    }
    check_names(serve, &place, found.as_ref())?;
    let mut sidecar = mark(&place, &disk_id, decided, store.as_deref())?;
    let store = match (store, decided) {
        (Some(store), _) => store,
        (None, sidecar::Start::Replica { size, .. }) => {
            // After the mark: an image without one would be a stranger's to the next start.
            create_sparse(&serve.image, size).context("cannot make the replica's image")?;
            open_locked(serve, start)?
        }
        (None, sidecar::Start::Disk { .. }) => unreachable!("startup refuses a disk without an image"),
    };
    mark_image(&serve.image, sidecar.path());
    let bits = recover(&mut sidecar, found.as_ref())?;
    Ok(Disk { store, header: sidecar.header().clone(), sidecar: Some((sidecar, bits)) })
}

/// False where there is nothing, or a file of no bytes.
fn is_present(image: &Path) -> Result<bool> {
    match fs::metadata(image) {
        Ok(metadata) => Ok(!metadata.is_file() || metadata.len() > 0),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error).with_context(|| format!("cannot look at {}", image.display())),
    }
}

fn open_locked(serve: &Serve, start: Start) -> Result<Arc<FileStore>> {
    let cache = match serve.cache {
        CacheFlag::Direct => Cache::Direct,
        CacheFlag::Buffered => Cache::Buffered,
    };
    let options = Options { read_only: serve.read_only, cache };
    let store = if start.restarted {
        // A guest that runs waits for its disk: who wrote beside the daemon before is no reason to keep it from it now.
        let store = FileStore::open_within(&serve.image, options, LOCK_TIMEOUT)?;
        store.lock(LOCK_TIMEOUT)?;
        store
    } else {
        FileStore::open_alone(&serve.image, options, FIRST_LOCK_TIMEOUT)?
    };
    warn_of_a_part_of_a_sector(store.geometry().size);
    Ok(Arc::new(store))
}

/// A new sidecar is found by all names of its image, or it is not made: what it will say has to hold for each of them.
fn check_names(serve: &Serve, place: &Place, found: Option<&Header>) -> Result<()> {
    let names = fs::metadata(&serve.image).map_or(1, |metadata| metadata.nlink());
    if found.is_some() || serve.sidecar.is_some() || names == 1 || mark_image(&serve.image, &place.home) {
        return Ok(());
    }
    bail!(
        "{} has {names} names (hard links), and its file system keeps no mark on it by which each leads to the same sidecar: \
         a disk that moved away would be served by its other name. Remove the other names, or say --sidecar at every start",
        serve.image.display()
    )
}

/// Of an image that becomes a disk here: later it holds what the guest has written, which is nobody's business.
fn check_format(serve: &Serve) -> Result<()> {
    let image = serve.image.display();
    let ends = ImageEnds::of(&serve.image).with_context(|| format!("cannot look at {image}"))?;
    if let (Some(format), None) = (ends.format, serve.format) {
        bail!(
            "{image} is a {format} image by its own word, and would be served byte by byte, which is no disk; convert \
             it first (qemu-img convert -O raw IMAGE NEW), or say --format raw if these are the disk's own bytes"
        );
    }
    Ok(())
}

/// NBD has disks of any size, and clients that take them as they are. QEMU shows a guest whole sectors.
fn warn_of_a_part_of_a_sector(size_bytes: u64) {
    let shown_bytes = size_bytes.next_multiple_of(SECTOR_BYTES);
    if shown_bytes != size_bytes {
        warn!(
            size_bytes,
            shown_bytes, "QEMU shows a guest more than there is of this disk: writes to its last sector fail"
        );
    }
}

fn log_start(decided: sidecar::Start) {
    match decided {
        sidecar::Start::Disk { promoted: true } => {
            info!("asked for a replica, but it was promoted since: serving it as the guest's disk");
        }
        sidecar::Start::Replica { coming_back: true, .. } => {
            info!("this disk moved away once and is a replica now: it is coming back");
        }
        _ => {}
    }
}

fn read_only(store: Option<Arc<FileStore>>, found: Option<Header>, disk_id: &str) -> Result<Disk> {
    let store = store.expect("startup refuses a disk without an image, and flags a read-only replica");
    let size = store.geometry().size;
    let header = match found {
        Some(header) => header,
        None => Header::new(disk_id, size, Role::Primary, boot_id()?)?,
    };
    Ok(Disk { store, header, sidecar: None })
}

/// Makes the sidecar say durably what the disk is from here on.
fn mark(
    place: &Place,
    disk_id: &str,
    decided: sidecar::Start,
    store: Option<&FileStore>,
) -> Result<SidecarFile> {
    let (role, size) = match (decided, store) {
        (sidecar::Start::Replica { size, .. }, _) => (Role::Replica, size),
        (sidecar::Start::Disk { .. }, Some(store)) => (Role::Primary, store.geometry().size),
        (sidecar::Start::Disk { .. }, None) => unreachable!("startup refuses a disk without an image"),
    };
    if let Some(parent) = place.home.parent().filter(|parent| !parent.as_os_str().is_empty()) {
        fs::create_dir_all(parent).with_context(|| format!("cannot make {}", parent.display()))?;
    }
    let boot = boot_id().context("cannot tell which boot this is")?;
    let mut sidecar = SidecarFile::open_or_create(place.path(), || Header::new(disk_id, size, role, boot))?;
    if let Some(Stray::Left(old)) = &place.stray {
        bring_home(&mut sidecar, old, &place.home);
    }
    if matches!(decided, sidecar::Start::Replica { .. }) && sidecar.header().role != Role::Replica {
        sidecar
            .update(|header| {
                header.role = Role::Replica;
                header.sealed = 0;
                header.recording = false;
            })
            .context("cannot mark the image as a replica")?;
    }
    Ok(sidecar)
}

/// Moves a sidecar to where it is found by every name of its image.
fn bring_home(sidecar: &mut SidecarFile, old: &Path, home: &Path) {
    let (old, home_text) = (old.display(), home.display());
    match sidecar.move_to(home) {
        Ok(()) => info!("the sidecar {old} was moved to {home_text}, where it belongs now"),
        Err(error) => warn!(
            "the sidecar {old} cannot be moved to {home_text}, where it belongs now, and is used where it is: {:#}",
            anyhow::Error::from(error)
        ),
    }
}

/// Maps the bitmap, and fills it where it cannot be trusted (D10).
fn recover(sidecar: &mut SidecarFile, found: Option<&Header>) -> Result<SidecarBits> {
    let boot = boot_id().context("cannot tell which boot this is")?;
    let mut bits = sidecar.bits().context("cannot map the sidecar's bitmap")?;
    match Recovery::of(found, boot) {
        Recovery::AllBits { reason } if sidecar.header().recording => {
            warn!(reason, "every block counts as unacknowledged");
            sidecar.reserve().context("no space for the sidecar's bitmap")?;
            bits.set_all();
        }
        Recovery::AllBits { .. } | Recovery::KeepBits => {}
    }
    if sidecar.header().role == Role::Replica {
        // Beforehand: without room for it the guest could come here, and never leave again.
        sidecar.reserve().context(
            "no room for the sidecar's bitmap, without which a guest that came here could not leave again",
        )?;
    }
    // After the bits: dying in between leaves a boot id that fills them again.
    sidecar.update(|header| header.boot_id = boot).context("cannot update the sidecar")?;
    Ok(bits)
}

#[cfg(test)]
mod tests;
