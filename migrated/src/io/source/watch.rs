//! Looks at everything several times a second: status for people, a prediction, and the memory's gate.
//!
//! It decides nothing about phases; what follows from its samples, `switchover`, `convergence` and `trouble` say. A sample that
//! fails is left out; whoever it concerns notices by itself.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use blockd::control::Status as DiskStatus;
use tokio::sync::mpsc;
use tokio::time::{MissedTickBehavior, interval};

use super::context::Context;
use super::{memory, prepare};
use crate::convergence::{Convergence, Observation, Verdict};
use crate::costs::DiskTally;
use crate::io::disk::DiskError;
use crate::link::Label;
use crate::peer::Request;
use crate::phase::{Copies, LeftBy, Row};
use crate::progress::{Progress, Series};
use crate::qmp::MigrateInfo;
use crate::quantity::{ms, time};
use crate::source::Event;
use crate::status::{DiskProgress, LinkProgress, RamProgress, Status};
use crate::switchover::{RamLimits, Ratio, Sample, disks_nearly_done, predict, ram_limits, ram_may_flow};
use crate::trouble::{Absence, Change, Trouble, of_a_gone_disk};

/// Between two samples.
const EVERY: Duration = Duration::from_millis(100);

/// Samples between two messages to the destination about it.
const MIRRORED_EVERY: u32 = 10;

/// A guest that stands still waits so long for a disk that fails.
const PAUSED_TROUBLE_LIMIT: Duration = Duration::from_secs(2);

/// Compression is not believed to be better than this when what is left is counted.
const RATIO_MAX: f64 = 4.0;

/// Looks until the migration ends; beside it, the link keeps to the bandwidth that the operator allows.
pub async fn watch(context: Arc<Context>, events: mpsc::Sender<Event>) {
    context.spawn(prepare::obey_bandwidth(Arc::clone(&context)));
    let mut watcher = Watcher::new(&context);
    let mut tick = interval(EVERY);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    for count in 0u32.. {
        tick.tick().await;
        sample_all(&context, &mut watcher, &events).await;
        if count % MIRRORED_EVERY == 0 {
            mirror(&context);
        }
    }
}

/// What one sample remembers of those before.
struct Watcher {
    progress: Progress,
    ratio: Ratio,
    told: Option<RamLimits>,
    convergence: Convergence,
    troubles: BTreeMap<String, Trouble>,
    absences: BTreeMap<String, Absence>,
}

impl Watcher {
    fn new(context: &Context) -> Self {
        let settings = &context.site.config.migration;
        let no_progress = Duration::from_millis(settings.no_progress_ms);
        let suspended = Duration::from_millis(settings.paused_deadline_ms);
        Self {
            progress: Progress::default(),
            ratio: Ratio::default(),
            told: None,
            troubles: BTreeMap::new(),
            absences: BTreeMap::new(),
            convergence: Convergence::new(no_progress, suspended, context.options.time_limit),
        }
    }

    /// What has to be said to the migration of how it gets on.
    fn judge(&mut self, context: &Context, status: &Status) -> Option<Event> {
        match self.convergence.handle_sample(&seen(context, status), context.now())? {
            Verdict::Bounded(limit) => {
                let limit = time(ms(limit));
                context
                    .event(format!("time limit: given up if it takes longer than {limit} with the link up"));
                None
            }
            Verdict::GiveUp(why) => Some(Event::NotConverging(why)),
            Verdict::LinkGone(why) => Some(Event::LinkLost(why)),
        }
    }

    /// Tells QEMU its limits where they have changed.
    async fn limit(&mut self, context: &Arc<Context>, sample: &Sample, passes: u64) {
        let limits = ram_limits(sample, self.ratio.lately(), passes, context.options.max_downtime);
        // One that cannot be told has ended, or will be told the next time.
        if self.told != Some(limits) && memory::set_limits(context, limits).await.is_ok() {
            self.told = Some(limits);
        }
    }

