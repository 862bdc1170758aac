//! The daemon against its peers, load by load.

use std::cell::LazyCell;

use crate::lab::Lab;
use crate::program::Tool;
use crate::requires::Missing;

use super::load::{Kind, Load};
use super::record::{Figure, OURS, Part, Records};
use super::report::{NOTHING, Table, at_least, at_most, figures};
use super::servers::Server;
use super::session::{Asked, Session};
use super::statistics::{median, ratios};

/// How much is run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Effort {
    /// Pairs of runs for one figure.
    pub pairs: usize,
    /// Requests of 4 KiB in one run at a depth of 16 or more.
    pub requests: usize,
    /// Bytes of one sequential run.
    pub sequential_bytes: u64,
    /// Bytes of every image.
    pub image_bytes: u64,
}

impl Effort {
    /// What the figures of the project are made with.
    pub const FULL: Self =
        Self { pairs: 20, requests: 12_000, sequential_bytes: 256 << 20, image_bytes: 1 << 30 };
    /// Only to see that everything runs.
    pub const QUICK: Self =
        Self { pairs: 3, requests: 500, sequential_bytes: 8 << 20, image_bytes: 64 << 20 };
}

/// The sides, in the order of [`Server::all`].
const SIDES: [&str; 4] = [OURS, "qemu-nbd", "nbdkit", "no NBD"];

const RATE: &str = "rate";
const CPU: &str = "CPU time of a request";
const TIME: &str = "time";

/// CPU time for one request, at most this share of the best peer's.
const WANTED_CPU: f64 = 0.6;

/// The loads, each with how many times faster than the best peer is wanted.
fn loads(effort: Effort) -> Vec<(Load, f64)> {
    let mut loads = Vec::new();
    for (kind, wanted) in [(Kind::Read, [1.5, 1.2, 1.2]), (Kind::Write, [1.1; 3])] {
        for (depth, wanted) in [1, 16, 64].into_iter().zip(wanted) {
            let requests = if depth == 1 { effort.requests / 3 } else { effort.requests };
            loads.push((Load::random(kind, depth, requests), wanted));
        }
        for request_bytes in [256 << 10, 1 << 20] {
            loads.push((Load::sequential(kind, request_bytes, effort.sequential_bytes), 1.0));
        }
    }
    loads
}

/// The loads of the second opinion: depth, and whether it writes.
const OPINIONS: [(u32, bool); 4] = [(1, false), (16, false), (64, false), (16, true)];

fn opinion((depth, write): (u32, bool)) -> String {
    format!("qemu-img bench, 4 KiB {}, depth {depth}", if write { "write" } else { "read" })
}

/// Measure what is lacking.
pub fn measure(session: &mut Session, effort: Effort) -> Result<(), Missing> {
    let lab = Lab::with(&["qemu-nbd", "nbdkit", "qemu-img"])?;
    let servers = LazyCell::new(|| Server::all(&lab, effort.image_bytes));
    let image_mib = effort.image_bytes >> 20;
    for (load, _) in loads(effort) {
        let asked = Asked {
            part: Part::Comparison,
            course: load.name(),
            conditions: format!("{} requests a run, image of {image_mib} MiB", load.requests),
            pairs: effort.pairs,
        };
        let warm_up = || {
            for server in servers.iter() {
                server.measure(&load, 0);
            }
            Ok(&*servers)
        };
        session.course(asked, warm_up, |servers, pair| Ok(one_pair(servers, &load, pair).into()))?;
    }
    let requests = effort.requests * 2;
    for kind in OPINIONS {
        let asked = Asked {
            part: Part::Comparison,
            course: opinion(kind),
            conditions: format!("{requests} requests a run, image of {image_mib} MiB"),
            pairs: effort.pairs.div_ceil(2),
        };
        let measure = |index: usize, servers: &[Server]| {
            let seconds = qemu_img_bench(&servers[index], kind, requests);
            vec![Figure::less(servers[index].name, TIME, "s", seconds)]
        };
        let turns = SIDES.len() - 1;
        session.course(
            asked,
            || Ok(&*servers),
            |servers, pair| Ok(in_turns(pair, turns, |i| measure(i, servers)).into()),
        )?;
    }
    Ok(())
}

/// Every server once; who begins changes from pair to pair.
fn in_turns(pair: usize, count: usize, measure: impl FnMut(usize) -> Vec<Figure>) -> Vec<Figure> {
    (0..count).map(|turn| (pair - 1 + turn) % count).flat_map(measure).collect()
}

