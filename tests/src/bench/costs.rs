//! What only the daemon does, and what it costs: recording, a stalled replica, memory.

use std::fs;
use std::path::{Path, PathBuf};

use crate::daemon::Daemon;
use crate::disk::FaultyDisk;
use crate::lab::Lab;
use crate::relay::BlackHole;
use crate::requires::{self, Missing};
use crate::scratch::Scratch;

use super::client::Client;
use super::comparison::Effort;
use super::load::{Kind, Load};
use super::record::{Figure, OURS, Part, Records};
use super::report::{Table, at_most, figures, verdict};
use super::servers::cpu_ns;
use super::session::{Asked, Session};
use super::statistics::{percentile, ratios};

/// Microseconds of CPU that recording may add to a write of 4 KiB.
const WANTED_RECORDING_US: f64 = 1.5;

/// Memory apart from the delta queue and the bitmap.
const WANTED_MEMORY_MIB: u64 = 64;

/// Bytes of the default delta queue.
const QUEUE_MIB: u64 = 64;

/// The image whose bitmap is to be small.
const IMAGE_OF_MEMORY_BYTES: u64 = 1 << 40;
const BITMAP_MIB: u64 = (IMAGE_OF_MEMORY_BYTES / 4096 / 8) >> 20;

/// The slow disk: delay of a request, and what is on it.
const SLOW_MS: u32 = 5;
const SLOW_IMAGE_BYTES: u64 = 64 << 20;

/// The courses, as the records name them.
const RECORDING: &str = "recording";
const STALLED: &str = "stalled replica";
const SLOW_DISK: &str = "stalled replica, slow disk";
const MEMORY: &str = "memory";

const CPU_OFF: &str = "CPU time of a write, not recording";
const CPU_ON: &str = "CPU time of a write, recording";
const P99_OFF: &str = "p99 of a write, not recording";
const P99_ON: &str = "p99 of a write, replica stalled";
const RESIDENT: &str = "resident memory";

/// Measure what is lacking.
pub fn measure(session: &mut Session, effort: Effort) -> Result<(), Missing> {
    let lab = Lab::with(&[])?;
    recording(session, &lab, effort)?;
    stalled(session, &lab, effort)?;
    let needed = ["nbdkit", "nbdfuse", "losetup", "mkfs.ext4"];
    match requires::programs(&needed).and_then(|()| requires::root()) {
        Ok(()) => stalled_on_a_slow_disk(session, &lab, effort)?,
        // The only course that needs so much.
        Err(missing) => eprintln!("{SLOW_DISK}: not measured: {missing}"),
    }
    memory(session, &lab, effort)
}

/// What these records say.
pub fn rows(records: &Records, table: &mut Table) {
    let series = |course, metric| records.series(Part::Costs, course, OURS, metric);
    let (off, on) = (series(RECORDING, CPU_OFF), series(RECORDING, CPU_ON));
    let added: Vec<f64> = on.iter().zip(&off).map(|(on, off)| on - off).collect();
    table.row(vec![
        "CPU time that recording adds to a 4 KiB write, µs".to_owned(),
        format!("≤ {WANTED_RECORDING_US} µs"),
        figures(&added),
        at_most(&added, WANTED_RECORDING_US),
    ]);
    for (course, name) in [
        (STALLED, "p99 of a write with the replica's stream stalled, times that without recording"),
        (SLOW_DISK, "the same behind a disk with 5 ms delay (nbdkit's delay filter, nbdfuse, loop, ext4)"),
    ] {
        let times = ratios(&series(course, P99_ON), &series(course, P99_OFF));
        let verdict = verdict(&times, |found| found.low <= 1.0);
        table.row(vec![name.to_owned(), "1 in the interval".to_owned(), figures(&times), verdict]);
    }
    let resident = series(MEMORY, RESIDENT);
    let wanted_mib = WANTED_MEMORY_MIB + QUEUE_MIB + BITMAP_MIB;
    table.row(vec![
        "resident memory, 1 TiB sparse image, recording".to_owned(),
        format!("≤ {wanted_mib} MiB (64 + queue + bitmap)"),
        resident.first().map_or_else(|| figures(&[]), |mib| format!("{mib:.0} MiB")),
        at_most(&resident, wanted_mib as f64),
    ]);
}

fn asked(course: &str, conditions: String, pairs: usize) -> Asked {
    Asked { part: Part::Costs, course: course.to_owned(), conditions, pairs }
}

fn pid(disk: &Daemon) -> u32 {
    disk.serving_pid().expect("the daemon has a child that serves")
}

fn recording(session: &mut Session, lab: &Lab, effort: Effort) -> Result<(), Missing> {
    let load = Load::random(Kind::Write, 16, effort.requests);
    let cost_us = |disk: &Daemon, seed: usize| {
        let mut client = Client::connect(disk.nbd()).expect("connect");
        let offsets = load.offsets(client.size_bytes(), seed as u64);
        let before = cpu_ns(pid(disk));
        client.run(&load, &offsets).expect("run a load");
        (cpu_ns(pid(disk)) - before) as f64 / 1e3 / load.requests as f64
    };
    let set_up = || {
        let image = lab.scratch.patterned("recorded.image", effort.image_bytes, 2);
        let disk = lab.serve("recorded", &image).flags(["--cache", "buffered"]).start();
        // The first run warms up.
        cost_us(&disk, 0);
        Ok(disk)
    };
    let conditions = conditions(effort.requests, effort.image_bytes);
    session.course(asked(RECORDING, conditions, effort.pairs), set_up, |disk, pair| {
        disk.ctl(&["record", "off"]);
        let off = Figure::less(OURS, CPU_OFF, "µs", cost_us(disk, pair));
        disk.ctl(&["record", "on"]);
        let on = Figure::less(OURS, CPU_ON, "µs", cost_us(disk, pair));
        Ok(vec![off, on].into())
    })
}

