//! What is kept of a migration when it has ended: as JSON beside the journal, as text for people.

mod abort;
mod pause;
mod text;

use std::net::Ipv4Addr;

use serde::{Deserialize, Serialize};

use crate::phase::{Outcome, Phase};

pub use abort::{Abort, Cause, QmpRefusal, Undone};
pub use pause::{Pause, PauseEnd};

/// The report of one migration.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// The migration's number.
    pub id: String,
    /// Which guest.
    pub guest: String,
    /// The host that it left.
    pub source: String,
    /// The host that it went to.
    pub destination: String,
    /// How it ended.
    pub outcome: Outcome,
    /// Why it ended so.
    pub reasons: Vec<String>,
    /// Where it failed, and what was undone; none: the guest has moved.
    #[serde(default)]
    pub abort: Option<Abort>,
    /// When it was asked for: seconds since 1970 by the source's clock.
    pub started_unix_s: u64,
    /// From the request to the guest running at the destination, or to the end, in milliseconds.
    pub total_ms: u64,
    /// Each phase, in order, with its time in milliseconds.
    pub phases: Vec<(Phase, u64)>,
    /// What happened, in order: milliseconds since the request, and what.
    pub events: Vec<(u64, String)>,
    /// How long the guest stood still in all, in milliseconds: from STOP at the source to the receipt of *running*, and
    /// the pauses of attempts that were given up; none: it was never paused.
    pub downtime_ms: Option<u64>,
    /// Each pause, in order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub pauses: Vec<Pause>,
    /// Error of `downtime_ms`: half a round trip (M9), in milliseconds.
    pub downtime_error_ms: u64,
    /// What was predicted when the guest was paused last, in milliseconds.
    pub predicted_downtime_ms: Option<u64>,
    /// Round trips that the source waited for in all pauses.
    pub blackout_round_trips: u32,
    /// The link.
    pub link: LinkReport,
    /// The memory.
    pub ram: RamReport,
    /// Each disk.
    pub disks: Vec<DiskReport>,
    /// Each address of the guest that answered a ping before the move, asked again through the tunnel when the guest ran at
    /// the destination; empty: none was asked.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub reached: Vec<ReachReport>,
}

/// An address of the guest, asked through the tunnel.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReachReport {
    /// Which.
    pub address: Ipv4Addr,
    /// How long the answer took in milliseconds; none: there was none.
    pub answered_ms: Option<u64>,
}

/// The link, over the whole migration.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct LinkReport {
    /// Bytes sent, all channels and framing.
    pub sent_bytes: u64,
    /// TCP segments with data that were sent, those sent again included; 0: not known.
    #[serde(default)]
    pub segments: u64,
    /// Those of them that were sent again: lost, as far as TCP can tell.
    #[serde(default)]
    pub resent_segments: u64,
    /// Smallest round trip in microseconds.
    pub rtt_min_us: u64,
    /// Best goodput in bytes a second.
    pub goodput_bytes_per_s: u64,
    /// Congestion control.
    pub congestion_control: String,
    /// Where disks and memory went last; empty: a program carried them.
    #[serde(default)]
    pub data_address: String,
    /// Where the daemons' words went last; empty: a program carried them.
    #[serde(default)]
    pub control_address: String,
    /// What was found of the destination's data addresses, the fastest first; empty: there was no choice.
    #[serde(default)]
    pub probes: Vec<ProbeReport>,
}

/// An address, looked at when the link was made.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ProbeReport {
    /// Which.
    pub address: String,
    /// Bytes a second that arrived there; none: it is not known.
    pub goodput_bytes_per_s: Option<u64>,
    /// Why it is not known; else empty.
    pub trouble: String,
}

/// The memory.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct RamReport {
    /// The guest's memory in bytes.
    pub total_bytes: u64,
    /// Bytes from QEMU, before compression.
    pub raw_bytes: u64,
    /// Bytes on the wire.
    pub sent_bytes: u64,
    /// Passes.
    pub passes: u64,
    /// Bytes a second that the guest dirtied, as QEMU measured last; 0: it did not, or it had no time to.
    #[serde(default)]
    pub dirty_bytes_per_s: u64,
    /// Bytes from QEMU in the last pass, while the guest was paused.
    pub final_pass_bytes: u64,
    /// Milliseconds of the last pass.
    pub final_pass_ms: u64,
}

/// One disk.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct DiskReport {
    /// Its name in the guest's description.
    pub id: String,
    /// Its size in bytes.
    pub size_bytes: u64,
    /// Bytes of it that were sent, before encoding.
    pub raw_bytes: u64,
    /// Bytes on the wire.
    pub sent_bytes: u64,
    /// Deltas recorded.
    pub deltas_total: u64,
    /// Their bytes.
    pub delta_bytes: u64,
    /// Deltas a second, the mean over the time that they were recorded.
    pub deltas_per_s: f64,
    /// Deltas in each step of time, from the beginning of recording (`progress::Series`).
    #[serde(default)]
    pub deltas_series: Vec<u64>,
    /// Seconds that each step of `deltas_series` has.
    #[serde(default)]
    pub deltas_series_step_s: u64,
    /// Queued blocks that a later delta made needless.
    pub coalesced_total: u64,
    /// It was sealed: both hosts hold the same, every leaf was compared.
    #[serde(default)]
    pub is_sealed: bool,
    /// Leaves of 64 KiB that both hosts compared at the seal, while the guest was paused, and found equal; none: it was
    /// not sealed, or its blockd did not say.
    pub verified_leaves: Option<u64>,
    /// Leaves that they compared before the seal, found equal, and that were not written since; none as above.
    #[serde(default)]
    pub verified_before_leaves: Option<u64>,
    /// Milliseconds that the seal took while the guest was paused.
    pub seal_ms: u64,
}
