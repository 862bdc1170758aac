//! Where the sidecar of an image lies: by what the image is, and not by the name that it is called by.
//!
//! | image | its sidecar |
//! |---|---|
//! | a file | `FILE.blockd` beside the file itself; links are followed |
//! | the same file by another hard link, or renamed since | where the [mark](super::file_store::mark) on the file says |
//! | a block device | `/var/lib/blockd/device-IDENTITY.blockd`, by what [`device`] says is its own |
//!
//! 0.1.0 put it beside a symbolic link, and named it by the last part of a device's path alone. One of those is a
//! [`Stray`], and so is one that a renamed image has left behind: it is found, and moved when the disk is next served.
//! Two that may both be an image's are refused: nobody but a person knows which of them is right.

pub mod device;

use std::fs::{self, Metadata};
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use nix::sys::stat::{major, minor};
use thiserror::Error;
use tracing::warn;

use self::device::Identity;
use crate::io::file_store::mark;
use crate::io::sidecar_file::{SidecarError, SidecarFile};
use crate::sidecar::{Ambiguous, Header, Verdict, verdict};

/// Where the sidecars of devices are.
const DEVICE_FOLDER: &str = "/var/lib/blockd";
/// The end of a sidecar's name.
const SUFFIX: &str = ".blockd";
/// Most symbolic links that one path leads through, as for the kernel.
const LINKS_MAX: usize = 40;
/// The most letters of an identity that a name shows.
const SHOWN_MAX: usize = 100;

/// Why it cannot be said where an image's sidecar is.
#[derive(Debug, Error)]
pub enum PlaceError {
    /// The system said no.
    #[error("cannot look for the sidecar of {image}")]
    Io {
        /// Which image.
        image: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Two may be its own.
    #[error(
        "{image} has two sidecars, {home} and {other}: it was served under two names. Find out which of them says the \
         truth about this disk (they are beside it and beside its other name), and move the other one away"
    )]
    Two {
        /// Which image.
        image: PathBuf,
        /// Where its sidecar belongs.
        home: PathBuf,
        /// The other one.
        other: PathBuf,
    },
    /// Somebody wants a new one somewhere else.
    #[error(
        "{image} has a sidecar already, {other}: a new one at {named} would forget what it says. Leave --sidecar out, or move \
         it there"
    )]
    Elsewhere {
        /// Which image.
        image: PathBuf,
        /// Where somebody wants its sidecar.
        named: PathBuf,
        /// Where it is.
        other: PathBuf,
    },
    /// One that may be another device's.
    #[error(
        "cannot serve {image} beside the sidecar {old} (if that is this device's, move it to {home}; if not, move it away)"
    )]
    Ambiguous {
        /// Which image.
        image: PathBuf,
        /// Where its sidecar belongs.
        home: PathBuf,
        /// The one in question.
        old: PathBuf,
        /// What it says.
        source: Ambiguous,
    },
    /// One that cannot be read.
    #[error(transparent)]
    Sidecar(#[from] SidecarError),
    /// Another image lies where this one was.
    #[error(
        "{image} was served under another name, and its sidecar {other} is now beside another image: whose it is cannot \
         be told. Bring its own one back from where it is to {home}, or, if that is lost and this is the guest's \
         current disk, say --sidecar {home}"
    )]
    Taken {
        /// Which image.
        image: PathBuf,
        /// Where its sidecar belongs.
        home: PathBuf,
        /// Where it was.
        other: PathBuf,
    },
}

/// A sidecar that is not where it belongs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Stray {
    /// It is this image's: to be moved.
    Left(PathBuf),
    /// It is beside another name of the same file: to be used there.
    Shared(PathBuf),
    /// It is named by the last part of a device's path alone: [`look`] finds out whose it is.
    Named(PathBuf),
}

/// Where a sidecar is, and where it belongs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// Where it belongs.
    pub home: PathBuf,
    /// Where it is instead.
    pub stray: Option<Stray>,
}

