//! Side by side: `migrated send --wan` against what QEMU does by itself (a mirror of the disk, then its migration).
//!
//! ```text
//! Course (link, guest, work) ─► pieces: ours · plain · with multifd zstd, one after the other, a new world each
//! records ─► medians, and medians of the ratios to the neighbour in time
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

use super::record::{Figure, OURS, Part, Record, Records};
use super::report::{NOTHING, Table, at_most, figures};
use super::session::{Asked, Found, Session};
use super::statistics::ratios;
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

    /// All of them.
    pub fn all() -> [Self; 3] {
        [Self::lan100(), Self::wan20(), Self::bradford()]
    }

    /// The same in small, only to see that it runs: the smallest guest, once, over a link that is ten times as fast and
    /// a tenth as long and as lossy. Its figures mean nothing.
    #[must_use]
    pub fn quick(self) -> Self {
        Self {
            link: self.link.ten_times_better(),
            recipe: Recipe::default(),
            pairs: 1,
            is_judged: false,
            ..self
        }
    }

    /// The one of that name.
    pub fn named(name: &str) -> Option<Self> {
        Self::all().into_iter().find(|course| course.name == name)
    }

    /// Everything that a figure depends on.
    fn conditions(&self) -> String {
        let Self { link, recipe, work, .. } = self;
        format!(
            "{link}; {} MiB of memory, a disk of {} MiB ({}); {} fsynced writes a second, {} pages a second dirtied \
             in {} MiB; congestion control of the machine: {}",
            recipe.memory_mib,
            recipe.disk_mib,
            match recipe.fill {
                Fill::Thirds => "a third of /usr/lib, a third of noise, a third empty",
                Fill::Bare => "nearly empty",
            },
            work.writes_per_s,
            work.pages_per_s,
            work.dirty_mib,
            fs::read_to_string("/proc/sys/net/ipv4/tcp_congestion_control").unwrap_or_default().trim(),
        )
    }
}

/// Who moves the guest.
const KINDS: [&str; 3] = [OURS, "QEMU", "QEMU, multifd zstd"];

/// What is wanted of our figure over that of each peer: time and bytes, downtime and gap.
const WANTED: [(f64, f64); 2] = [(0.5, 1.0), (0.8, 1.0)];

const HARM: &str = "lost lines, broken sessions";

/// The columns, their units, and whether a column is about speed or about what users feel.
const COLUMNS: [(&str, &str, bool); 4] = [
    ("total", "s", true),
    ("bytes on the wire", "MB", true),
    ("downtime", "ms", false),
    ("longest gap of the client", "ms", false),
];

fn values(sample: &Sample) -> [f64; 4] {
    [sample.total_s, sample.wire_mb, sample.downtime_ms, sample.gap_ms]
}

/// Measure what is lacking of a course.
pub fn measure(session: &mut Session, course: &Course) -> Result<(), Missing> {
    let asked = Asked {
        part: Part::Moves,
        course: course.name.to_owned(),
        conditions: course.conditions(),
        pairs: course.pairs,
    };
    session.course(
        asked,
        || Ok(()),
        |(), pair| {
            let mut found = Found::default();
            // Each begins as often as any other, as far as there are pairs.
            for turn in 0..KINDS.len() {
                let kind = (pair - 1 + turn) % KINDS.len();
                let sample = sample(course, kind)?;
                eprintln!("{}, {}: {sample:?}", course.name, KINDS[kind]);
                let felt = COLUMNS.iter().zip(values(&sample));
                found.figures.extend(
                    felt.map(|((name, unit, _), value)| Figure::less(KINDS[kind], name, unit, value)),
                );
                found.figures.push(Figure::less(KINDS[kind], HARM, "", sample.harm as f64));
                found.notes.insert(KINDS[kind].to_owned(), sample.course);
            }
            Ok(found)
        },
    )
}

fn sample(course: &Course, kind: usize) -> Result<Sample, Missing> {
    let Course { link, recipe, work, .. } = course;
    match kind {
        0 => ours::sample(*link, recipe, *work),
        1 => peer::sample(*link, recipe, *work, Memory::Plain),
        _ => peer::sample(*link, recipe, *work, Memory::MultifdZstd),
    }
}

/// The tables of these records, course by course.
pub fn tables(records: &Records, is_quick: bool) -> Vec<Table> {
    let named = records.courses(Part::Moves).into_iter().filter_map(Course::named);
    let courses = named.map(|course| if is_quick { course.quick() } else { course });
    courses.flat_map(|course| [shown(&course, records), compared(&course, records)]).collect()
}

fn shown(course: &Course, records: &Records) -> Table {
    let title = format!("Moving a guest, {} ({})", course.name, course.link);
    let head = "who | total, s | on the wire, MB | downtime, ms | longest gap of the client, ms \
                | lost lines, broken sessions | where the time went (last run)";
    let mut table = Table::new(&title, head);
    for who in KINDS {
        let series = |metric| records.series(Part::Moves, course.name, who, metric);
        let mut row = vec![who.to_owned()];
        row.extend(COLUMNS.map(|(metric, ..)| figures(&series(metric))));
        row.push(series(HARM).iter().sum::<f64>().to_string());
        let note = records.of(Part::Moves, course.name).rev().find_map(|record| record.notes.get(who));
        row.push(note.cloned().unwrap_or_default());
        table.row(row);
    }
    table
}

fn compared(course: &Course, records: &Records) -> Table {
    let title = format!("Ours over the peer's, {}", course.name);
    let mut table = Table::new(&title, "figure | over | ratio | wanted | verdict");
    for (peer, (speed, feel)) in KINDS[1..].iter().zip(WANTED) {
        for (column, _, is_speed) in COLUMNS {
            let series = |who| records.series(Part::Moves, course.name, who, column);
            let ratio = ratios(&series(OURS), &series(peer));
            let limit = if is_speed { speed } else { feel };
            let (wanted, verdict) = match course.is_judged {
                true => (format!("≤ {limit}"), at_most(&ratio, limit)),
                false => (NOTHING.to_owned(), NOTHING.to_owned()),
            };
            table.row(vec![column.to_owned(), (*peer).to_owned(), figures(&ratio), wanted, verdict]);
        }
    }
    table
}

/// Under which conditions.
pub fn how(records: &Records) -> String {
    let mut text = "Each move has a world of its own: two sites, a client, and a router with netem on each of its \
         links. The guest is emulated (accel=tcg) and is watched by the client with 20 lines and 50 datagrams a \
         second. Total: from the order to the guest running at the destination, with the start of the destination's \
         QEMU. Bytes: what the router passed to the destination. Downtime: ours from STOP to the source knowing \
         that the guest runs, QEMU's from STOP to RESUME. QEMU mirrors the disk write-blocking to an NBD export \
         (detect-zeroes and discard: unmap), then migrates with downtime-limit 300 ms and no limit of bandwidth; \
         its guest's network is stretched by VXLAN and switched at STOP. TCP of both is that of the machine. With \
         few pairs the interval is simply the smallest and the largest.\n"
        .to_owned();
    for course in records.courses(Part::Moves) {
        let of_course: Vec<&Record> = records.of(Part::Moves, course).collect();
        let (count, conditions) =
            (of_course.len(), of_course.first().map_or("", |record| &record.conditions));
        let _ = write!(text, "\n* {course}: {conditions}; {count} of each kind, interleaved");
    }
    text
}
