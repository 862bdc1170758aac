//! Gives a file its name without ever replacing another one, on file systems of every kind.
//!
//! ```text
//! a hard link ─ not here ─► a rename that replaces nothing ─ not here ─► a look, and a rename
//! ```
//!
//! The last is as good as long as all who make files of this name are ours: whoever does it holds a lock on the folder.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, AtFlags, FcntlArg, Flock, FlockArg, RenameFlags, fcntl, renameat2};
use nix::unistd::linkat;

use crate::io::file_store::sync_directory_of;

/// How often a lock that is held is tried again.
const RETRY_EVERY: Duration = Duration::from_millis(10);

/// Locks the whole file for whoever holds this description of it. False: another one holds it, and still does after
/// `timeout`.
pub fn lock(file: &File, timeout: Duration) -> io::Result<bool> {
    let wanted = libc::flock {
        l_type: libc::F_WRLCK as _,
        l_whence: libc::SEEK_SET as _,
        l_start: 0,
        l_len: 0,
        l_pid: 0, // required for locks of an open file description
    };
    let started = Instant::now();
    loop {
        match fcntl(file, FcntlArg::F_OFD_SETLK(&wanted)) {
            Ok(_) => return Ok(true),
            Err(Errno::EAGAIN | Errno::EACCES) if started.elapsed() >= timeout => return Ok(false),
            Err(Errno::EAGAIN | Errno::EACCES | Errno::EINTR) => thread::sleep(RETRY_EVERY),
            Err(errno) => return Err(errno.into()),
        }
    }
}

/// Makes the file `path` with what `fill` writes into it, durably and whole, or not at all. What it is made of has no name, or
/// one that nobody knows beforehand: a name that is known may be another one's file.
pub fn make(path: &Path, fill: impl FnOnce(&File) -> io::Result<()>) -> io::Result<()> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    match OpenOptions::new().read(true).write(true).custom_flags(libc::O_TMPFILE).mode(0o600).open(folder) {
        Ok(file) => {
            fill(&file)?;
            file.sync_all()?;
            match publish_nameless(&file, path) {
                Err(error) if has_no_links(&error) || error.kind() == io::ErrorKind::NotFound => {
                    make_by_name(path, |named| io::copy(&mut Whole(&file, 0), &mut &*named).map(drop))?;
                }
                other => other?,
            }
        }
        // NFS, exFAT, and kernels before 3.11, which take it for a folder.
        Err(error) if has_no_links(&error) || error.kind() == io::ErrorKind::IsADirectory => {
            make_by_name(path, fill)?;
        }
        Err(error) => return Err(error),
    }
    sync_directory_of(path)
}

/// A file from its beginning, wherever others are in it.
struct Whole<'a>(&'a File, u64);

impl io::Read for Whole<'_> {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        let count = self.0.read_at(bytes, self.1)?;
        self.1 += count as u64;
        Ok(count)
    }
}

fn publish_nameless(file: &File, path: &Path) -> io::Result<()> {
    let source = format!("/proc/self/fd/{}", file.as_raw_fd());
    Ok(linkat(AT_FDCWD, source.as_str(), AT_FDCWD, path, AtFlags::AT_SYMLINK_FOLLOW)?)
}

fn make_by_name(path: &Path, fill: impl FnOnce(&File) -> io::Result<()>) -> io::Result<()> {
    let mut random = [0; 8];
    File::open("/dev/urandom")?.read_exact(&mut random)?;
    let mut name = path.file_name().unwrap_or_default().to_os_string();
    name.push(format!(".{:016x}.new", u64::from_ne_bytes(random)));
    let new = path.with_file_name(name);
    let file = OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(&new)?;
    let made = fill(&file).and_then(|()| file.sync_all()).and_then(|()| publish(&new, path));
    // Gone already where it was renamed.
    let _ = fs::remove_file(&new);
    made
}

/// It is the file of this description.
pub fn is_same(file: &File, found: &fs::Metadata) -> bool {
    file.metadata().is_ok_and(|own| (own.dev(), own.ino()) == (found.dev(), found.ino()))
}

/// Moves a file to a name that is not taken, also to another file system; durable when this returns.
pub fn move_to(old: &Path, path: &Path) -> io::Result<()> {
    match rename(old, path) {
        Err(error) if error.raw_os_error() == Some(libc::EXDEV) => {
            make(path, |file| io::copy(&mut File::open(old)?, &mut &*file).map(drop))?;
            fs::remove_file(old)?;
        }
        other => other?,
    }
    sync_directory_of(path)?;
    sync_directory_of(old)
}

