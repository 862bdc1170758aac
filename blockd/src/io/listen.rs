//! Listening UNIX sockets: made with care for who may be behind the path, or inherited.
//!
//! A path at which somebody answers is in use and refused; a socket at which nobody answers is
//! left over from a process that died, and replaced; anything that is no socket is left alone.
//!
//! Between supervisor and daemon the sockets travel as open descriptors, listed as
//! `nbd=5,control=6`: clients that connect while no daemon runs wait in the queue of the socket.

use std::io;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use nix::sys::socket::{getsockopt, sockopt::AcceptConn};
use thiserror::Error;

use crate::config::Serve;

/// How often, and after which pause, a socket in use is looked at again.
const STALE_TRIES: u32 = 10;
const STALE_PAUSE: Duration = Duration::from_millis(100);

/// Why a socket cannot be listened on.
#[derive(Debug, Error)]
pub enum ListenError {
    /// Somebody answers there.
    #[error("another process listens on {0}; stop it, or choose another path")]
    InUse(PathBuf),
    /// A file of another kind is there.
    #[error("{0} exists and is not a socket; it is left alone, choose another path")]
    NotASocket(PathBuf),
    /// The system said no.
    #[error("cannot listen on {path}")]
    Failed {
        /// Where.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The list of descriptors makes no sense.
    #[error("the list of inherited sockets {0:?} is not usable")]
    BadList(String),
}

/// The sockets of one daemon.
#[derive(Debug)]
pub struct Listeners {
    /// For the guest.
    pub nbd: UnixListener,
    /// For commands.
    pub control: UnixListener,
    /// For the source of a copy, where this is its destination.
    pub replica: Option<UnixListener>,
}

impl Listeners {
    /// Listens on the paths of `serve`. Sockets made before one fails are removed again.
    pub fn bind(serve: &Serve) -> Result<Self, ListenError> {
        let made = Self::bind_each(serve);
        if let Err((_, done)) = &made {
            done.iter().for_each(|path| remove(path));
        }
        made.map_err(|(error, _)| error)
    }

    fn bind_each(serve: &Serve) -> Result<Self, (ListenError, Vec<PathBuf>)> {
        let mut done = Vec::new();
        let mut make = |path: &Path| match bind(path) {
            Ok(listener) => {
                done.push(path.to_path_buf());
                Ok(listener)
            }
            Err(error) => Err((error, done.clone())),
        };
        let (nbd, control) = (make(&serve.nbd)?, make(&serve.control)?);
        let replica = serve.replica.as_ref().map(|target| make(&target.socket)).transpose()?;
        Ok(Self { nbd, control, replica })
    }

    /// Removes the paths of `serve`.
    pub fn remove_paths(serve: &Serve) {
        let replica = serve.replica.as_ref().map(|target| &target.socket);
        [Some(&serve.nbd), Some(&serve.control), replica].into_iter().flatten().for_each(|path| remove(path));
    }

    /// Lets child processes have these sockets, and lists them for the child's command line.
    pub fn pass_on(&self) -> io::Result<String> {
        let sockets =
            [("nbd", Some(&self.nbd)), ("control", Some(&self.control)), ("replica", self.replica.as_ref())];
        let mut list = Vec::new();
        for (name, listener) in sockets {
            let Some(listener) = listener else { continue };
            fcntl(listener, FcntlArg::F_SETFD(FdFlag::empty()))?;
            list.push(format!("{name}={}", listener.as_raw_fd()));
        }
        Ok(list.join(","))
    }

    /// Takes over the sockets that the parent listed. To be called once, before anything else
    /// opens descriptors.
    pub fn inherit(list: &str) -> Result<Self, ListenError> {
        let bad = || ListenError::BadList(list.to_string());
        let (mut nbd, mut control, mut replica) = (None, None, None);
        for entry in list.split(',') {
            let (name, number) = entry.split_once('=').ok_or_else(bad)?;
            let slot = match name {
                "nbd" => &mut nbd,
                "control" => &mut control,
                "replica" => &mut replica,
                _ => return Err(bad()),
            };
            let fd = number.parse().ok().filter(|fd| *fd > 2 && slot.is_none()).ok_or_else(bad)?;
            *slot = Some(adopt(fd).map_err(|_| bad())?);
        }
        Ok(Self { nbd: nbd.ok_or_else(bad)?, control: control.ok_or_else(bad)?, replica })
    }
}

/// Listens on one path; only its owner may connect.
pub fn bind(path: &Path) -> Result<UnixListener, ListenError> {
    let failed = |source| ListenError::Failed { path: path.into(), source };
    let listener = match UnixListener::bind(path) {
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
            clear_when_stale(path)?;
            UnixListener::bind(path)
        }
        other => other,
    };
    let listener = listener.map_err(failed)?;
    std::fs::set_permissions(path, PermissionsExt::from_mode(0o600)).map_err(failed)?;
    Ok(listener)
}