fn conditions(requests: usize, image_bytes: u64) -> String {
    format!("{requests} requests a run, image of {} MiB", image_bytes >> 20)
}

fn stalled(session: &mut Session, lab: &Lab, effort: Effort) -> Result<(), Missing> {
    let set_up = || {
        let images = ["plain", "stalled"]
            .map(|name| lab.scratch.patterned(&format!("{name}.image"), effort.image_bytes, 3));
        Ok(Stalled::new(lab, &lab.scratch, &images, "buffered", effort.requests))
    };
    let conditions = conditions(effort.requests, effort.image_bytes);
    session.course(asked(STALLED, conditions, effort.pairs), set_up, |stalled, pair| {
        Ok(stalled.pair(pair).into())
    })
}

fn stalled_on_a_slow_disk(session: &mut Session, lab: &Lab, effort: Effort) -> Result<(), Missing> {
    let requests = effort.requests.min(2000);
    let set_up = || {
        let grounds = [Scratch::new(), Scratch::new()];
        let disks = grounds.each_ref().map(|ground| FaultyDisk::new(ground, 512 << 20, SLOW_MS));
        let images = disks.each_ref().map(|disk| filled_image(disk.path(), SLOW_IMAGE_BYTES));
        // The daemons end before the disks that they are on, and these before the ground.
        Ok((Stalled::new(lab, &grounds[0], &images, "direct", requests), disks, grounds))
    };
    let conditions = conditions(requests, SLOW_IMAGE_BYTES) + &format!(" with {SLOW_MS} ms of delay");
    let asked = asked(SLOW_DISK, conditions, effort.pairs);
    session.course(asked, set_up, |(stalled, ..), pair| Ok(stalled.pair(pair).into()))
}

fn filled_image(folder: &Path, size_bytes: u64) -> PathBuf {
    let path = folder.join("image");
    fs::write(&path, vec![0x5a; size_bytes as usize]).expect("write an image");
    fs::File::open(&path).and_then(|file| file.sync_all()).expect("write an image through");
    path
}

/// A daemon with a replica that accepts and never reads, and one that does not record.
struct Stalled {
    disks: [Daemon; 2],
    _hole: BlackHole,
    load: Load,
}

impl Stalled {
    fn new(lab: &Lab, ground: &Scratch, images: &[PathBuf; 2], cache: &str, requests: usize) -> Self {
        let serve = |name: &str, image: &Path| {
            lab.serve(&format!("{name}-{cache}"), image).flags(["--cache", cache]).start()
        };
        let disks = [serve("plain", &images[0]), serve("stalled", &images[1])];
        let hole = BlackHole::listen(&ground.join("hole"));
        disks[1].ctl(&["record", "on"]);
        disks[1].ctl(&["replicate", &hole.path().to_string_lossy()]);
        let stalled = Self { disks, _hole: hole, load: Load::random(Kind::Write, 16, requests) };
        // The first round warms up.
        stalled.pair(0);
        stalled
    }

    /// p99 of write latency of each; who begins changes from pair to pair.
    fn pair(&self, pair: usize) -> Vec<Figure> {
        let turns = (0..2).map(|turn| (pair + turn) % 2);
        let name = |index| [P99_OFF, P99_ON][index];
        turns.map(|index| Figure::less(OURS, name(index), "µs", self.p99_us(index, pair as u64))).collect()
    }

    fn p99_us(&self, index: usize, seed: u64) -> f64 {
        let mut client = Client::connect(self.disks[index].nbd()).expect("connect");
        let offsets = self.load.offsets(client.size_bytes(), seed);
        let mut run = client.run(&self.load, &offsets).expect("run a load");
        percentile(&mut run.latencies_ns, 0.99) as f64 / 1e3
    }
}

fn memory(session: &mut Session, lab: &Lab, effort: Effort) -> Result<(), Missing> {
    let load = Load::random(Kind::Write, 64, effort.requests * 4);
    let set_up = || {
        let image = lab.scratch.sparse("huge.image", IMAGE_OF_MEMORY_BYTES);
        Ok(lab.serve("huge", &image).flags(["--cache", "buffered"]).start())
    };
    let asked = asked(MEMORY, conditions(load.requests, IMAGE_OF_MEMORY_BYTES), 1);
    session.course(asked, set_up, |disk, _| {
        // From here on every block of the disk is still to be copied: the bitmap is full.
        disk.ctl(&["record", "on"]);
        let mut client = Client::connect(disk.nbd()).expect("connect");
        let offsets = load.offsets(client.size_bytes(), 1);
        client.run(&load, &offsets).expect("run a load");
        let resident_mib = resident_kib(pid(disk)) >> 10;
        Ok(vec![Figure::less(OURS, RESIDENT, "MiB", resident_mib as f64)].into())
    })
}

fn resident_kib(pid: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("look at a process");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("a process has memory");
    line.split_whitespace().next().and_then(|word| word.parse().ok()).expect("memory is a number")
}

/// Under which conditions.
pub fn how(effort: Effort) -> String {
    format!(
        "Every figure is the median of {} pairs of runs, with the interval that holds it with 95 %; the first copy and \
         the memory of fewer. Images of {} MiB in the page cache, but for the slow disk.",
        effort.pairs,
        effort.image_bytes >> 20,
    )
}