impl Place {
    /// Where it is, if there is one at all.
    pub fn path(&self) -> &Path {
        match &self.stray {
            Some(Stray::Left(path) | Stray::Shared(path) | Stray::Named(path)) => path,
            None => &self.home,
        }
    }
}

/// Finds the sidecar of the disk at `image`, where there may be nothing yet, and reads it: at `named`, if somebody said so
/// and no other place has one, else by what the image is. The disk's id and its size in bytes, as far as they are known, tell an old name's owner.
/// The place is one that is sure: never [`Stray::Named`].
pub fn look(
    image: &Path,
    named: Option<&Path>,
    disk_id: Option<&str>,
    size: Option<u64>,
) -> Result<(Place, Option<Header>), PlaceError> {
    let found = find(image, Path::new(DEVICE_FOLDER));
    let Some(named) = named else { return settle(image, found?, disk_id, size) };
    // Whoever cannot tell which one is right may say so.
    let other = found.ok().filter(|place| !matches!(place.stray, Some(Stray::Named(_))));
    match other {
        Some(place) if !named.exists() && place.path().exists() => Err(PlaceError::Elsewhere {
            image: image.into(),
            named: named.into(),
            other: place.path().into(),
        }),
        _ => settle(image, Place { home: named.into(), stray: None }, disk_id, size),
    }
}

/// Finds out whose an old name is.
fn settle(
    image: &Path,
    place: Place,
    disk_id: Option<&str>,
    size: Option<u64>,
) -> Result<(Place, Option<Header>), PlaceError> {
    let Place { home, stray: Some(Stray::Named(old)) } = place else {
        let header = SidecarFile::peek(place.path())?;
        return Ok((place, header));
    };
    let own = SidecarFile::peek(&home)?;
    let Some(said) = SidecarFile::peek(&old)? else { return Ok((Place { home, stray: None }, own)) };
    match verdict(&said, own.as_ref(), disk_id, size.unwrap_or(said.size)) {
        Ok(Verdict::Adopt) => Ok((Place { home, stray: Some(Stray::Left(old)) }, Some(said))),
        Ok(Verdict::Leave) => Ok((Place { home, stray: None }, own)),
        Err(source) => Err(PlaceError::Ambiguous { image: image.into(), home, old, source }),
    }
}

