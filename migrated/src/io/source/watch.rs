//! Looks at everything several times a second: status for people, a prediction, and the memory's gate.
//!
//! It decides nothing about phases but one thing: that what is left of the disks is little enough for the memory to
//! begin. A look that fails is left out; whoever it concerns notices by itself.

use std::sync::Arc;
use std::time::Duration;

use blockd::control::Status as DiskStatus;
use tokio::sync::mpsc;
use tokio::time::{MissedTickBehavior, interval};

use super::context::Context;
use super::{memory, prepare};
use crate::migration::Event;
use crate::peer::Request;
use crate::phase::Phase;
use crate::progress::{Progress, Series};
use crate::qmp::MigrateInfo;
use crate::status::{DiskProgress, RamProgress};
use crate::switchover::{RamLimits, Ratio, Sample, disks_nearly_done, predict, ram_limits, ram_may_flow};

/// Between two looks.
const EVERY: Duration = Duration::from_millis(100);

/// Looks between two words to the destination about it.
const MIRRORED_EVERY: u32 = 10;

/// Compression is not believed to be better than this when what is left is counted.
const RATIO_MAX: f64 = 4.0;

/// Looks until the migration ends; beside it, the link keeps to the bandwidth that the operator allows.
pub async fn watch(context: Arc<Context>, events: mpsc::Sender<Event>) {
    context.spawn(prepare::obey_bandwidth(Arc::clone(&context)));
    let mut eyes = Eyes::default();
    let mut tick = interval(EVERY);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    for count in 0u32.. {
        tick.tick().await;
        look(&context, &mut eyes, &events).await;
        if count % MIRRORED_EVERY == 0 {
            mirror(&context);
        }
    }
}

/// What one look remembers of those before.
#[derive(Default)]
struct Eyes {
    progress: Progress,
    ratio: Ratio,
    told: Option<RamLimits>,
}

impl Eyes {
    /// Tells QEMU its limits where they have changed.
    async fn limit(&mut self, context: &Arc<Context>, sample: &Sample, passes: u64) {
        let limits = ram_limits(sample, self.ratio.lately(), passes, context.options.max_downtime);
        // One that cannot be told has ended, or will be told the next time.
        if self.told != Some(limits) && memory::set_limits(context, limits).await.is_ok() {
            self.told = Some(limits);
        }
    }
}

async fn look(context: &Arc<Context>, eyes: &mut Eyes, events: &mpsc::Sender<Event>) {
    if let Ok(link) = context.link() {
        context.hear_link(&link);
    }
    let phase = context.handle.status().phase;
    let mut sample = Sample::default();
    let mut disks = Vec::new();
    for (_, described, disk) in context.copied_disks() {
        let Ok(status) = disk.status().await else { return };
        add_disk(&mut sample, &status);
        disks.push((described.id, status));
    }
    let memory = match phase {
        Phase::PreCopy | Phase::StopAndCopy => context.machine.qmp().query_migrate().await.ok(),
        _ => None,
    };
    let (raw_bytes, sent_bytes) = context.known().ram.as_ref().map_or((0, 0), |ram| ram.bytes());
    if let Some(memory) = &memory {
        eyes.ratio.push(raw_bytes, sent_bytes);
        sample.ram_left_bytes = (memory.ram.remaining as f64 / eyes.ratio.lately()) as u64;
    }
    let link = context.known().link.as_ref().map(|link| link.status());
    if let Some(link) = &link {
        sample.goodput_bytes_per_s = link.goodput_bytes_per_s;
        sample.rtt = Duration::from_micros(link.rtt_us);
        let mut known = context.known();
        let (rtt_us, goodput) = known.link_best.unwrap_or((u64::MAX, 0));
        // 0: not known yet.
        let rtt_us = if link.rtt_us == 0 { rtt_us } else { rtt_us.min(link.rtt_us) };
        known.link_best = Some((rtt_us, goodput.max(link.goodput_bytes_per_s)));
    }
    let prediction = predict(&sample);
    if phase == Phase::PreCopy {
        let open = ram_may_flow(&sample, context.options.max_downtime);
        if let Some(ram) = &context.known().ram {
            ram.set_open(open);
        }
        let passes = memory.as_ref().map_or(0, |memory| memory.ram.dirty_sync_count);
        eyes.limit(context, &sample, passes).await;
    }
    let now = context.now();
    count_deltas(context, &disks, now);
    context.handle.update(|status| {
        if let Some(link) = link {
            status.link = link;
        }
        for (id, found) in &disks {
            show_disk(&mut status.disks, id, found);
        }
        if let Some(memory) = &memory {
            show_memory(&mut status.ram, memory, raw_bytes, sent_bytes);
        }
        // Once the guest is paused, the prediction stays what it was: it is compared with what came of it.
        if matches!(phase, Phase::Bulk | Phase::PreCopy) {
            status.predicted_downtime_ms = prediction.map(|prediction| prediction.total().as_millis() as u64);
        }
        eyes.progress.handle_sample(now, status);
    });
    if phase == Phase::Bulk && disks_nearly_done(&sample, context.options.ram_start) {
        // The machine is asked no more once it has ended.
        let _ = events.send(Event::DisksNearlyDone).await;
    }
}

fn count_deltas(context: &Arc<Context>, disks: &[(String, DiskStatus)], now: Duration) {
    for (id, status) in disks {
        let total = status.replication.deltas_total;
        let mut known = context.known();
        known.deltas.entry(id.clone()).or_insert_with(|| Series::new(now, total)).push(now, total);
    }
}

fn add_disk(sample: &mut Sample, status: &DiskStatus) {
    let replication = &status.replication;
    let ratio = replication.ratio.clamp(1.0, RATIO_MAX);
    sample.disk_left_bytes += (replication.backlog_bytes as f64 / ratio) as u64;
    sample.stale_leaves += replication.stale_leaves;
}

fn show_disk(shown: &mut Vec<DiskProgress>, id: &str, found: &DiskStatus) {
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
    disk.sent_bytes = replication.sent_bytes_total;
    disk.deltas_total = replication.deltas_total;
    disk.throttle_level = found.throttle.level;
}

fn show_memory(shown: &mut RamProgress, found: &MigrateInfo, raw_bytes: u64, sent_bytes: u64) {
    shown.total_bytes = found.ram.total;
    shown.left_bytes = found.ram.remaining;
    shown.raw_bytes = raw_bytes;
    shown.sent_bytes = sent_bytes;
    shown.passes = found.ram.dirty_sync_count;
    shown.dirty_bytes_per_s = found.ram.dirty_pages_rate * found.ram.page_size;
}

/// Lets the destination show the same numbers; its answer is nobody's business.
fn mirror(context: &Arc<Context>) {
    if let Ok(client) = context.client() {
        let mut status = context.handle.status();
        status.report = None;
        context.spawn(async move {
            let _ = client.call(Request::Mirror(Box::new(status))).await;
        });
    }
}
