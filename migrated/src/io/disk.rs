//! A disk of a guest: its supervised blockd, and how it is spoken to.
//!
//! ```text
//! start ──► blockd serve (supervisor ─ daemon), own session ── waits until the control socket answers
//! wake  ──► before a pause: has the daemon its client back? if not, QEMU is made to look
//! end   ──► shutdown by the control socket ─ else SIGTERM ─ else SIGKILL, each with its time
//! ```
//!
//! The daemon outlives us, and keeps its own books: what role it has is asked of it, not remembered here.

use std::ffi::OsString;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use blockd::control::{Command, REPLY_BYTES_MAX, Request, Status, request_line};
use blockd::io::control_client::{ControlError, read_reply, whole_line};
use nix::sys::signal::Signal;
use serde_json::Value;
use thiserror::Error;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;
use tokio::time::{Instant, interval, sleep, timeout};
use tracing::{debug, info, warn};

use crate::io::log_file::LogFile;
use crate::io::process::Process;
use crate::io::qmp::Qmp;
use crate::qemu::node_name;

/// How long a daemon may take to serve.
const START_TIMEOUT: Duration = Duration::from_secs(15);
/// How long an answer may take that needs no work.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a shutdown may take: it waits for the disk.
const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(10);
/// Pause between two looks at something that gives no sign.
const LOOK_EVERY: Duration = Duration::from_millis(10);

/// Why a disk's daemon did not do something.
#[derive(Debug, Error)]
pub enum DiskError {
    /// It did not start; its own words say why.
    #[error("disk {disk}: {reason}")]
    Start {
        /// Which disk.
        disk: String,
        /// The daemon's words.
        reason: String,
    },
    /// It did not answer, or said no.
    #[error("disk {disk}: {}", whole(cause))]
    Control {
        /// Which disk.
        disk: String,
        /// What it said. No source of this error: all of it is said already.
        cause: ControlError,
    },
    /// QEMU has no connection to it, and got none.
    #[error("disk {disk}: QEMU does not connect to its daemon")]
    Asleep {
        /// Which disk.
        disk: String,
    },
    /// It answered something that is no status.
    #[error("disk {disk}: cannot read the daemon's status: {reason}")]
    Status {
        /// Which disk.
        disk: String,
        /// What is wrong with it.
        reason: String,
    },
}

impl DiskError {
    /// Nobody listens at its control socket: the daemon has ended, and the supervisor that would start it again.
    pub fn is_gone(&self) -> bool {
        matches!(self, DiskError::Control { cause: ControlError::Connect { .. }, .. })
    }
}

/// An error with all that is behind it.
fn whole(error: &ControlError) -> String {
    let causes = std::iter::successors(std::error::Error::source(error), |cause| cause.source());
    causes.fold(error.to_string(), |said, cause| format!("{said}: {cause}"))
}

/// What a daemon shall be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Role {
    /// The guest's disk.
    Primary,
    /// The other end of a copy, with room for this many bytes.
    Replica {
        /// The disk's size.
        size_bytes: u64,
    },
}

/// Where a daemon's things are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Places {
    /// The image.
    pub image: PathBuf,
    /// Where QEMU connects.
    pub nbd: PathBuf,
    /// Where it is told what to do.
    pub control: PathBuf,
    /// Where the source of a copy connects; only a replica listens there.
    pub replica: PathBuf,
    /// What it says.
    pub log: PathBuf,
}

/// A disk of a guest.
#[derive(Clone, Debug)]
pub struct Disk {
    id: String,
    places: Places,
    process: Option<Process>,
}

impl Disk {
    /// Starts the daemon and waits until it answers. `name` is the disk's at every host. What blockd refuses (an
    /// image that moved away, one that another process serves) comes back in its own words.
    pub async fn start(
        blockd: &Path,
        id: &str,
        name: &str,
        role: &Role,
        places: Places,
    ) -> Result<Self, DiskError> {
        let failed = |reason: String| DiskError::Start { disk: id.into(), reason };
        if tokio::net::UnixStream::connect(&places.control).await.is_ok() {
            return Err(failed("another daemon serves it already; end that one first".into()));
        }
        let log = LogFile::from_here(&places.log);
        let process = Process::spawn(blockd, &words(name, role, &places), &places.log)
            .map_err(|error| failed(format!("cannot start {}: {error}", blockd.display())))?;
        info!(disk = name, pid = process.pid(), ?role, "started the daemon of a disk");
        let disk = Self { id: id.into(), places, process: Some(process.clone()) };
        tokio::select! {
            answered = disk.answers(START_TIMEOUT) => match answered {
                true => Ok(disk),
                false => {
                    disk.end().await;
                    Err(failed(format!("blockd does not answer; it says: {}", log.reason())))
                }
            },
            _ = process.ended() => Err(failed(log.reason())),
        }
    }

