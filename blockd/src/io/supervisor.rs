//! The small parent: holds the sockets, and starts the daemon again when it dies.
//!
//! ```text
//! supervisor ── binds nbd, control, replica
//!     │ spawn, sockets inherited           clients that connect in between wait in the
//!     ▼                                    sockets' queues: they see a stall, no error
//! daemon ── "ready" on its stdout
//!     │ killed, panicked, failed after it was ready ─► again: at once, then with growing pauses
//!     │ ended before it was ever ready ─► its exit status is ours: a wrong flag is no accident
//!     │ refused by its sidecar (status 3) ─► the same, at any time: starting again cannot help
//!     └ ended with status 0 ─► it was told to: the sockets are removed
//! ```
//!
//! SIGTERM and SIGINT are passed on as SIGTERM. If the supervisor itself dies, the daemon goes on.
//! Does nothing else: it opens no image and keeps no state.

use std::ffi::OsString;
use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::process::CommandExt;
use std::process::{Child, ChildStdout, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, Signal, kill};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::unistd::Pid;
use tracing::{error, info, warn};

use crate::config::Serve;
use crate::io::listen::Listeners;

/// Exit status of a daemon that must not be started again: what its sidecar says forbids it.
pub const EXIT_REFUSED: u8 = 3;
/// The longest pause before a start.
const PAUSE_MAX: Duration = Duration::from_secs(1);
/// A daemon that ran for this long had no trouble starting.
const STEADY_AFTER: Duration = Duration::from_secs(10);

/// What a daemon writes to its stdout, once, when it serves.
const READY: &[u8] = b"ready\n";

/// Tells the supervisor, and systemd, that the disk is being served.
pub fn tell_ready(supervised: bool) {
    if supervised {
        // A supervisor that is gone needs no word.
        let _ = io::stdout().write_all(READY).and_then(|()| io::stdout().flush());
    }
    if let Err(error) = sd_notify::notify(&[sd_notify::NotifyState::Ready]) {
        warn!(%error, "cannot tell systemd that the disk is being served");
    }
}

/// Pauses between starts: none, then growing, then none again after a steady run.
#[derive(Debug, Default)]
struct Backoff {
    pause: Option<Duration>,
}

impl Backoff {
    fn next(&mut self, ran_for: Duration) -> Duration {
        let pause = match self.pause {
            Some(pause) if ran_for < STEADY_AFTER => (pause * 2).clamp(Duration::from_millis(50), PAUSE_MAX),
            _ => Duration::ZERO,
        };
        self.pause = Some(pause);
        pause
    }
}

/// What follows from the end of a daemon.
#[derive(Debug, PartialEq, Eq)]
enum Verdict {
    Restart,
    /// With this exit status.
    End(u8),
}

fn judge(status: ExitStatus, was_ready: bool, stopping: bool) -> Verdict {
    match status.code() {
        _ if stopping => Verdict::End(status.code().map_or(0, |code| code as u8)),
        Some(0) => Verdict::End(0),
        Some(code) if code == i32::from(EXIT_REFUSED) => Verdict::End(1),
        Some(code @ (1 | 2)) if !was_ready => Verdict::End(code as u8),
        _ => Verdict::Restart,
    }
}

/// The world as one supervisor sees it.
struct Supervisor {
    signals: SignalFd,
    arguments: Vec<OsString>,
    list: String,
    stopping: bool,
    was_ready: bool,
}

/// What woke the supervisor.
#[derive(Debug, PartialEq, Eq)]
enum Woken {
    Ready,
    ChildEnded,
    Stop,
    Timeout,
}

/// Serves until the daemon ends for good; answers the exit status. `arguments` are those of this
/// process after its name. To be called while there is one thread only.
pub fn supervise(serve: &Serve, arguments: Vec<OsString>) -> anyhow::Result<u8> {
    let mut mask = SigSet::empty();
    [Signal::SIGTERM, Signal::SIGINT, Signal::SIGCHLD].into_iter().for_each(|signal| mask.add(signal));
    mask.thread_block()?;
    let signals = SignalFd::with_flags(&mask, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)?;
    let listeners = Listeners::bind(serve)?;
    let list = listeners.pass_on()?;
    let mut supervisor = Supervisor { signals, arguments, list, stopping: false, was_ready: false };
    let ended = supervisor.run();
    Listeners::remove_paths(serve);
    Ok(ended?)
}

