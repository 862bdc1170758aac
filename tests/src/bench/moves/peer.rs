//! A move by QEMU's own means, in the order in which libvirt does it.
//!
//! ```text
//! destination: start, nbd-server-start, block-export-add, migrate-incoming
//! source:      blockdev-mirror (full, write-blocking) ─► ready ─► migrate ─► pre-switchover (the guest is paused)
//!              block-job-cancel, switch the network ─► migrate-continue ─► completed
//! destination: block-export-del, nbd-server-stop, cont
//! ```

use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::guest_kit::Recipe;
use crate::hosts::resident::Work;
use crate::prober::figures::{Figures, Threshold};
use crate::qmp::Qmp;
use crate::requires::Missing;
use crate::wan::{End, WanProfile};

use super::sample::{LONG, Sample, mb, wire_bytes};
use super::stage::{Machine, Stage, switch_network};

const DISK_PORT: &str = "10809";
const MEMORY_PORT: &str = "4444";

/// How the memory goes over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Memory {
    /// As it is.
    Plain,
    /// In two streams, compressed by zstd.
    MultifdZstd,
}

/// Move a guest once, in a world of its own.
pub fn sample(profile: WanProfile, recipe: &Recipe, work: Work, memory: Memory) -> Result<Sample, Missing> {
    let mut stage = Stage::new(profile, recipe, work)?;
    let mut prober = stage.watch();
    prober.mark("send");
    let before_bytes = wire_bytes(&stage.world.wan);
    let begun = Instant::now();
    let mut destination = stage.destination();
    let mirrored = copy_disk(&mut stage.source.qmp, &mut destination.qmp, memory, begun);
    let downtime_ms = move_memory(&mut stage, &mut destination, memory);
    let total_s = begun.elapsed().as_secs_f64();
    let wire_mb = mb(wire_bytes(&stage.world.wan) - before_bytes);
    prober.wait_for_answers(40);
    let last = stage.service.ask("writer disk=a stop").number("acknowledged");
    prober.wait_for_number(0, last);
    stage.service.ask("check");
    let figures = Figures::of(&prober.finish(), Threshold::default());
    let ram = stage.source.qmp.ask("query-migrate", json!({}))["ram"].take();
    let course = format!(
        "disk {:.1} s, memory {:.1} s ({:.0} MB in {} passes)",
        mirrored.as_secs_f64(),
        total_s - mirrored.as_secs_f64(),
        mb(ram["transferred"].as_u64().unwrap_or(0)),
        ram["dirty-sync-count"]
    );
    Ok(Sample { total_s, wire_mb, downtime_ms, gap_ms: 0.0, harm: 0, course }.felt(&figures))
}

/// Mirror the disk until both are equal, and stay so; gives the time since `begun`.
fn copy_disk(source: &mut Qmp, destination: &mut Qmp, memory: Memory, begun: Instant) -> Duration {
    let host = End::SiteB.address();
    let address = json!({ "type": "inet", "data": { "host": host, "port": DISK_PORT } });
    prepare(destination, memory, &["late-block-activate"]);
    destination.ask("nbd-server-start", json!({ "addr": address }));
    let export =
        json!({ "type": "nbd", "id": "disk", "node-name": "disk-vda", "name": "disk", "writable": true });
    destination.ask("block-export-add", export);
    destination.ask("migrate-incoming", json!({ "uri": format!("tcp:{host}:{MEMORY_PORT}") }));
    let target = json!({
        "driver": "nbd", "node-name": "target", "export": "disk", "detect-zeroes": "unmap", "discard": "unmap",
        "server": { "type": "inet", "host": host, "port": DISK_PORT },
    });
    source.ask("blockdev-add", target);
    let mirror = json!({
        "job-id": "mirror", "device": "disk-vda", "target": "target", "sync": "full",
        "copy-mode": "write-blocking",
    });
    source.ask("blockdev-mirror", mirror);
    source.wait_for_event(LONG, "BLOCK_JOB_READY", |_| true);
    begun.elapsed()
}

/// Move the memory and the guest with it; gives the downtime in milliseconds.
fn move_memory(stage: &mut Stage, destination: &mut Machine, memory: Memory) -> f64 {
    let Stage { source, world, guest, .. } = stage;
    let source = &mut source.qmp;
    prepare(source, memory, &["pause-before-switchover"]);
    let limits = json!({ "max-bandwidth": 10_000_000_000_u64, "downtime-limit": 300 });
    source.ask("migrate-set-parameters", limits);
    source.ask("migrate", json!({ "uri": format!("tcp:{}:{MEMORY_PORT}", End::SiteB.address()) }));
    let stopped = source.wait_for_event(LONG, "STOP", |_| true);
    thread::scope(|scope| {
        scope.spawn(|| switch_network(world, guest));
        source.wait_for_event(LONG, "MIGRATION", |data| data["status"] == "pre-switchover");
        source.ask("block-job-cancel", json!({ "device": "mirror" }));
        source.wait_for_event(LONG, "BLOCK_JOB_COMPLETED", |_| true);
        source.ask("blockdev-del", json!({ "node-name": "target" }));
        source.ask("migrate-continue", json!({ "state": "pre-switchover" }));
    });
    let qmp = &mut destination.qmp;
    qmp.wait_for_event(LONG, "MIGRATION", |data| data["status"] == "completed");
    qmp.ask("block-export-del", json!({ "id": "disk", "mode": "hard" }));
    qmp.ask("nbd-server-stop", json!({}));
    qmp.ask("cont", json!({}));
    let resumed = qmp.wait_for_event(LONG, "RESUME", |_| true);
    // Both by the clock of this machine.
    time_ms(&resumed) - time_ms(&stopped)
}

/// When an event happened.
fn time_ms(event: &Value) -> f64 {
    let part = |name: &str| event["timestamp"][name].as_f64().expect("an event has its time");
    part("seconds") * 1e3 + part("microseconds") / 1e3
}

fn prepare(qmp: &mut Qmp, memory: Memory, more: &[&str]) {
    let mut names = vec!["events", "return-path"];
    names.extend(more);
    if memory == Memory::MultifdZstd {
        names.push("multifd");
        let streams = json!({ "multifd-channels": 2, "multifd-compression": "zstd" });
        qmp.ask("migrate-set-parameters", streams);
    }
    let all: Vec<Value> = names.iter().map(|name| json!({ "capability": name, "state": true })).collect();
    qmp.ask("migrate-set-capabilities", json!({ "capabilities": all }));
}
