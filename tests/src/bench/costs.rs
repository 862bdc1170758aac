//! What only the daemon does, and what it costs: recording, a stalled replica, memory.

use std::fs;
use std::path::{Path, PathBuf};

use crate::daemon::Daemon;
use crate::disk::FaultyDisk;
use crate::lab::Lab;
use crate::relay::BlackHole;
use crate::requires;
use crate::scratch::Scratch;

use super::client::Client;
use super::comparison::Effort;
use super::load::{Kind, Load};
use super::report::{Table, Verdict, at_most, figure};
use super::servers::cpu_ns;
use super::statistics::{Median, median, percentile, ratios};
use super::stream;

/// Microseconds of CPU that recording may add to a write of 4 KiB.
const WANTED_RECORDING_US: f64 = 1.5;

/// Memory apart from the delta queue and the bitmap.
const WANTED_MEMORY_MIB: u64 = 64;

/// Bytes of the default delta queue.
const QUEUE_MIB: u64 = 64;

/// All figures in one table.
pub fn run(lab: &Lab, effort: Effort) -> Table {
    let mut table = Table::new("Recording and replica", "figure | wanted | measured | verdict");
    recording(lab, effort, &mut table);
    stalled(lab, effort, &mut table);
    stalled_on_a_slow_disk(lab, effort, &mut table);
    memory(lab, effort, &mut table);
    stream::run(lab, effort, &mut table);
    table
}

fn words(cells: [&str; 4]) -> Vec<String> {
    cells.map(String::from).to_vec()
}

fn pid(disk: &Daemon) -> u32 {
    disk.serving_pid().expect("the daemon has a child that serves")
}

fn recording(lab: &Lab, effort: Effort, table: &mut Table) {
    eprintln!("recording");
    let image = lab.scratch.patterned("recorded.image", effort.image_bytes, 2);
    let disk = lab.serve("recorded", &image).flags(["--cache", "buffered"]).start();
    let load = Load::random(Kind::Write, 16, effort.requests);
    let cost_us = |seed: u64| {
        let mut client = Client::connect(disk.nbd()).expect("connect");
        let offsets = load.offsets(client.size_bytes(), seed);
        let before = cpu_ns(pid(&disk));
        client.run(&load, &offsets).expect("run a load");
        (cpu_ns(pid(&disk)) - before) as f64 / 1e3 / load.requests as f64
    };
    cost_us(0);
    let added: Vec<f64> = (1..=effort.pairs as u64)
        .map(|round| {
            disk.ctl(&["record", "off"]);
            let off_us = cost_us(round);
            disk.ctl(&["record", "on"]);
            cost_us(round) - off_us
        })
        .collect();
    let added = median(&added);
    let verdict = at_most(added, WANTED_RECORDING_US).to_string();
    let wanted = format!("≤ {WANTED_RECORDING_US} µs");
    table.row(vec![
        "CPU time that recording adds to a 4 KiB write, µs".into(),
        wanted,
        figure(added),
        verdict,
    ]);
}

fn stalled(lab: &Lab, effort: Effort, table: &mut Table) {
    eprintln!("stalled replica");
    let images = ["plain", "stalled"]
        .map(|name| lab.scratch.patterned(&format!("{name}.image"), effort.image_bytes, 3));
    let p99 = stalled_p99(lab, &lab.scratch, &images, "buffered", effort, effort.requests);
    let name = "p99 of a write with the replica's stream stalled, times that without recording";
    table.row(vec![name.into(), "1 in the interval".into(), figure(p99), within(p99).to_string()]);
}

