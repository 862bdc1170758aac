//! Processes that outlive this one: QEMU and the disks' daemons.
//!
//! ```text
//! spawn ──► own session, no pipe to us, words into a log file     we end: they go on
//! adopt ──► by process id, held by a pidfd                        so a signal never meets a stranger
//! ```
//!
//! The only module of `migrated` that needs `unsafe` for processes: to begin a session between fork and exec, and
//! for the two system calls of pidfds, which the standard library does not have yet.

use std::ffi::OsString;
use std::fs::OpenOptions;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::path::Path;
use std::process::{ExitStatus, Stdio};
use std::sync::Arc;
use std::time::Duration;

use nix::unistd::{setgid, setgroups, setsid, setuid};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::process::Command;
use tokio::sync::watch;
use tokio::time::timeout;
use tracing::warn;

use crate::io::run_as::RunAs;

/// A process; clones are the same one.
#[derive(Clone, Debug)]
pub struct Process {
    pid: i32,
    pidfd: Arc<AsyncFd<OwnedFd>>,
    /// How it ended; stays none for a process that we did not start, for only a parent is told.
    status: watch::Receiver<Option<ExitStatus>>,
}

impl Process {
    /// Starts a program in a session of its own. What it says goes to the end of the file at `log`.
    pub fn spawn(program: &Path, words: &[OsString], log: &Path) -> io::Result<Self> {
        Self::spawn_as(None, program, words, log)
    }

    /// The same, as another user from its first instruction on.
    pub fn spawn_as(
        user: Option<&RunAs>,
        program: &Path,
        words: &[OsString],
        log: &Path,
    ) -> io::Result<Self> {
        let log = OpenOptions::new().append(true).create(true).open(log)?;
        let mut command = Command::new(program);
        command.args(words).stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        let user = user.cloned();
        let begin = move || {
            setsid()?;
            if let Some(RunAs { uid, gid, groups }) = &user {
                setgroups(groups)?;
                setgid(*gid)?;
                setuid(*uid)?;
            }
            Ok(())
        };
        // SAFETY: these are bare system calls, which are async-signal-safe; they only read what was made before.
        unsafe { command.pre_exec(begin) };
        let mut child = command.spawn()?;
        let pid = child.id().expect("a child that was not waited for has a number") as i32;
        let pidfd = pidfd_open(pid)?;
        let (sender, status) = watch::channel(None);
        // Waits for the child also when nobody holds the `Process`, so that it leaves no zombie.
        tokio::spawn(async move {
            match child.wait().await {
                Ok(status) => drop(sender.send_replace(Some(status))),
                Err(error) => warn!(pid, %error, "cannot wait for a child"),
            }
        });
        Ok(Self { pid, pidfd: Arc::new(pidfd), status })
    }

    /// Holds a process that runs already.
    pub fn adopt(pid: i32) -> io::Result<Self> {
        let (_, status) = watch::channel(None);
        Ok(Self { pid, pidfd: Arc::new(pidfd_open(pid)?), status })
    }

    /// Its number.
    pub fn pid(&self) -> i32 {
        self.pid
    }

    /// Comes back when it has ended; with its status if it was our child.
    pub async fn ended(&self) -> Option<ExitStatus> {
        // A pidfd becomes readable at the process's end, and stays so. It cannot fail.
        let _ = self.pidfd.ready(Interest::READABLE).await;
        let mut status = self.status.clone();
        // An adopted process has no sender, so this fails at once.
        status.wait_for(Option::is_some).await.ok().and_then(|status| *status)
    }

    /// Whether it has ended within `limit`.
    pub async fn ended_within(&self, limit: Duration) -> bool {
        timeout(limit, self.ended()).await.is_ok()
    }

    /// Sends a signal; to a process that has ended, to nobody.
    pub fn signal(&self, signal: nix::sys::signal::Signal) {
        // SAFETY: plain numbers and a null pointer, which stands for no further particulars.
        let sent = unsafe {
            libc::syscall(
                libc::SYS_pidfd_send_signal,
                self.pidfd.as_raw_fd(),
                signal as libc::c_int,
                std::ptr::null::<libc::siginfo_t>(),
                0,
            )
        };
        if sent < 0 {
            let error = io::Error::last_os_error();
            if error.raw_os_error() != Some(libc::ESRCH) {
                warn!(pid = self.pid, %signal, %error, "cannot send a signal");
            }
        }
    }
}

fn pidfd_open(pid: i32) -> io::Result<AsyncFd<OwnedFd>> {
    // SAFETY: plain numbers.
    let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, pid, libc::PIDFD_NONBLOCK) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel has just made it, and nobody else knows of it.
    let fd = unsafe { OwnedFd::from_raw_fd(fd as RawFd) };
    // SAFETY: the descriptor is owned by what is made here, so it stays open and the same as long as it is watched.
    Ok(unsafe { AsyncFd::register_with_interest(fd, Interest::READABLE) }?)
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use nix::sys::signal::Signal;

    use super::Process;

    fn log(name: &str) -> PathBuf {
        std::env::temp_dir().join(format!("process-{name}-{}", std::process::id()))
    }

    #[tokio::test]
    async fn a_process_has_its_own_session_and_its_end_is_told_to_all() {
        let log = log("session");
        let words = ["-c", "echo said; exec sleep 1000"].map(Into::into);
        let process = Process::spawn("sh".as_ref(), &words, &log).unwrap();
        let session = nix::unistd::getsid(Some(nix::unistd::Pid::from_raw(process.pid()))).unwrap();
        assert_eq!(session.as_raw(), process.pid());
        let adopted = Process::adopt(process.pid()).unwrap();
        adopted.signal(Signal::SIGKILL);
        assert_eq!(adopted.ended().await, None);
        assert!(process.ended().await.is_some_and(|status| !status.success()));
        process.signal(Signal::SIGKILL);
        std::fs::remove_file(&log).unwrap();
    }

    #[tokio::test]
    async fn a_program_that_is_not_there_is_an_error_at_once() {
        let log = log("missing");
        assert!(Process::spawn("/no/such/program".as_ref(), &[], &log).is_err());
        std::fs::remove_file(&log).unwrap();
    }
}