    /// A disk whose daemon was started by an earlier life of this program.
    pub fn adopt(id: &str, places: Places) -> Self {
        // The process that made the socket. It may have ended: then its child goes on, and there is none to hold.
        let process = std::os::unix::net::UnixStream::connect(&places.control)
            .and_then(|stream| {
                Ok(nix::sys::socket::getsockopt(&stream, nix::sys::socket::sockopt::PeerCredentials)?)
            })
            .and_then(|peer| Process::adopt(peer.pid()))
            .ok()
            // Its number may be a stranger's by now; held by a pidfd, it does not change any more.
            .filter(|process| serves(process.pid(), &places.control));
        Self { id: id.into(), places, process }
    }

    /// Its id in the guest's description.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// The daemon's supervisor, which leads its session; none where that has ended.
    pub fn pid(&self) -> Option<u32> {
        self.process.as_ref().map(|process| process.pid().unsigned_abs())
    }

    /// Where its things are.
    pub fn places(&self) -> &Places {
        &self.places
    }

    /// Has the daemon do something, and waits as long as it takes: a seal or a barrier has its own deadline.
    pub async fn call(&self, command: Command) -> Result<Value, DiskError> {
        self.ask(command, None).await
    }

    /// Makes the disk an ordinary one again, if it was to move and does not: writes go through, nothing is recorded. To
    /// be called by who knows that the guest is here.
    pub async fn reclaim(&self) -> Result<(), DiskError> {
        let status = self.status().await?;
        if status.holds_writes() {
            self.call(Command::Unseal {}).await?;
        }
        if status.replication.recording {
            self.call(Command::StopReplicating {}).await?;
            self.call(Command::Record { on: false }).await?;
        }
        Ok(())
    }

    /// What the daemon says of itself.
    pub async fn status(&self) -> Result<Status, DiskError> {
        let answer = self.ask(Command::Status {}, Some(ANSWER_TIMEOUT)).await?;
        serde_json::from_value(answer)
            .map_err(|error| DiskError::Status { disk: self.id.clone(), reason: error.to_string() })
    }

    async fn ask(&self, command: Command, limit: Option<Duration>) -> Result<Value, DiskError> {
        let asked = ask(&self.places.control, command);
        let answer = match limit {
            None => asked.await,
            Some(limit) => timeout(limit, asked).await.unwrap_or_else(|_| {
                Err(io::Error::new(io::ErrorKind::TimedOut, format!("no answer in {limit:?}")).into())
            }),
        };
        answer.map_err(|cause| DiskError::Control { disk: self.id.clone(), cause })
    }

    /// Sees to it that QEMU has a connection to the daemon, as it must before it pauses or ends the guest.
    ///
    /// An idle QEMU notices only at its next request that a daemon was restarted, and a `stop` may then wait for the
    /// whole reconnect delay. So it is given a request: a read of one sector, which only a daemon that answers gets
    /// here. Comes back with an error within `limit` if the daemon does not answer or QEMU does not connect.
    pub async fn wake(&self, qmp: &Qmp, limit: Duration) -> Result<(), DiskError> {
        let asleep = || DiskError::Asleep { disk: self.id.clone() };
        let started = Instant::now();
        loop {
            match self.status().await {
                Ok(status) if status.requests.connections > 0 => return Ok(()),
                Ok(_) => {
                    info!(disk = self.id, "QEMU has not noticed that its disk is back; it is made to read");
                    let line = format!("qemu-io {} \"read 0 512\"", node_name(&self.id));
                    let left = limit.saturating_sub(started.elapsed());
                    qmp.human(&line, left).await.map_err(|_| asleep())?;
                }
                // It may be starting again this very moment.
                Err(error) if started.elapsed() >= limit => return Err(error),
                Err(_) => {}
            }
            if started.elapsed() >= limit {
                return Err(asleep());
            }
            sleep(LOOK_EVERY).await;
        }
    }