/// A daemon that was just killed may still hold its sockets for a moment, while the kernel ends
/// what it had in flight.
fn clear_when_stale(path: &Path) -> Result<(), ListenError> {
    for _ in 0..STALE_TRIES {
        match clear_stale(path) {
            Err(ListenError::InUse(_)) => thread::park_timeout(STALE_PAUSE),
            done => return done,
        }
    }
    clear_stale(path)
}

fn clear_stale(path: &Path) -> Result<(), ListenError> {
    let failed = |source| ListenError::Failed { path: path.into(), source };
    if !std::fs::symlink_metadata(path).map_err(failed)?.file_type().is_socket() {
        return Err(ListenError::NotASocket(path.into()));
    }
    match UnixStream::connect(path) {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
            std::fs::remove_file(path).map_err(failed)
        }
        _ => Err(ListenError::InUse(path.into())),
    }
}

fn remove(path: &Path) {
    // Whoever removed it before did our work.
    let _ = std::fs::remove_file(path);
}

fn adopt(fd: RawFd) -> io::Result<UnixListener> {
    // SAFETY: the parent opened this descriptor for us; `inherit` takes each number once, before
    // anything else in this process could own it, and gives back what is no socket.
    let fd = unsafe { OwnedFd::from_raw_fd(fd) };
    match getsockopt(&fd.as_fd(), AcceptConn) {
        Ok(true) => {}
        Ok(false) => return Err(io::ErrorKind::InvalidInput.into()),
        Err(errno) => {
            // Not ours after all: leave it open rather than close somebody's.
            std::mem::forget(fd);
            return Err(errno.into());
        }
    }
    fcntl(&fd, FcntlArg::F_SETFD(FdFlag::FD_CLOEXEC))?;
    let listener = UnixListener::from(fd);
    // Shared with the parent and so with the daemon before us, which may have left it otherwise.
    listener.set_nonblocking(false)?;
    Ok(listener)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::io::scratch::Scratch;

    #[test]
    fn a_socket_that_nobody_answers_is_replaced_and_private() {
        let scratch = Scratch::new();
        let path = scratch.path("s");
        drop(bind(&path).unwrap());
        let again = bind(&path).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert!(UnixStream::connect(&path).is_ok());
        drop(again);
    }

    #[test]
    fn a_socket_that_is_in_use_and_a_file_are_left_alone() {
        let scratch = Scratch::new();
        let (socket, file) = (scratch.path("s"), scratch.path("f"));
        let _listener = bind(&socket).unwrap();
        assert!(matches!(bind(&socket), Err(ListenError::InUse(_))));
        std::fs::write(&file, "mine").unwrap();
        assert!(matches!(bind(&file), Err(ListenError::NotASocket(_))));
        assert_eq!(std::fs::read_to_string(&file).unwrap(), "mine");
    }

    #[test]
    fn a_path_that_cannot_be_is_named() {
        let scratch = Scratch::new();
        let text = bind(&scratch.path("x".repeat(200))).unwrap_err().to_string();
        assert!(text.contains("xxx"), "{text}");
    }

    #[test]
    fn a_list_that_makes_no_sense_is_refused() {
        for list in ["", "nbd", "nbd=x", "nbd=2,control=1", "what=77", "nbd=1000000,control=1000001"] {
            assert!(matches!(Listeners::inherit(list), Err(ListenError::BadList(_))), "{list}");
        }
    }

    #[test]
    fn a_list_that_was_passed_on_is_inherited() {
        let scratch = Scratch::new();
        let make = |name| bind(&scratch.path(name)).unwrap();
        let given = Listeners { nbd: make("n"), control: make("c"), replica: None };
        let list = given.pass_on().unwrap();
        std::mem::forget(given); // as after an exec: only the numbers are left
        let taken = Listeners::inherit(&list).unwrap();
        assert!(taken.replica.is_none());
        let flags = FdFlag::from_bits_retain(fcntl(&taken.nbd, FcntlArg::F_GETFD).unwrap());
        assert!(flags.contains(FdFlag::FD_CLOEXEC));
        assert!(UnixStream::connect(scratch.path("c")).is_ok());
    }
}
