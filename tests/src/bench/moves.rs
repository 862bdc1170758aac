//! Side by side: `migrated send --wan` against what QEMU does by itself (a mirror of the disk, then its migration).
//!
//! ```text
//! Course (link, guest, work) ─► pairs: ours · plain · with multifd zstd, one after the other, a new world each
//!                            ─► medians, and medians of the ratios to the neighbour in time
//! ```
//!
//! Same router, same guest from the same saved state, same work in it, same client who watches. What differs is who
//! moves it. Ours is judged by the oracle after each move; the peer's guest has to answer and to find its memory right.

pub mod sample;
pub mod ours;
pub mod stage;
pub mod peer;

use std::fmt::Write;
use std::fs;

use crate::guest_kit::{Fill, Recipe};
use crate::hosts::resident::Work;
use crate::requires::Missing;
use crate::wan::WanProfile;

use super::report::{Table, at_most, figure};
use super::statistics::{median, ratios};
use peer::Memory;
use sample::Sample;

/// A link, a guest that crosses it, and how often.
#[derive(Debug, Clone)]
pub struct Course {
    /// Its name on the command line.
    pub name: &'static str,
    /// The link.
    pub link: WanProfile,
    /// The guest.
    pub recipe: Recipe,
    /// What it does meanwhile.
    pub work: Work,
    /// Moves of each kind.
    pub pairs: usize,
    /// Whether the figures wanted are those of this link.
    pub is_judged: bool,
}

impl Course {
    /// 100 Mbit/s: what the wanted figures are about.
    pub fn lan100() -> Self {
        Self {
            name: "lan100",
            link: WanProfile::lan100(),
            recipe: Recipe::to_measure(),
            work: Work::default(),
            pairs: 3,
            is_judged: true,
        }
    }

    /// 20 Mbit/s with a long way and losses.
    pub fn wan20() -> Self {
        Self { name: "wan20", link: WanProfile::wan20(), pairs: 1, is_judged: false, ..Self::lan100() }
    }

    /// The paper's machine (S4-59) on its LAN: half an hour and more, hence only if asked for by name.
    pub fn bradford() -> Self {
        let recipe =
            Recipe { name: "bradford".to_owned(), memory_mib: 512, disk_mib: 1024, ..Recipe::to_measure() };
        Self { name: "bradford", recipe, is_judged: false, ..Self::lan100() }
    }

    /// Shows that all of it runs, with the smallest guest.
    pub fn quick() -> Self {
        Self { name: "quick", recipe: Recipe::default(), pairs: 1, is_judged: false, ..Self::lan100() }
    }

    /// The one of that name.
    pub fn named(name: &str) -> Option<Self> {
        [Self::lan100(), Self::wan20(), Self::bradford(), Self::quick()]
            .into_iter()
            .find(|course| course.name == name)
    }
}

/// Who moves the guest.
const KINDS: [&str; 3] = ["ours", "QEMU", "QEMU, multifd zstd"];

/// What is wanted of our figure over that of each peer: time and bytes, downtime and gap.
const WANTED: [(f64, f64); 2] = [(0.5, 1.0), (0.8, 1.0)];

/// Run a course.
pub fn run(course: &Course) -> Result<Vec<Table>, Missing> {
    let Course { link, recipe, work, .. } = course;
    let mut all: [Vec<Sample>; 3] = Default::default();
    for round in 0..course.pairs {
        // Each begins as often as any other, as far as there are rounds.
        for turn in 0..KINDS.len() {
            let kind = (round + turn) % KINDS.len();
            let sample = match kind {
                0 => ours::sample(*link, recipe, *work)?,
                1 => peer::sample(*link, recipe, *work, Memory::Plain)?,
                _ => peer::sample(*link, recipe, *work, Memory::MultifdZstd)?,
            };
            eprintln!("{}, {}: {sample:?}", course.name, KINDS[kind]);
            all[kind].push(sample);
        }
    }
    Ok(vec![figures(course, &all), comparison(course, &all)])
}