/// Removes an image and its sidecar, whatever of them is there. What is beside another name of the image stays.
pub fn remove_image(image: &Path) -> io::Result<()> {
    // Found first, removed last: an image without a sidecar would be a stranger's to whoever comes next.
    let place = find(image, Path::new(DEVICE_FOLDER)).ok();
    let sidecars = place.into_iter().flat_map(|Place { home, stray }| match stray {
        Some(Stray::Left(path)) => vec![home, path],
        _ => vec![home],
    });
    for path in std::iter::once(image.to_owned()).chain(sidecars) {
        match fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    Ok(())
}

fn find(image: &Path, device_folder: &Path) -> Result<Place, PlaceError> {
    let failed = |source| PlaceError::Io { image: image.into(), source };
    match fs::metadata(image) {
        Ok(found) if found.file_type().is_block_device() => {
            of_device(image, &found, device_folder).map_err(failed)
        }
        Ok(found) => of_file(image, Some(&found)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => of_file(image, None),
        Err(error) => Err(failed(error)),
    }
}

/// Has the image say where its sidecar is from now on, by whatever name it is called. False: its file system keeps no
/// such marks.
pub fn mark_image(image: &Path, sidecar: &Path) -> bool {
    let is_marked = fs::canonicalize(image).and_then(|image| {
        let sidecar = real_path(sidecar)?;
        if mark::read(&image).as_ref() == Some(&sidecar) { Ok(()) } else { mark::write(&image, &sidecar) }
    });
    is_marked.is_ok()
}

fn of_file(image: &Path, found: Option<&Metadata>) -> Result<Place, PlaceError> {
    let failed = |source| PlaceError::Io { image: image.into(), source };
    let real = real_path(image).map_err(failed)?;
    let home = beside(&real);
    let marked = found.and_then(|_| mark::read(&real)).filter(|path| *path != home && path.exists());
    let linked = beside(&real_folder(image).map_err(failed)?);
    let linked = Some(linked).filter(|path| *path != home && path.exists());
    let stray = match (marked.and_then(|path| of_mark(path, found)), linked) {
        (Some(Marked::Anothers(_)), linked) if home.exists() => linked.map(Stray::Left),
        (Some(Marked::Anothers(other)), None) => {
            return Err(PlaceError::Taken { image: image.into(), home, other });
        }
        (
            Some(Marked::Anothers(other) | Marked::Own(Stray::Left(other) | Stray::Shared(other))),
            Some(linked),
        ) if other != linked => {
            return Err(PlaceError::Two { image: image.into(), home: linked, other });
        }
        (Some(Marked::Own(stray)), _) => Some(stray),
        (_, linked) => linked.map(Stray::Left),
    };
    match stray {
        Some(Stray::Left(other) | Stray::Shared(other)) if home.exists() => {
            Err(PlaceError::Two { image: image.into(), home, other })
        }
        stray => Ok(Place { home, stray }),
    }
}

/// What is at the place that a mark names.
enum Marked {
    /// The image's own sidecar.
    Own(Stray),
    /// One that is beside another image now.
    Anothers(PathBuf),
}

fn of_mark(path: PathBuf, image: Option<&Metadata>) -> Option<Marked> {
    let image = image?;
    let name = path.to_str().and_then(|path| path.strip_suffix(SUFFIX));
    // One with a name of its own was named on a command line.
    let Some(name) = name else { return Some(Marked::Own(Stray::Shared(path))) };
    Some(match fs::metadata(name) {
        Ok(there) if (there.dev(), there.ino()) == (image.dev(), image.ino()) => {
            Marked::Own(Stray::Shared(path))
        }
        Ok(_) => Marked::Anothers(path),
        Err(_) => Marked::Own(Stray::Left(path)),
    })
}

fn of_device(image: &Path, found: &Metadata, folder: &Path) -> io::Result<Place> {
    let numbers = (major(found.rdev()), minor(found.rdev()));
    let Identity { text, is_path } = device::identify(Path::new("/sys"), numbers, &real_folder(image)?);
    let home = folder.join(name_of_device(&text));
    if is_path && !home.exists() {
        warn!(
            image = %image.display(),
            "the device says nothing by which it is known again; its sidecar is named by this path: serve it by no other"
        );
    }
    let mut old = image.file_name().unwrap_or_default().to_os_string();
    old.push(SUFFIX);
    let old = folder.join(old);
    let stray = (old.exists() && old != home).then_some(Stray::Named(old));
    Ok(Place { home, stray })
}

/// Readable, and different for what is different.
fn name_of_device(identity: &str) -> String {
    let allowed = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
    let shown = identity.chars().map(|c| if allowed(c) { c } else { '_' }).take(SHOWN_MAX);
    let digest = blake3::hash(identity.as_bytes()).to_hex();
    format!("device-{}-{}{SUFFIX}", shown.collect::<String>(), &digest[..16])
}

fn beside(image: &Path) -> PathBuf {
    let mut name = image.as_os_str().to_os_string();
    name.push(SUFFIX);
    name.into()
}

/// The path with its folder's links resolved, and its own not.
fn real_folder(path: &Path) -> io::Result<PathBuf> {
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let name = path.file_name().ok_or_else(|| io::Error::from(io::ErrorKind::IsADirectory))?;
    Ok(fs::canonicalize(parent)?.join(name))
}

/// The path with all links resolved, also of what is not there yet.
fn real_path(path: &Path) -> io::Result<PathBuf> {
    let mut path = path.to_path_buf();
    for _ in 0..LINKS_MAX {
        let named = real_folder(&path)?;
        match fs::read_link(&named) {
            Ok(target) => path = named.parent().unwrap_or(Path::new("/")).join(target),
            Err(_) => return Ok(named),
        }
    }
    Err(io::Error::from_raw_os_error(libc::ELOOP))
}

#[cfg(test)]
mod tests;