fn one_pair(servers: &[Server], load: &Load, pair: usize) -> Vec<Figure> {
    in_turns(pair, servers.len(), |index| {
        let run = servers[index].measure(load, pair as u64);
        let side = servers[index].name;
        vec![
            Figure::more(side, RATE, "requests/s", load.requests as f64 / run.wall_s),
            Figure::less(side, CPU, "µs", run.cpu_us),
        ]
    })
}

/// The tables of these records.
pub fn tables(records: &Records, effort: Effort) -> Vec<Table> {
    let speed_head = "load | ours, req/s | qemu-nbd | nbdkit | no NBD | times faster than the best peer | wanted | verdict";
    let cpu_head =
        "load | ours, µs CPU | qemu-nbd | nbdkit | no NBD | share of the best peer's | wanted | verdict";
    let mut speed = Table::new("Wall time", speed_head);
    let mut cpu = Table::new("CPU time of the server for one request", cpu_head);
    for (load, wanted) in loads(effort) {
        let name = load.name();
        let series = |metric| SIDES.map(|side| records.series(Part::Comparison, &name, side, metric));
        let (rates, costs) = (series(RATE), series(CPU));
        let faster = best([&rates[1], &rates[2]].map(|peer| ratios(&rates[0], peer)), f64::min);
        let verdict = at_least(&faster, wanted);
        let cells = [figures(&faster), format!("≥ {wanted}"), verdict];
        speed.row(line(&name, rates.iter().map(|values| middle(values, 0)), cells));
        let share = best([&costs[1], &costs[2]].map(|peer| ratios(&costs[0], peer)), f64::max);
        let verdict = at_most(&share, WANTED_CPU);
        let cells = [figures(&share), format!("≤ {WANTED_CPU}"), verdict];
        cpu.row(line(&name, costs.iter().map(|values| middle(values, 1)), cells));
    }
    vec![speed, cpu, second_opinion(records)]
}

/// The second opinion: `qemu-img bench`, which is QEMU's own client.
fn second_opinion(records: &Records) -> Table {
    let mut table = Table::new(
        "Second opinion: `qemu-img bench`, seconds (median)",
        "load | blockd | qemu-nbd | nbdkit | times faster than the best peer",
    );
    for kind in OPINIONS {
        let name = opinion(kind);
        let times = [0, 1, 2].map(|index| records.series(Part::Comparison, &name, SIDES[index], TIME));
        let faster = best([&times[1], &times[2]].map(|peer| ratios(peer, &times[0])), f64::min);
        let load = name.trim_start_matches("qemu-img bench, ");
        table.row(line(load, times.iter().map(|values| middle(values, 3)), [figures(&faster)]));
    }
    table
}

/// The ratios to the peer that makes us look worst: the best one.
fn best(ratios: [Vec<f64>; 2], pick: impl Fn(f64, f64) -> f64) -> Vec<f64> {
    let [first, second] = ratios;
    if first.is_empty() || second.is_empty() {
        return first;
    }
    let (one, other) = (median(&first).middle, median(&second).middle);
    if pick(one, other) == one { first } else { second }
}

fn middle(values: &[f64], digits: usize) -> String {
    if values.is_empty() { NOTHING.to_owned() } else { format!("{:.digits$}", median(values).middle) }
}

fn line<const N: usize>(load: &str, values: impl Iterator<Item = String>, more: [String; N]) -> Vec<String> {
    [load.to_owned()].into_iter().chain(values).chain(more).collect()
}

fn qemu_img_bench(server: &Server, (depth, write): (u32, bool), requests: usize) -> f64 {
    let uri = server.uri().expect("a server with a socket");
    let (depth, requests) = (depth.to_string(), requests.to_string());
    let mut tool = Tool::new("qemu-img").args(["bench", "-f", "raw", "-s", "4096", "-S", "69632"]);
    tool = tool.args(["-d", &depth, "-c", &requests]);
    if write {
        tool = tool.arg("-w");
    }
    let said = tool.arg(uri).run();
    let seconds = said.split("Run completed in ").nth(1).and_then(|rest| rest.split(' ').next());
    seconds.and_then(|word| word.parse().ok()).unwrap_or_else(|| panic!("qemu-img bench said {said}"))
}

/// Under which conditions.
pub fn how(effort: Effort) -> String {
    format!(
        "Every figure is the median of {} interleaved pairs of runs, with the interval that holds it with 95 %. \
         Images of {} MiB, one a server, in the page cache; a sequential run moves {} MiB with four requests in \
         flight. The client is the same for all; \"no NBD\" is the client straight on the file, one request at a \
         time. CPU time is that of the server with all its threads (of the client for \"no NBD\").",
        effort.pairs,
        effort.image_bytes >> 20,
        effort.sequential_bytes >> 20,
    )
}
