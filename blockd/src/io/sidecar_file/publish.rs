//! Gives a file its name without ever replacing another one, on file systems of every kind.
//!
//! ```text
//! a hard link ─ not here ─► a rename that replaces nothing ─ not here ─► a look, and a rename
//! ```
//!
//! The last is as good as long as all who make files of this name are ours: whoever makes one holds a lock on the file
//! that he makes it of ([`make`]).

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, FcntlArg, RenameFlags, fcntl, renameat2};

use crate::io::file_store::sync_directory_of;

/// How often a lock that is held is tried again.
const RETRY_EVERY: Duration = Duration::from_millis(10);
/// How long another one may take to make the same file.
const MAKING_TIMEOUT: Duration = Duration::from_secs(5);

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

/// Makes the file `path` with what `fill` writes into it, durably and whole, or not at all.
pub fn make(path: &Path, fill: impl FnOnce(&File) -> io::Result<()>) -> io::Result<()> {
    let mut name = path.file_name().unwrap_or_default().to_os_string();
    name.push(".new");
    let new = path.with_file_name(name);
    let file = empty(&new)?;
    let made = fill(&file).and_then(|()| file.sync_all()).and_then(|()| publish(&new, path));
    // Gone already where it was renamed.
    let _ = fs::remove_file(&new);
    made?;
    sync_directory_of(path)
}

/// An empty file that nobody else writes to.
fn empty(new: &Path) -> io::Result<File> {
    let started = Instant::now();
    loop {
        let options = || OpenOptions::new().read(true).write(true).mode(0o600).to_owned();
        let (file, is_mine) = match options().create_new(true).open(new) {
            Ok(file) => (file, true),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => match options().open(new) {
                Ok(file) => (file, false),
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                Err(error) => return Err(error),
            },
            Err(error) => return Err(error),
        };
        if !lock(&file, MAKING_TIMEOUT)? {
            let text = format!("another process has been making {} for {MAKING_TIMEOUT:?}", new.display());
            return Err(io::Error::new(io::ErrorKind::TimedOut, text));
        }
        // Nobody has it any more, but it may have got its name meanwhile, or have been cleared away.
        let is_there = fs::metadata(new).is_ok_and(|found| is_same(&file, &found));
        if is_mine && is_there {
            return Ok(file);
        }
        if is_there {
            fs::remove_file(new)?;
        }
        if started.elapsed() >= MAKING_TIMEOUT {
            return Err(io::ErrorKind::TimedOut.into());
        }
    }
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

    #[test]
    fn what_a_dead_maker_has_left_is_cleared_away_and_never_written_to() {
        let scratch = Scratch::new();
        let [path, left] = ["path", "path.new"].map(|name| scratch.path(name));
        // It died between the two names of its file.
        fs::write(&path, "of the dead").unwrap();
        fs::hard_link(&path, &left).unwrap();
        assert_eq!(make(&path, write("x")).unwrap_err().kind(), io::ErrorKind::AlreadyExists);
        assert_eq!(fs::read_to_string(&path).unwrap(), "of the dead");
        assert!(!left.exists());
        fs::remove_file(&path).unwrap();
        fs::write(&left, "half").unwrap();
        make(&path, write("whole")).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "whole");
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