fn publish(new: &Path, path: &Path) -> io::Result<()> {
    // A link, unlike a rename, does not replace what is there.
    match fs::hard_link(new, path) {
        Err(error) if has_no_links(&error) => rename(new, path),
        other => other,
    }
}

fn rename(new: &Path, path: &Path) -> io::Result<()> {
    match renameat2(AT_FDCWD, new, AT_FDCWD, path, RenameFlags::RENAME_NOREPLACE) {
        Err(Errno::EINVAL | Errno::ENOSYS | Errno::EOPNOTSUPP) => {}
        other => return Ok(other?),
    }
    // Held until the file has its name, as far as this file system has locks of folders.
    let folder = File::open(path.parent().unwrap_or(Path::new(".")));
    let _alone = folder.ok().and_then(|folder| Flock::lock(folder, FlockArg::LockExclusive).ok());
    if fs::symlink_metadata(path).is_ok() {
        return Err(io::ErrorKind::AlreadyExists.into());
    }
    fs::rename(new, path)
}

/// exFAT and its like say EPERM, others what they mean.
fn has_no_links(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EPERM | libc::EOPNOTSUPP | libc::ENOSYS | libc::EMLINK))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::io::scratch::Scratch;

    fn write(text: &'static str) -> impl Fn(&File) -> io::Result<()> {
        move |file| io::Write::write_all(&mut &*file, text.as_bytes())
    }

    #[test]
    fn no_way_of_giving_a_name_replaces_what_has_it() {
        let scratch = Scratch::new();
        let [new, path] = ["new", "path"].map(|name| scratch.path(name));
        for give in [publish, rename, move_to] {
            fs::write(&new, "new").unwrap();
            fs::write(&path, "there").unwrap();
            assert_eq!(give(&new, &path).unwrap_err().kind(), io::ErrorKind::AlreadyExists);
            assert_eq!(fs::read_to_string(&path).unwrap(), "there");
            fs::remove_file(&path).unwrap();
            give(&new, &path).unwrap();
            assert_eq!(fs::read_to_string(&path).unwrap(), "new");
            let _ = fs::remove_file(&new); // which a link leaves
            fs::remove_file(&path).unwrap();
        }
    }

    /// A guest's disk, for example: others may have files in the same folder.
    #[test]
    fn no_file_of_another_is_ever_written_to_whatever_its_name() {
        let scratch = Scratch::new();
        let [path, other] = ["path", "path.new"].map(|name| scratch.path(name));
        for make in [make, make_by_name] as [fn(&Path, _) -> _; 2] {
            fs::write(&other, "another's").unwrap();
            make(&path, write("whole")).unwrap();
            assert_eq!(fs::read_to_string(&path).unwrap(), "whole");
            assert!(!is_same(&File::open(&other).unwrap(), &fs::metadata(&path).unwrap()));
            assert_eq!(make(&path, write("x")).unwrap_err().kind(), io::ErrorKind::AlreadyExists);
            assert_eq!(fs::read_to_string(&path).unwrap(), "whole");
            assert_eq!(fs::read_to_string(&other).unwrap(), "another's");
            assert_eq!(fs::read_dir(scratch.path("")).unwrap().count(), 2, "nothing is left");
            fs::remove_file(&path).unwrap();
        }
    }

    #[test]
    fn of_many_makers_one_succeeds_and_its_file_is_whole() {
        let scratch = Scratch::new();
        let path = scratch.path("path");
        let makers = ["aaaa", "bbbb", "cccc", "dddd"];
        let made = thread::scope(|scope| {
            let threads = makers.map(|text| {
                scope.spawn({
                    let path = &path;
                    move || make(path, write(text)).is_ok()
                })
            });
            threads.map(|thread| thread.join().unwrap())
        });
        assert_eq!(made.iter().filter(|made| **made).count(), 1);
        let winner = makers[made.iter().position(|made| *made).unwrap()];
        assert_eq!(fs::read_to_string(&path).unwrap(), winner);
        assert_eq!(fs::read_dir(scratch.path("")).unwrap().count(), 1, "nothing is left");
    }

    #[test]
    fn a_lock_is_held_until_the_last_descriptor_is_closed() {
        let scratch = Scratch::new();
        let open = || File::create(scratch.path("file")).unwrap();
        let first = open();
        assert!(lock(&first, Duration::ZERO).unwrap());
        let copy = first.try_clone().unwrap();
        drop(first);
        assert!(!lock(&open(), Duration::ZERO).unwrap());
        drop(copy);
        assert!(lock(&open(), Duration::ZERO).unwrap());
    }
}