    /// Says which disks fail, or no longer do. Gives why the migration cannot go on, once one has for too long.
    fn note_disk_troubles(
        &mut self,
        context: &Arc<Context>,
        row: &Row,
        disks: &[(String, DiskStatus)],
    ) -> Option<String> {
        let now = context.now();
        let wanted = Duration::from_millis(context.site.config.migration.disk_trouble_ms);
        let limit = if row.paused { PAUSED_TROUBLE_LIMIT.min(wanted) } else { wanted };
        let (from, to) = (&context.site.config.name, &context.peer.name);
        let mut given_up = None;
        for (id, status) in disks {
            let trouble = self.troubles.entry(id.clone()).or_default();
            let change = trouble.handle_sample(now, &status.replication);
            let said = || format!("{}; {}", trouble.words(id, from, to), trouble.remedy(from, to));
            match change {
                Some(Change::Begun) => {
                    context.warn(format!("{}: it is tried again for {} s", said(), limit.as_secs()));
                }
                Some(Change::Over) => context.event(format!("disk {id}: it works again")),
                None if trouble.lasts(now).is_some_and(|lasted| lasted >= limit) => {
                    let kept = "what was copied is kept for the next attempt";
                    given_up.get_or_insert_with(|| format!("{}, then send it again: {kept}", said()));
                }
                None => {}
            }
        }
        given_up
    }

    /// Whether a disk fails: no time to pause a guest, which would wait for it.
    fn has_trouble(&self, now: Duration) -> bool {
        self.troubles.values().any(|trouble| trouble.lasts(now).is_some())
    }
}

async fn sample_all(context: &Arc<Context>, watcher: &mut Watcher, events: &mpsc::Sender<Event>) {
    if let Ok(link) = context.link() {
        context.hear_link(&link);
    }
    let row = context.handle.status().phase.row();
    let memory_goes = row.copies == Copies::Memory;
    let (disks, all_answer) = ask_disks(context, watcher, row, events).await;
    let mut sample = Sample::default();
    disks.iter().for_each(|(_, status)| add_disk(&mut sample, status));
    if row.copies > Copies::Nothing
        && let Some(reason) = watcher.note_disk_troubles(context, row, &disks)
    {
        // Nobody listens any more once the migration has ended.
        let _ = events.send(Event::Broken(reason)).await;
    }
    let has_trouble = watcher.has_trouble(context.now());
    let memory = if memory_goes { context.machine.qmp().query_migrate().await.ok() } else { None };
    let carried = context.known().ram.as_ref().map_or((0, 0), |ram| ram.bytes());
    if let Some(memory) = &memory {
        watcher.ratio.push(carried.0, carried.1);
        sample.ram_left_bytes = (memory.ram.remaining as f64 / watcher.ratio.lately()) as u64;
    }
    let link = context.known().link.as_ref().map(|link| link.status());
    if let Some(link) = &link {
        note_link(context, &mut sample, link);
    }
    if memory_goes && !row.paused && all_answer {
        let open = !has_trouble && ram_may_flow(&sample, context.options.max_downtime);
        if let Some(ram) = &context.known().ram {
            ram.set_open(open);
        }
        let passes = memory.as_ref().map_or(0, |memory| memory.ram.dirty_sync_count);
        watcher.limit(context, &sample, passes).await;
    }
    let now = context.now();
    note_deltas(context, now, &disks);
    let tally = context.known().count_carried().clone();
    context.handle.update(|status| {
        if let Some(link) = link {
            let (segments, resent_segments) = tally.segments();
            let sent_bytes = tally.link_sent_bytes();
            status.link = LinkProgress { sent_bytes, segments, resent_segments, ..link };
        }
        for (id, found) in &disks {
            show_disk(&mut status.disks, id, found, &tally.disk(id));
        }
        if let Some(memory) = &memory {
            // What of it this attempt has sent: with the next one it begins anew.
            show_memory(&mut status.ram, memory, carried);
        }
        // Once the guest is paused, the prediction stays what it was: it is compared with what came of it.
        if row.must_converge() && !context.options.cold && all_answer {
            status.predicted_downtime_ms = predict(&sample).map(|prediction| ms(prediction.total()));
        }
        watcher.progress.handle_sample(now, status);
        status.time_limit_s = watcher.convergence.limit().map(|limit| limit.as_secs());
    });
    if let Some(event) = watcher.judge(context, &context.handle.status()) {
        // Nobody listens any more once the migration has ended.
        let _ = events.send(event).await;
    }
    let may_be_done = row.left_by == LeftBy::DisksNearlyDone && all_answer && !has_trouble;
    if may_be_done && disks_nearly_done(&sample, context.options.ram_start) {
        // The machine is asked no more once it has ended.
        let _ = events.send(Event::DisksNearlyDone).await;
    }
}