fn stalled_on_a_slow_disk(lab: &Lab, effort: Effort, table: &mut Table) {
    let name = "the same behind a disk with 5 ms delay (nbdkit's delay filter, nbdfuse, loop, ext4)";
    let needed =
        ["nbdkit", "nbdfuse", "losetup", "mkfs.ext4"].iter().try_for_each(|p| requires::program(p).map(drop));
    if let Err(missing) = needed.and_then(|()| requires::root()) {
        table.row(words([name, "1 in the interval", &format!("not measured: {missing}"), "–"]));
        return;
    }
    eprintln!("stalled replica on a slow disk");
    let grounds = [Scratch::new(), Scratch::new()];
    let disks = grounds.each_ref().map(|ground| FaultyDisk::new(ground, 512 << 20, 5));
    let images = disks.each_ref().map(|disk| filled_image(disk.path(), 64 << 20));
    let p99 = stalled_p99(lab, &grounds[0], &images, "direct", effort, effort.requests.min(2000));
    table.row(vec![name.into(), "1 in the interval".into(), figure(p99), within(p99).to_string()]);
}

fn filled_image(folder: &Path, size_bytes: u64) -> PathBuf {
    let path = folder.join("image");
    fs::write(&path, vec![0x5a; size_bytes as usize]).expect("write an image");
    fs::File::open(&path).and_then(|file| file.sync_all()).expect("write an image through");
    path
}

/// p99 of write latency with a replica that accepts and never reads, over that without recording.
fn stalled_p99(
    lab: &Lab,
    ground: &Scratch,
    images: &[PathBuf; 2],
    cache: &str,
    effort: Effort,
    requests: usize,
) -> Median {
    let serve = |name: &str, image: &Path| {
        lab.serve(&format!("{name}-{cache}"), image).flags(["--cache", cache]).start()
    };
    let disks = [serve("plain", &images[0]), serve("stalled", &images[1])];
    let hole = BlackHole::listen(&ground.join("hole"));
    disks[1].ctl(&["record", "on"]);
    disks[1].ctl(&["replicate", &hole.path().to_string_lossy()]);
    let load = Load::random(Kind::Write, 16, requests);
    let p99 = |disk: &Daemon, seed: u64| {
        let mut client = Client::connect(disk.nbd()).expect("connect");
        let offsets = load.offsets(client.size_bytes(), seed);
        let mut run = client.run(&load, &offsets).expect("run a load");
        percentile(&mut run.latencies_ns, 0.99) as f64
    };
    let mut series = [Vec::new(), Vec::new()];
    for round in 0..=effort.pairs {
        for turn in 0..2 {
            let index = (round + turn) % 2;
            let found = p99(&disks[index], round as u64);
            // The first round warms up.
            if round > 0 {
                series[index].push(found);
            }
        }
    }
    median(&ratios(&series[1], &series[0]))
}

fn within(ratio: Median) -> Verdict {
    if ratio.low <= 1.0 { Verdict::Met } else { Verdict::Short }
}

fn memory(lab: &Lab, effort: Effort, table: &mut Table) {
    eprintln!("memory");
    let image = lab.scratch.sparse("huge.image", 1 << 40);
    let disk = lab.serve("huge", &image).flags(["--cache", "buffered"]).start();
    // From here on every block of the disk is still to be copied: the bitmap is full.
    disk.ctl(&["record", "on"]);
    let mut client = Client::connect(disk.nbd()).expect("connect");
    let load = Load::random(Kind::Write, 64, effort.requests * 4);
    let offsets = load.offsets(client.size_bytes(), 1);
    client.run(&load, &offsets).expect("run a load");
    let resident_mib = resident_kib(pid(&disk)) >> 10;
    let bitmap_mib = ((1 << 40) / 4096 / 8) >> 20;
    let wanted_mib = WANTED_MEMORY_MIB + QUEUE_MIB + bitmap_mib;
    let verdict = if resident_mib <= wanted_mib { Verdict::Met } else { Verdict::Short };
    let name = "resident memory, 1 TiB sparse image, recording";
    let wanted = format!("≤ {wanted_mib} MiB (64 + queue + bitmap)");
    table.row(vec![name.into(), wanted, format!("{resident_mib} MiB"), verdict.to_string()]);
}

fn resident_kib(pid: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("look at a process");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("a process has memory");
    line.split_whitespace().next().and_then(|word| word.parse().ok()).expect("memory is a number")
}