type Of = fn(&Sample) -> f64;

/// The columns, and whether a column is about speed or about what users feel.
const COLUMNS: [(&str, Of, bool); 4] = [
    ("total", |sample| sample.total_s, true),
    ("bytes on the wire", |sample| sample.wire_mb, true),
    ("downtime", |sample| sample.downtime_ms, false),
    ("longest gap of the client", |sample| sample.gap_ms, false),
];

fn series(samples: &[Sample], of: Of) -> Vec<f64> {
    samples.iter().map(of).collect()
}

fn figures(course: &Course, all: &[Vec<Sample>; 3]) -> Table {
    let title = format!("Moving a guest, {} ({})", course.name, course.link);
    let head = "who | total, s | on the wire, MB | downtime, ms | longest gap of the client, ms \
                | lost lines, broken sessions | where the time went (last run)";
    let mut table = Table::new(&title, head);
    for (kind, samples) in KINDS.iter().zip(all) {
        let mut row = vec![(*kind).to_owned()];
        row.extend(COLUMNS.map(|(_, of, _)| figure(median(&series(samples, of)))));
        row.push(samples.iter().map(|sample| sample.harm).sum::<u64>().to_string());
        row.extend(samples.last().map(|sample| sample.course.clone()));
        table.row(row);
    }
    table
}

fn comparison(course: &Course, all: &[Vec<Sample>; 3]) -> Table {
    let title = format!("Ours over the peer's, {}", course.name);
    let mut table = Table::new(&title, "figure | over | ratio | wanted | verdict");
    let [ours, peers @ ..] = all;
    for ((peer, name), (speed, feel)) in peers.iter().zip(&KINDS[1..]).zip(WANTED) {
        for (column, of, is_speed) in COLUMNS {
            let ratio = median(&ratios(&series(ours, of), &series(peer, of)));
            let limit = if is_speed { speed } else { feel };
            let (wanted, verdict) = match course.is_judged {
                true => (format!("≤ {limit}"), at_most(ratio, limit).to_string()),
                false => ("–".to_owned(), "–".to_owned()),
            };
            table.row(vec![column.to_owned(), (*name).to_owned(), figure(ratio), wanted, verdict]);
        }
    }
    table
}

/// Under which conditions.
pub fn how(courses: &[Course]) -> String {
    let mut text = "Each move has a world of its own: two sites, a client, and a router with netem on each of its \
         links. The guest is emulated (accel=tcg) and is watched by the client with 20 lines and 50 datagrams a \
         second. Total: from the order to the guest running at the destination, with the start of the destination's \
         QEMU. Bytes: what the router passed to the destination. Downtime: ours from STOP to the source knowing \
         that the guest runs, QEMU's from STOP to RESUME. QEMU mirrors the disk write-blocking to an NBD export \
         (detect-zeroes and discard: unmap), then migrates with downtime-limit 300 ms and no limit of bandwidth; \
         its guest's network is stretched by VXLAN and switched at STOP. TCP of both is that of the machine. With \
         few pairs the interval is simply the smallest and the largest.\n"
        .to_owned();
    let control = fs::read_to_string("/proc/sys/net/ipv4/tcp_congestion_control").unwrap_or_default();
    let _ = write!(
        text,
        "\n* Congestion control of the machine, hence of QEMU's connections: {}\n",
        control.trim()
    );
    for Course { name, recipe, work, pairs, .. } in courses {
        let _ = writeln!(
            text,
            "* {name}: {} MiB of memory, a disk of {} MiB ({}); {} fsynced writes a second, {} pages a second \
             dirtied in {} MiB; {pairs} of each kind, interleaved",
            recipe.memory_mib,
            recipe.disk_mib,
            match recipe.fill {
                Fill::Thirds => "a third of /usr/lib, a third of noise, a third empty",
                Fill::Bare => "nearly empty",
            },
            work.writes_per_s,
            work.pages_per_s,
            work.dirty_mib,
        );
    }
    text
}