    /// Ends the daemon: in order if it answers, else by force. Bounded, whatever state it is in.
    pub async fn end(&self) {
        let told = timeout(SHUTDOWN_TIMEOUT, self.ask(Command::Shutdown {}, Some(SHUTDOWN_TIMEOUT))).await;
        if !matches!(told, Ok(Ok(_))) {
            warn!(disk = self.id, ?told, "the daemon does not take its order to end");
        }
        let Some(process) = &self.process else {
            return self.silent(SHUTDOWN_TIMEOUT).await;
        };
        let orderly = if matches!(told, Ok(Ok(_))) { SHUTDOWN_TIMEOUT } else { Duration::ZERO };
        for (patience, signal) in [(orderly, Signal::SIGTERM), (ANSWER_TIMEOUT, Signal::SIGKILL)] {
            if process.ended_within(patience).await {
                return;
            }
            warn!(disk = self.id, pid = process.pid(), %signal, "the daemon is ended by a signal");
            process.signal(signal);
        }
        if !process.ended_within(ANSWER_TIMEOUT).await {
            warn!(disk = self.id, pid = process.pid(), "the daemon does not end: the kernel holds it");
        }
    }

    /// Whether the daemon answers within `limit`.
    async fn answers(&self, limit: Duration) -> bool {
        let looking = async {
            let mut tick = interval(LOOK_EVERY);
            while self.status().await.is_err() {
                tick.tick().await;
            }
        };
        timeout(limit, looking).await.is_ok()
    }

    /// Waits until nobody answers at the control socket.
    async fn silent(&self, limit: Duration) {
        let looking = async {
            let mut tick = interval(LOOK_EVERY);
            while tokio::net::UnixStream::connect(&self.places.control).await.is_ok() {
                tick.tick().await;
            }
        };
        if timeout(limit, looking).await.is_err() {
            warn!(disk = self.id, "the daemon goes on");
        } else {
            debug!(disk = self.id, "nobody serves it any more");
        }
    }
}

/// Has a daemon do something. Who stops waiting hangs up by that, and a seal ends with who asked for it.
async fn ask(control: &Path, command: Command) -> Result<Value, ControlError> {
    const ID: u64 = 1;
    let mut stream = UnixStream::connect(control)
        .await
        .map_err(|source| ControlError::Connect { path: control.to_owned(), source })?;
    // A daemon that turns us away has written why, and closed: read that before giving up.
    let sent = stream.write_all(&request_line(&Request { id: ID, command })).await;
    let mut line = Vec::new();
    let read = BufReader::new(stream.take(REPLY_BYTES_MAX as u64 + 1)).read_until(b'\n', &mut line).await;
    match (read.and_then(|_| whole_line(line)), sent) {
        (Ok(line), _) => read_reply(ID, &line),
        (Err(_), Err(error)) | (Err(error), Ok(())) => Err(error.into()),
    }
}

/// Whether this process was started to serve at `control`.
fn serves(pid: i32, control: &Path) -> bool {
    let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    line.split(|byte| *byte == 0).any(|word| word == control.as_os_str().as_bytes())
}

fn words(name: &str, role: &Role, places: &Places) -> Vec<OsString> {
    let mut words: Vec<OsString> = vec!["serve".into(), "--disk-id".into(), name.into()];
    for (flag, path) in [("--image", &places.image), ("--nbd", &places.nbd), ("--control", &places.control)] {
        words.extend([flag.into(), path.into()]);
    }
    match role {
        // What the image looks like was looked at, with the guest's description at hand.
        Role::Primary => words.extend(["--format".into(), "raw".into()]),
        Role::Replica { size_bytes } => {
            let size = size_bytes.to_string();
            words.extend(["--replica".into(), places.replica.clone().into(), "--size".into(), size.into()]);
        }
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_daemon_said_is_said_once_and_whole() {
        let refused = io::Error::from_raw_os_error(libc::ECONNREFUSED);
        let cause = ControlError::Connect { path: "/run/x".into(), source: refused };
        let error = DiskError::Control { disk: "vda".into(), cause };
        let said =
            "disk vda: cannot reach blockd at /run/x; is it running?: Connection refused (os error 111)";
        assert_eq!(error.to_string(), said);
        assert!(error.is_gone());
        assert_eq!(format!("{:#}", anyhow::Error::from(error)), said);
    }
}