impl Supervisor {
    fn run(&mut self) -> io::Result<u8> {
        let mut backoff = Backoff::default();
        loop {
            let started = Instant::now();
            let status = self.run_child()?;
            if let Verdict::End(code) = judge(status, self.was_ready, self.stopping) {
                return Ok(code);
            }
            let pause = backoff.next(started.elapsed());
            error!(%status, ?pause, "the daemon ended unexpectedly and is started again");
            if self.wait_out(pause)? {
                return Ok(0);
            }
        }
    }

    fn run_child(&mut self) -> io::Result<ExitStatus> {
        let mut command = Command::new("/proc/self/exe");
        command.arg0("blockd").args(&self.arguments).arg("--listen-fds").arg(&self.list);
        if self.was_ready {
            command.arg("--restarted");
        }
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn()?;
        let mut stdout = child.stdout.take();
        info!(pid = child.id(), "started the daemon");
        loop {
            match self.wait(stdout.as_ref(), None)? {
                Woken::Ready => self.read_ready(&mut stdout),
                Woken::Stop => self.stop(&child),
                Woken::ChildEnded | Woken::Timeout => {
                    if let Some(status) = child.try_wait()? {
                        self.read_ready(&mut stdout);
                        return Ok(status);
                    }
                }
            }
        }
    }

    /// Takes in what the daemon said, which can only be that it is ready.
    fn read_ready(&mut self, stdout: &mut Option<ChildStdout>) {
        let Some(mut stdout) = stdout.take() else { return };
        // The daemon says its word in one write: what is there now is all of it.
        let mut said = [0; READY.len()];
        self.was_ready |= stdout.read(&mut said).is_ok() && said == READY;
    }

    fn stop(&mut self, child: &Child) {
        self.stopping = true;
        if let Err(errno) = kill(Pid::from_raw(child.id() as i32), Signal::SIGTERM) {
            warn!(%errno, "cannot pass the signal on to the daemon");
        }
    }

    /// True if told to stop in the meantime.
    fn wait_out(&mut self, pause: Duration) -> io::Result<bool> {
        let end = Instant::now() + pause;
        loop {
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(false);
            }
            if self.wait(None, Some(left))? == Woken::Stop {
                return Ok(true);
            }
        }
    }

    fn wait(&self, stdout: Option<&ChildStdout>, timeout: Option<Duration>) -> io::Result<Woken> {
        let timeout = match timeout {
            Some(left) => PollTimeout::try_from(left.as_millis() + 1).unwrap_or(PollTimeout::MAX),
            None => PollTimeout::NONE,
        };
        let mut fds = vec![PollFd::new(self.signals.as_fd(), PollFlags::POLLIN)];
        fds.extend(stdout.map(|stdout| PollFd::new(stdout.as_fd(), PollFlags::POLLIN)));
        match poll(&mut fds, timeout) {
            Ok(0) | Err(nix::errno::Errno::EINTR) => return Ok(Woken::Timeout),
            Ok(_) => {}
            Err(errno) => return Err(errno.into()),
        }
        if fds.get(1).is_some_and(|fd| fd.any() == Some(true)) {
            return Ok(Woken::Ready);
        }
        match self.signals.read_signal()? {
            Some(signal) if signal.ssi_signo == Signal::SIGCHLD as u32 => Ok(Woken::ChildEnded),
            Some(_) => Ok(Woken::Stop),
            None => Ok(Woken::Timeout),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::ExitStatusExt;

    use super::*;

    #[test]
    fn the_first_start_is_at_once_and_none_later_than_a_second() {
        let mut backoff = Backoff::default();
        let pauses: Vec<u64> = (0..8).map(|_| backoff.next(Duration::ZERO).as_millis() as u64).collect();
        assert_eq!(pauses, [0, 50, 100, 200, 400, 800, 1000, 1000]);
        assert_eq!(backoff.next(STEADY_AFTER), Duration::ZERO);
    }

    #[test]
    fn only_accidents_are_followed_by_a_start() {
        let exit = |code: i32| ExitStatus::from_raw(code << 8);
        let killed = ExitStatus::from_raw(Signal::SIGKILL as i32);
        for ready in [false, true] {
            assert_eq!(judge(exit(0), ready, false), Verdict::End(0));
            assert_eq!(judge(exit(3), ready, false), Verdict::End(1));
            assert_eq!(judge(killed, ready, false), Verdict::Restart);
            assert_eq!(judge(exit(101), ready, false), Verdict::Restart);
            assert_eq!(judge(killed, ready, true), Verdict::End(0));
            assert_eq!(judge(exit(1), ready, true), Verdict::End(1));
        }
        for code in [1, 2] {
            assert_eq!(judge(exit(code), false, false), Verdict::End(code as u8));
            assert_eq!(judge(exit(code), true, false), Verdict::Restart);
        }
    }
}
