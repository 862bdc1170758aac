//! The account of a migration when it is over: its report.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use blockd::control::Status as DiskStatus;

use super::context::{Context, Known};
use crate::io::journal_file::unix_ms;
use crate::link::addresses::Found;
use crate::phase::{Outcome, Phase};
use crate::progress::Series;
use crate::quantity::ms;
use crate::report::{DiskReport, LinkReport, Pause, PauseEnd, ProbeReport, RamReport, Report};
use crate::status::Status;

/// When each phase began, and what the disks said last: what is gone when the report is written.
#[derive(Debug, Default)]
pub struct Account {
    entered: Vec<(Phase, Duration)>,
    disks: BTreeMap<String, DiskStatus>,
    /// Raw bytes of the memory when the guest was paused.
    ram_raw_at_pause: Option<u64>,
}

impl Account {
    /// A phase has begun.
    pub fn enter(&mut self, phase: Phase, now: Duration) {
        self.entered.push((phase, now));
        if phase.is_way_back() {
            // The guest goes on: it will be paused again.
            self.ram_raw_at_pause = None;
        }
    }

    /// QEMU has paused the guest.
    pub fn note_pause(&mut self, ram_raw_bytes: u64) {
        self.ram_raw_at_pause.get_or_insert(ram_raw_bytes);
    }

    /// Keeps what blockd says, before it is ended.
    pub async fn ask_disks(&mut self, context: &Arc<Context>) {
        for (_, described, disk) in context.copied_disks() {
            if let Ok(status) = context.look_at(&described.id, &disk).await {
                self.disks.insert(described.id, status);
            }
        }
    }

    /// Writes the report.
    pub fn report(&self, context: &Arc<Context>, outcome: Outcome, reasons: &[String]) -> Report {
        let status = context.handle.status();
        let now = context.now();
        let has_ended = context.machine.has_ended();
        let mut known = context.known();
        known.count_carried();
        let known = &known;
        let pauses = pauses(known, outcome, has_ended, now);
        let last = pauses.last().filter(|_| outcome == Outcome::Moved);
        let end = known.running_at.unwrap_or(now);
        let (raw_bytes, sent_bytes) = known.costs.tally.memory_bytes();
        let raw_now = known.ram.as_ref().map_or(0, |ram| ram.bytes().0);
        let raw_at_pause = self.ram_raw_at_pause.unwrap_or(raw_now);
        Report {
            id: context.handle.id().to_owned(),
            guest: context.guest.name.clone(),
            source: status.source.clone(),
            destination: status.destination.clone(),
            outcome,
            reasons: reasons.to_vec(),
            abort: None,
            started_unix_s: (unix_ms() / 1000).saturating_sub(now.as_secs()),
            total_ms: ms(end),
            phases: self.phases(now),
            events: known.events.clone(),
            downtime_ms: (!pauses.is_empty()).then(|| pauses.iter().map(|pause| pause.lasted_ms).sum()),
            downtime_error_ms: status.link.rtt_us.div_ceil(2000),
            predicted_downtime_ms: status.predicted_downtime_ms,
            blackout_round_trips: known.round_trips,
            link: link_report(&status, known),
            ram: RamReport {
                total_bytes: status.ram.total_bytes,
                raw_bytes,
                sent_bytes,
                passes: status.ram.passes,
                dirty_bytes_per_s: status.ram.dirty_bytes_per_s,
                final_pass_bytes: last.map_or(0, |_| raw_now.saturating_sub(raw_at_pause)),
                final_pass_ms: known.final_pass_ms,
            },
            disks: self.disks.iter().map(|(id, disk)| disk_report(id, disk, known, now)).collect(),
            pauses,
            reached: known.reached.clone(),
        }
    }

    fn phases(&self, now: Duration) -> Vec<(Phase, u64)> {
        let ends = self.entered.iter().skip(1).map(|(_, at)| *at).chain([now]);
        let timed = self.entered.iter().zip(ends);
        timed.map(|((phase, began), end)| (*phase, ms(end.saturating_sub(*began)))).collect()
    }
}

/// Every pause of every attempt. One whose end nobody has said has ended with what became of the guest.
fn pauses(known: &Known, outcome: Outcome, has_ended: bool, now: Duration) -> Vec<Pause> {
    let mut pauses = known.costs.pauses.clone();
    if outcome == Outcome::Moved {
        pauses.end(PauseEnd::Moved, known.running_at.unwrap_or(now));
    } else if has_ended {
        pauses.end(PauseEnd::Ended, now);
    }
    pauses.list(now)
}

fn disk_report(id: &str, disk: &DiskStatus, known: &Known, now: Duration) -> DiskReport {
    let sent = known.costs.tally.disk(id);
    let seal = known.seals.get(id);
    let series = known.deltas.get(id);
    let recorded_s = known.costs.recorded_since.map_or(0.0, |since| now.saturating_sub(since).as_secs_f64());
    DiskReport {
        id: id.to_owned(),
        size_bytes: disk.identity.size_bytes,
        raw_bytes: sent.raw_bytes(),
        sent_bytes: sent.sent_bytes(),
        deltas_total: sent.deltas_total(),
        delta_bytes: sent.delta_bytes(),
        deltas_per_s: if recorded_s > 0.0 { sent.deltas_total() as f64 / recorded_s } else { 0.0 },
        deltas_series: series.map_or_else(Vec::new, |series| series.steps().to_vec()),
        deltas_series_step_s: series.map_or(1, Series::step_s),
        coalesced_total: sent.coalesced_total(),
        is_sealed: seal.is_some(),
        verified_leaves: seal.and_then(|seal| seal.sealed.compared_leaves),
        verified_before_leaves: seal.and_then(|seal| seal.sealed.compared_before_leaves),
        seal_ms: seal.map_or(0, |seal| seal.took_ms),
    }
}

fn link_report(status: &Status, known: &Known) -> LinkReport {
    // Asked now, where it is still there: the last look may be a while ago.
    let link = known.link.as_ref().map_or_else(|| status.link.clone(), |link| link.status());
    let (rtt_min_us, goodput_bytes_per_s) = known
        .link_best
        .filter(|(rtt_us, _)| *rtt_us != u64::MAX)
        .unwrap_or((link.rtt_us, link.goodput_bytes_per_s));
    let found = known.link.as_ref().map(|link| link.found()).unwrap_or_default();
    let (segments, resent_segments) = known.costs.tally.segments();
    LinkReport {
        sent_bytes: known.costs.tally.link_sent_bytes(),
        segments,
        resent_segments,
        rtt_min_us,
        goodput_bytes_per_s,
        congestion_control: link.congestion_control,
        data_address: link.data_address,
        control_address: link.control_address,
        probes: found.into_iter().map(probe_report).collect(),
    }
}

fn probe_report(found: Found) -> ProbeReport {
    let address = found.address.to_string();
    match found.rate {
        Ok(bytes_per_s) => {
            ProbeReport { address, goodput_bytes_per_s: Some(bytes_per_s), ..Default::default() }
        }
        Err(trouble) => ProbeReport { address, trouble, ..Default::default() },
    }
}
