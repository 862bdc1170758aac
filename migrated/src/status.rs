//! What a migration says of itself while it runs: numbers and words, no judgement. Rendered by `cli`, kept by nobody.

use serde::{Deserialize, Serialize};

use crate::phase::{Outcome, Phase};
use crate::report::{LinkReport, RamReport, Report};

/// One migration at one moment, as seen from one of its two hosts.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Status {
    /// The migration's number, the same at both hosts.
    pub id: String,
    /// Which guest.
    pub guest: String,
    /// The host that it leaves.
    pub source: String,
    /// The host that it goes to.
    pub destination: String,
    /// True at the destination, whose numbers are a mirror of the source's.
    pub incoming: bool,
    /// Where it is.
    pub phase: Phase,
    /// Milliseconds since it was asked for.
    pub elapsed_ms: u64,
    /// Milliseconds since the phase began.
    pub phase_elapsed_ms: u64,
    /// What is copied of each disk.
    pub disks: Vec<DiskProgress>,
    /// What is copied of the memory.
    pub ram: RamProgress,
    /// What the link gives.
    pub link: LinkProgress,
    /// Milliseconds that the guest would stand still if it were paused now; none: not known yet.
    pub predicted_downtime_ms: Option<u64>,
    /// Seconds until the guest runs at the destination; none: not known yet, or it does not get nearer.
    pub eta_s: Option<u64>,
    /// After how many seconds with the link up it is given up; none: not known yet, or never.
    #[serde(default)]
    pub time_limit_s: Option<u64>,
    /// Things worth knowing that stop nothing ("bbr is not to be had").
    pub warnings: Vec<String>,
    /// How it ended.
    pub outcome: Option<Outcome>,
    /// Why it ended so; each reason says what, where, and what to do.
    pub reasons: Vec<String>,
    /// The report, when it has ended.
    pub report: Option<Report>,
}

impl Status {
    /// The same with a limit of its link in bytes a second.
    #[must_use]
    pub fn limited(mut self, bytes_per_s: Option<u64>) -> Self {
        self.link.limit_bytes_per_s = bytes_per_s;
        self
    }

    /// A migration that has just been asked for, as its source sees it.
    pub fn new(id: &str, guest: &str, source: &str, destination: &str) -> Self {
        Self {
            id: id.to_owned(),
            guest: guest.to_owned(),
            source: source.to_owned(),
            destination: destination.to_owned(),
            incoming: false,
            phase: Phase::PreMigration,
            elapsed_ms: 0,
            phase_elapsed_ms: 0,
            disks: Vec::new(),
            ram: RamProgress::default(),
            link: LinkProgress::default(),
            predicted_downtime_ms: None,
            eta_s: None,
            time_limit_s: None,
            warnings: Vec::new(),
            outcome: None,
            reasons: Vec::new(),
            report: None,
        }
    }

    /// A migration that has ended, from what was kept of it.
    pub fn of_report(report: Report) -> Self {
        let mut status = Self::new(&report.id, &report.guest, &report.source, &report.destination);
        status.end(report);
        status
    }

    /// A report with nothing but what is known here: the other host has the whole account.
    pub fn to_report(&self, outcome: Outcome, reasons: Vec<String>, started_unix_s: u64) -> Report {
        Report {
            id: self.id.clone(),
            guest: self.guest.clone(),
            source: self.source.clone(),
            destination: self.destination.clone(),
            outcome,
            reasons,
            abort: None,
            started_unix_s,
            total_ms: self.elapsed_ms,
            phases: Vec::new(),
            events: Vec::new(),
            downtime_ms: None,
            pauses: Vec::new(),
            downtime_error_ms: 0,
            predicted_downtime_ms: self.predicted_downtime_ms,
            blackout_round_trips: 0,
            link: LinkReport::default(),
            ram: RamReport::default(),
            disks: Vec::new(),
            reached: Vec::new(),
        }
    }

    /// Takes over how it ended.
    pub fn end(&mut self, report: Report) {
        self.phase = match report.outcome {
            Outcome::Moved => Phase::Done,
            Outcome::Refused | Outcome::Cancelled | Outcome::RolledBack => Phase::RolledBack,
            Outcome::InDoubt => Phase::InDoubt,
        };
        self.elapsed_ms = report.total_ms;
        self.phase_elapsed_ms = 0;
        self.eta_s = None;
        self.outcome = Some(report.outcome);
        self.reasons.clone_from(&report.reasons);
        self.report = Some(report);
    }
}

/// What is copied of a disk.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct DiskProgress {
    /// Its name in the guest's description.
    pub id: String,
    /// Its size in bytes.
    pub size_bytes: u64,
    /// What was to go over when it began, in bytes.
    pub total_bytes: u64,
    /// What the destination lacks, in bytes: bulk, queued deltas, and what is not acknowledged.
    pub left_bytes: u64,
    /// Of `left_bytes`, what the guest has written since it went over: queued deltas, in bytes.
    pub delta_bytes: u64,
    /// Bytes sent, as on the wire.
    pub sent_bytes: u64,
    /// Deltas recorded so far.
    pub deltas_total: u64,
    /// Bytes a second on the wire.
    pub rate_bytes_per_s: u64,
    /// The throttle's level; 0: the guest is not slowed.
    pub throttle_level: u64,
}

/// What is copied of the memory.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct RamProgress {
    /// The guest's memory in bytes.
    pub total_bytes: u64,
    /// What is left of this pass, in bytes.
    pub left_bytes: u64,
    /// Bytes that QEMU has handed over, before compression.
    pub raw_bytes: u64,
    /// Bytes sent, as on the wire.
    pub sent_bytes: u64,
    /// Passes over the memory (QEMU's dirty-sync-count).
    pub passes: u64,
    /// Bytes that the guest dirties in a second.
    pub dirty_bytes_per_s: u64,
    /// Bytes a second on the wire.
    pub rate_bytes_per_s: u64,
}

/// What the link gives.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct LinkProgress {
    /// The connections stand.
    pub up: bool,
    /// Bytes a second that arrive, measured while there was something to send.
    pub goodput_bytes_per_s: u64,
    /// Round trip in microseconds.
    pub rtt_us: u64,
    /// Milliseconds since the peer was last heard.
    pub quiet_ms: u64,
    /// Bytes sent over all channels.
    pub sent_bytes: u64,
    /// TCP segments with data that were sent, those sent again included; 0: a program carries them.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub segments: u64,
    /// Those of them that were sent again: lost, as far as TCP can tell.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub resent_segments: u64,
    /// The limit that is set; none: what the link gives.
    pub limit_bytes_per_s: Option<u64>,
    /// Congestion control in use ("bbr").
    pub congestion_control: String,
    /// Where disks and memory go; empty: a program carries them.
    #[serde(default)]
    pub data_address: String,
    /// Where the daemons' words go; empty: a program carries them.
    #[serde(default)]
    pub control_address: String,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks for this shape")]
fn is_zero(value: &u64) -> bool {
    *value == 0
}