/// What each disk says of itself, and with it its place on the link; and whether all have answered. One that is gone
/// ends the migration, as long as the guest is here; until then everything else is looked at as ever.
async fn ask_disks(
    context: &Context,
    watcher: &mut Watcher,
    row: &Row,
    events: &mpsc::Sender<Event>,
) -> (Vec<(String, DiskStatus)>, bool) {
    let (mut disks, mut bulk, mut all_answer) = (Vec::new(), BTreeSet::new(), true);
    for (number, described, disk) in context.copied_disks() {
        let found = context.look_at(&described.id, &disk).await;
        let is_there = !found.as_ref().is_err_and(DiskError::is_gone);
        let absence = watcher.absences.entry(described.id.clone()).or_default();
        if absence.handle_sample(context.now(), is_there) && row.cancellable {
            // Nobody listens any more once the migration has ended.
            let _ = events.send(Event::Broken(of_a_gone_disk(&context.guest.name, &described.id))).await;
        }
        let Ok(status) = found else {
            all_answer = false;
            continue;
        };
        if status.replication.deltas_wait {
            bulk.insert(Label::Disk(number));
        }
        disks.push((described.id, status));
    }
    if let Ok(link) = context.link() {
        link.set_bulk(bulk);
    }
    (disks, all_answer)
}

/// What the link gives now, and the best that it ever gave.
fn note_link(context: &Context, sample: &mut Sample, link: &LinkProgress) {
    sample.goodput_bytes_per_s = link.goodput_bytes_per_s;
    sample.rtt = Duration::from_micros(link.rtt_us);
    let mut known = context.known();
    let (rtt_us, goodput) = known.link_best.unwrap_or((u64::MAX, 0));
    // 0: not known yet.
    let rtt_us = if link.rtt_us == 0 { rtt_us } else { rtt_us.min(link.rtt_us) };
    known.link_best = Some((rtt_us, goodput.max(link.goodput_bytes_per_s)));
}

/// What the clocks of a migration look at.
fn seen(context: &Context, status: &Status) -> Observation {
    let ram = &status.ram;
    Observation {
        phase: status.phase,
        is_link_up: status.link.up && context.known().link.is_some(),
        is_suspended: context.options.cold,
        disk_left_bytes: status.disks.iter().map(|disk| disk.left_bytes).sum(),
        ram_left_bytes: if status.phase.row().copies == Copies::Memory {
            ram.left_bytes
        } else {
            context.guest.memory_mib << 20
        },
        ram_passes: ram.passes,
        ram_dirty_bytes_per_s: ram.dirty_bytes_per_s,
        goodput_bytes_per_s: status.link.goodput_bytes_per_s,
        limit_bytes_per_s: status.link.limit_bytes_per_s,
    }
}

fn note_deltas(context: &Arc<Context>, now: Duration, disks: &[(String, DiskStatus)]) {
    for (id, status) in disks {
        let deltas_total = status.replication.deltas_total;
        let series = || Series::new(now, deltas_total);
        context.known().deltas.entry(id.clone()).or_insert_with(series).push(now, deltas_total);
    }
}

fn add_disk(sample: &mut Sample, status: &DiskStatus) {
    let replication = &status.replication;
    let ratio = replication.ratio.clamp(1.0, RATIO_MAX);
    sample.disk_left_bytes += (replication.backlog_bytes as f64 / ratio) as u64;
    sample.stale_leaves += replication.stale_leaves;
}

fn show_disk(shown: &mut Vec<DiskProgress>, id: &str, found: &DiskStatus, sent: &DiskTally) {
    let replication = &found.replication;
    if !shown.iter().any(|disk| disk.id == id) {
        shown.push(DiskProgress {
            id: id.to_owned(),
            size_bytes: found.identity.size_bytes,
            ..DiskProgress::default()
        });
    }
    let disk = shown.iter_mut().find(|disk| disk.id == id).expect("it was just put there");
    disk.total_bytes = disk.total_bytes.max(replication.backlog_bytes);
    disk.left_bytes = replication.backlog_bytes;
    disk.delta_bytes = replication.queued_bytes;
    disk.sent_bytes = sent.sent_bytes();
    disk.deltas_total = sent.deltas_total();
    disk.throttle_level = found.throttle.level;
}

fn show_memory(shown: &mut RamProgress, found: &MigrateInfo, (raw_bytes, sent_bytes): (u64, u64)) {
    shown.total_bytes = found.ram.total;
    shown.left_bytes = found.ram.remaining;
    shown.raw_bytes = raw_bytes;
    shown.sent_bytes = sent_bytes;
    shown.passes = found.ram.dirty_sync_count;
    shown.dirty_bytes_per_s = found.ram.dirty_pages_rate * found.ram.page_size;
}

/// Lets the destination show the same numbers; its answer is nobody's business.
fn mirror(context: &Arc<Context>) {
    if let Ok(client) = context.client()
        && let Some(request) = Request::mirror(context.handle.status())
    {
        context.spawn(async move {
            let _ = client.call(request).await;
        });
    }
}
