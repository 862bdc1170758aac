//! The daemon against its peers, load by load.

use crate::program::Tool;

use super::load::{Kind, Load};
use super::report::{Table, Verdict, at_least, at_most, figure};
use super::servers::{Measure, Server};
use super::statistics::{Median, median, ratios};

/// How much is run.
#[derive(Debug, Clone, Copy)]
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

/// Compare, and hand back the tables of the report.
pub fn run(servers: &[Server], effort: Effort) -> Vec<Table> {
    let speed_head =
        "load | ours, req/s | qemu-nbd | nbdkit | no NBD | times faster than the best peer | wanted |";
    let cpu_head = "load | ours, µs CPU | qemu-nbd | nbdkit | no NBD | share of the best peer's | wanted |";
    let mut speed = Table::new("Wall time", &format!("{speed_head} verdict"));
    let mut cpu = Table::new("CPU time of the server for one request", &format!("{cpu_head} verdict"));
    for (load, wanted) in loads(effort) {
        eprintln!("{}", load.name());
        let series = interleave(servers, &load, effort.pairs);
        let per_second = |run: &Measure| load.requests as f64 / run.wall_s;
        let faster = worst(&series, |ours, peer| ratios(&walls(peer), &walls(ours)), f64::min);
        let rates = series.iter().map(|runs| middle(runs, per_second)).map(|rate| format!("{rate:.0}"));
        speed.row(line(&load, rates, faster, at_least(faster, wanted), format!("≥ {wanted}")));
        let share = worst(&series, |ours, peer| ratios(&cpus(ours), &cpus(peer)), f64::max);
        let costs = series.iter().map(|runs| middle(runs, |run| run.cpu_us)).map(|us| format!("{us:.1}"));
        cpu.row(line(&load, costs, share, at_most(share, WANTED_CPU), format!("≤ {WANTED_CPU}")));
    }
    vec![speed, cpu]
}

/// Runs of every server, taken in turns; who begins changes from round to round.
fn interleave(servers: &[Server], load: &Load, pairs: usize) -> Vec<Vec<Measure>> {
    let mut series = vec![Vec::new(); servers.len()];
    for server in servers {
        server.measure(load, 0);
    }
    for round in 0..pairs {
        for turn in 0..servers.len() {
            let index = (round + turn) % servers.len();
            series[index].push(servers[index].measure(load, round as u64 + 1));
        }
    }
    series
}

/// The figure against the peer that makes it look worst: the best one.
fn worst(
    series: &[Vec<Measure>],
    compare: impl Fn(&[Measure], &[Measure]) -> Vec<f64>,
    pick: impl Fn(f64, f64) -> f64,
) -> Median {
    let (qemu, nbdkit) = (median(&compare(&series[0], &series[1])), median(&compare(&series[0], &series[2])));
    if pick(qemu.middle, nbdkit.middle) == qemu.middle { qemu } else { nbdkit }
}

fn walls(runs: &[Measure]) -> Vec<f64> {
    runs.iter().map(|run| run.wall_s).collect()
}

fn cpus(runs: &[Measure]) -> Vec<f64> {
    runs.iter().map(|run| run.cpu_us).collect()
}

fn middle(runs: &[Measure], of: impl Fn(&Measure) -> f64) -> f64 {
    median(&runs.iter().map(of).collect::<Vec<f64>>()).middle
}

fn line(
    load: &Load,
    values: impl Iterator<Item = String>,
    ratio: Median,
    verdict: Verdict,
    wanted: String,
) -> Vec<String> {
    let mut cells = vec![load.name()];
    cells.extend(values);
    cells.extend([figure(ratio), wanted, verdict.to_string()]);
    cells
}

/// The second opinion: `qemu-img bench`, which is QEMU's own client.
pub fn second_opinion(servers: &[Server], effort: Effort) -> Table {
    let mut table = Table::new(
        "Second opinion: `qemu-img bench`, seconds (median)",
        "load | blockd | qemu-nbd | nbdkit | times faster than the best peer",
    );
    for (depth, write) in [(1, false), (16, false), (64, false), (16, true)] {
        let name = format!("4 KiB {}, depth {depth}", if write { "write" } else { "read" });
        eprintln!("qemu-img bench: {name}");
        let mut series = vec![Vec::new(); 3];
        for round in 0..effort.pairs.div_ceil(2) {
            for turn in 0..3 {
                let index = (round + turn) % 3;
                series[index].push(qemu_img_bench(&servers[index], depth, write, effort.requests * 2));
            }
        }
        let times = series.iter().map(|times| format!("{:.3}", median(times).middle));
        let faster = [1, 2].map(|peer| median(&ratios(&series[peer], &series[0])));
        let best = if faster[0].middle < faster[1].middle { faster[0] } else { faster[1] };
        table.row([name].into_iter().chain(times).chain([figure(best)]).collect());
    }
    table
}

fn qemu_img_bench(server: &Server, depth: u32, write: bool, requests: usize) -> f64 {
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
