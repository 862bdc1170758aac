//! The language between the command line and the daemon: JSON lines over a UNIX socket.
//!
//! ```text
//! ► {"id":1,"command":"send","guest":"web","to":"site-b","wan":true}
//! ◄ {"id":1,"ok":"0e2f9a61"}                        or {"id":1,"error":{"code":"…","message":"…","hint":"…"}}
//! ```
//!
//! A request is answered once and at once; whoever wants to see a migration go on asks for its status again.
//! What the lines look like is in [`line`].

pub mod line;

use blockd::replica::encoding::Compression;
use serde::{Deserialize, Serialize};

use crate::guest::Guest;

/// What can be asked of the daemon.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "command", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Command {
    /// Starts a guest. Answers its [`GuestState`].
    Run {
        /// The guest.
        guest: Guest,
        /// Goes on from a saved state instead of booting: a file that `stop --save` wrote.
        #[serde(default)]
        restore: Option<std::path::PathBuf>,
    },
    /// Ends a guest of this host. Answers its [`GuestState`].
    Stop {
        /// Its name.
        guest: String,
        /// Without asking it first.
        #[serde(default)]
        now: bool,
        /// Saves its state into this file, and ends it there.
        #[serde(default)]
        save: Option<std::path::PathBuf>,
    },
    /// Pauses a guest, or lets it go on. Answers its [`GuestState`].
    Pause {
        /// Its name.
        guest: String,
        /// Pause, or go on.
        paused: bool,
    },
    /// All guests that this host knows. Answers a list of [`GuestState`].
    List {},
    /// Migrations of this host, running and ended. Answers a list of [`crate::status::Status`].
    Status {
        /// Only this one (a migration's number, or a guest's name).
        #[serde(default)]
        migration: Option<String>,
    },
    /// Moves a guest. Answers its migration's number.
    Send(Send),
    /// Gives a migration up. Answers when that was accepted.
    Cancel {
        /// A migration's number, or a guest's name.
        migration: String,
    },
    /// Changes a running migration of this source. Answers its [`crate::status::Status`].
    Set {
        /// A migration's number, or a guest's name.
        migration: String,
        /// Bytes a second over all channels; null: what the link gives. It has to be there: silence is no wish.
        #[serde(deserialize_with = "said")]
        bandwidth_bytes_per_s: Option<u64>,
    },
    /// What is known of a guest that may be at another host, and what is safe. Answers a [`Recovery`].
    Recover {
        /// The guest's name.
        guest: String,
        /// An operator's word: this host is gone for good, so the guest is here. Refused while it answers.
        #[serde(default)]
        lost: Option<String>,
    },
    /// The peers, with reachability, round trip and version. Answers a list of [`HostState`].
    Hosts {},
    /// Makes a one-time token for a peer. Answers it.
    Pair {},
    /// Pairs with the host that made a token. Answers the peer's name.
    PairWith {
        /// The token.
        token: String,
    },
    /// Forgets a peer.
    Unpair {
        /// Its name.
        host: String,
    },
}

/// A value that may be null, but not be left out.
fn said<'de, D: serde::Deserializer<'de>>(value: D) -> Result<Option<u64>, D::Error> {
    Option::deserialize(value)
}

/// How a guest shall be moved.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Send {
    /// Which guest.
    pub guest: String,
    /// To which paired host.
    pub to: String,
    /// Its address and its name change with the site: tunnel and DNS.
    #[serde(default)]
    pub wan: bool,
    /// Only looks whether it could be done.
    #[serde(default)]
    pub dry_run: bool,
    /// Bytes a second over all channels; none: as the daemon is configured.
    #[serde(default)]
    pub bandwidth_bytes_per_s: Option<u64>,
    /// How long the guest may stand still; none: as the daemon is configured.
    #[serde(default)]
    pub max_downtime_ms: Option<u64>,
    /// What carries the link, like `exec:ssh site-b migrated link-stdio`; none: as the daemon is configured.
    #[serde(default)]
    pub transport: Option<String>,
    /// The guest stands still for the whole move.
    #[serde(default)]
    pub cold: bool,
    /// Whether to compress; none: as the daemon is configured.
    #[serde(default)]
    pub compression: Option<Compression>,
    /// How long it may take with the link up; none: what follows from bytes and rate.
    #[serde(default)]
    pub time_limit: Option<Limit>,
}

/// What a dry run has found: the guest could move so. Nothing was started.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Planned {
    /// Which guest.
    pub guest: String,
    /// The host where it is.
    pub source: String,
    /// The host to which it would go.
    pub destination: String,
    /// Its memory.
    pub memory_bytes: u64,
    /// Its disks, in the order of its description.
    pub disks: Vec<PlannedDisk>,
    /// What is worth knowing beforehand, with what to do; it stops nothing.
    #[serde(default)]
    pub warnings: Vec<String>,
}

/// A disk of a guest that could move.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlannedDisk {
    /// Its name in the guest's description.
    pub id: String,
    /// Its size; none: both hosts see it, and nothing of it is copied.
    pub size_bytes: Option<u64>,
    /// What of it is allocated at the source; none likewise.
    pub allocated_bytes: Option<u64>,
}

/// How long a migration may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Limit {
    /// As long as it comes nearer to its end.
    None,
    /// So many milliseconds, counted while the link is up.
    Ms(u64),
}

/// What is known of a guest whose migration did not end as usual.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Recovery {
    /// Its name.
    pub guest: String,
    /// Its last migration; none: it has never moved.
    pub migration: Option<String>,
    /// What this host has promised, in words.
    pub here: String,
    /// What the other host has promised, in words.
    pub there: String,
    /// What is safe, and what this daemon does by itself.
    pub safe: String,
}

/// A guest of this host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GuestState {
    /// Its name.
    pub name: String,
    /// "running", "paused", "migrating", "incoming", "stopped", "moved", or what QEMU says.
    pub state: String,
    /// QEMU's process, while it lives.
    #[serde(default)]
    pub pid: Option<u32>,
    /// Memory in MiB.
    pub memory_mib: u64,
    /// Moves so far.
    pub generation: u64,
    /// Where it went, if it did; the migration it is in, if it is in one.
    #[serde(default)]
    pub remark: String,
    /// Why it stands still or did not start, if that is not by order.
    #[serde(default)]
    pub trouble: String,
}

/// A peer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostState {
    /// Its name.
    pub name: String,
    /// Where its control side is.
    pub address: String,
    /// Where its data side is.
    pub data_address: String,
    /// It answered.
    pub reachable: bool,
    /// Round trip in microseconds.
    pub rtt_us: u64,
    /// What it runs.
    pub version: String,
    /// Why it could not be reached.
    #[serde(default)]
    pub trouble: String,
}

/// Why a request was refused.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{message}")]
pub struct Failure {
    /// For programs.
    pub code: FailureCode,
    /// What is wrong, and where.
    pub message: String,
    /// What to do.
    pub hint: String,
}

/// Kinds of refusals.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum FailureCode {
    /// The request makes no sense.
    BadRequest,
    /// There is no such guest, migration or host.
    NotFound,
    /// It cannot be done in this state.
    Conflict,
    /// It is not allowed.
    Denied,
    /// The host or a program of it failed.
    Failed,
}

impl Failure {
    /// A refusal.
    pub fn new(code: FailureCode, message: impl Into<String>, hint: impl Into<String>) -> Self {
        Self { code, message: message.into(), hint: hint.into() }
    }
}
