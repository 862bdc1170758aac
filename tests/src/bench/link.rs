//! The link by itself: its goodput beside one BBR stream of iperf3, and what cuts, encryption and limits cost.
//!
//! ```text
//! site A: link-end send ═══ router with netem: 200 Mbit/s, 50 ms ═══ site B: link-end listen
//!         iperf3 -C bbr ═══════════════════ (the same) ═════════════ iperf3 -s
//! ```
//!
//! Pairs are interleaved; a run's rate is that of its second half.

pub mod end;
pub mod clear;

use std::env::current_exe;
use std::path::PathBuf;
use std::time::Duration;

use serde_json::Value;

use crate::requires::{Missing, program};
use crate::scratch::Scratch;
use crate::site::Inmate;
use crate::wait::{PATIENCE, rest, wait_until};
use crate::wan::{End, WanProfile};
use crate::world::{Plan, World};

use super::report::{Table, at_least, at_most, figure};
use super::statistics::{Median, median, ratios};
use end::{Order, Sent, introduce};

/// How much is measured.
#[derive(Debug, Clone, Copy)]
pub struct Effort {
    /// Pairs of runs.
    pub pairs: usize,
    /// Seconds of a run.
    pub seconds: u64,
    /// Bytes of a transfer that is cut, and of one on loopback.
    pub bytes: u64,
}

impl Effort {
    /// For figures.
    pub const FULL: Self = Self { pairs: 5, seconds: 10, bytes: 100_000_000 };
    /// To see that it runs.
    pub const QUICK: Self = Self { pairs: 1, seconds: 4, bytes: 60_000_000 };
}

/// The link under test.
const RATE_MBIT: u32 = 200;
const ROUND_TRIP: Duration = Duration::from_millis(50);
/// One over which more is under way than the kernel lets a connection have by itself.
const LONG_RATE_MBIT: u32 = 150;
const LONG_ROUND_TRIP: Duration = Duration::from_millis(300);
/// Where the listening end is.
const PORT: u16 = 7700;
const IPERF_PORT: &str = "5201";

/// Under which conditions.
pub fn how(effort: Effort) -> String {
    format!(
        "One disk's channel, filled with one byte (the link does not compress), over a router with netem that loses \
         packets both ways; {} interleaved pairs of {} s, each judged by its second half. iperf3 sends one stream \
         with BBR through the same router. On loopback {} MB go through the link, and through the same session over \
         plain TCP. With few pairs the interval is simply the smallest and the largest.",
        effort.pairs,
        effort.seconds,
        4 * effort.bytes / 1_000_000,
    )
}

/// All of it.
pub fn run(effort: Effort) -> Result<Vec<Table>, Missing> {
    program("iperf3")?;
    let mut costs = Table::new("What else the link costs", "figure | wanted | measured | verdict");
    let lab = Course::new(WanProfile::new(RATE_MBIT, ROUND_TRIP))?;
    let goodput = lab.goodputs(RATE_MBIT, ROUND_TRIP, &[0.0, 0.1, 1.0], effort);
    let long = lab.goodputs(LONG_RATE_MBIT, LONG_ROUND_TRIP, &[0.0, 1.0], effort);
    lab.world.wan.set(WanProfile::new(RATE_MBIT, ROUND_TRIP));
    costs.row(lab.cut(effort));
    for row in lab.limits(effort) {
        costs.row(row);
    }
    drop(lab);
    loopback(effort).into_iter().for_each(|row| costs.row(row));
    Ok(vec![goodput, long, costs])
}

/// Two ends in a world.
struct Course {
    program: PathBuf,
    // Before the world that they are in.
    _far: Inmate,
    _iperf: Inmate,
    world: World,
}

impl Course {
    fn new(profile: WanProfile) -> Result<Self, Missing> {
        let program = current_exe().expect("this program has a path");
        let folder = program.parent().expect("it lies somewhere").to_owned();
        let plan = Plan { profile: Some(profile), shared: vec![folder], ..Plan::default() };
        let world = World::with(plan)?;
        introduce(&world.site_a.join("link"), &world.site_b.join("link"));
        let state_dir = world.site_b.inside("link").display().to_string();
        let at = format!("{}:{PORT}", End::SiteB.address());
        let far = world.site_b.start(&program, ["link-end", "listen", &state_dir, &at], "far.log");
        wait_until(PATIENCE, "the far end of the link", || far.log().contains("listening"));
        let iperf = world.site_b.start("iperf3", ["-s", "--forceflush", "-p", IPERF_PORT], "iperf3.log");
        wait_until(PATIENCE, "iperf3", || iperf.log().contains("listening"));
        Ok(Self { program, _far: far, _iperf: iperf, world })
    }

    /// Words that send by an order.
    fn words(&self, order: &Order) -> [String; 5] {
        let state_dir = self.world.site_a.inside("link").display().to_string();
        let at = format!("{}:{PORT}", End::SiteB.address());
        let order = serde_json::to_string(order).expect("plain values");
        ["link-end".to_owned(), "send".to_owned(), state_dir, at, order]
    }

    fn send(&self, order: &Order) -> Sent {
        let said = self.world.site_a.tool(&self.program).args(self.words(order)).run();
        serde_json::from_str(&said).unwrap_or_else(|error| panic!("{error} in {said:?}"))
    }

    /// Mbit/s of one stream of iperf3.
    fn iperf(&self, effort: Effort) -> f64 {
        let (seconds, omitted) = ((effort.seconds / 2).to_string(), (effort.seconds / 2).to_string());
        let words =
            ["-c", End::SiteB.address(), "-p", IPERF_PORT, "-C", "bbr", "-J", "-t", &seconds, "-O", &omitted];
        let said: Value = serde_json::from_str(&self.world.site_a.tool("iperf3").args(words).run())
            .expect("iperf3 says JSON");
        said["end"]["sum_received"]["bits_per_second"].as_f64().expect("a rate") / 1e6
    }

    fn link(&self, effort: Effort, congestion_control: &str) -> f64 {
        let seconds = effort.seconds as f64;
        let order = Order { seconds, congestion_control: congestion_control.to_owned(), ..Order::default() };
        let sent = self.send(&order);
        eprintln!("{} frames' bytes, {}", sent.frame_bytes, sent.congestion_control);
        sent.rate(seconds / 2.0, seconds) * 8.0 / 1e6
    }

    /// Over a way of this rate and round trip.
    fn goodputs(&self, rate_mbit: u32, round_trip: Duration, losses: &[f64], effort: Effort) -> Table {
        let mut table = Table::new(
            &format!("Goodput of the link, {rate_mbit} Mbit/s, {} ms there and back", round_trip.as_millis()),
            "loss each way | link, Mbit/s | iperf3 with BBR | ratio | wanted | verdict | 8 connections with cubic, Mbit/s",
        );
        for &loss in losses {
            self.world.wan.set(WanProfile::new(rate_mbit, round_trip).lossy(loss));
            table.row(self.goodput(loss, effort));
        }
        table
    }

    fn goodput(&self, loss: f64, effort: Effort) -> Vec<String> {
        let (mut ours, mut theirs) = (Vec::new(), Vec::new());
        for round in 0..effort.pairs {
            // Each begins as often as the other.
            for turn in 0..2 {
                match (round + turn) % 2 {
                    0 => ours.push(self.link(effort, "bbr")),
                    _ => theirs.push(self.iperf(effort)),
                }
            }
            eprintln!("{loss} %: link {:?}, iperf3 {:?} Mbit/s", ours.last(), theirs.last());
        }
        let ratio = median(&ratios(&ours, &theirs));
        let striped = self.link(effort, "cubic");
        vec![
            format!("{loss} %"),
            figure(median(&ours)),
            figure(median(&theirs)),
            figure(ratio),
            "≥ 0.95".to_owned(),
            at_least(ratio, 0.95).to_string(),
            format!("{striped:.1}"),
        ]
    }

    /// Bytes that go twice when the link is cut in the middle of a transfer.
    fn cut(&self, effort: Effort) -> Vec<String> {
        let order = Order { bytes: effort.bytes, ..Order::default() };
        let again: Vec<f64> = (0..effort.pairs)
            .map(|_| {
                let whole = self.send(&order).frame_bytes as f64;
                let mut sending = self.world.site_a.start(&self.program, self.words(&order), "cut.log");
                let before = self.world.wan.passed(End::SiteB).to_end_bytes;
                let passed = || self.world.wan.passed(End::SiteB).to_end_bytes - before;
                wait_until(PATIENCE, "half of a transfer", || passed() > effort.bytes / 2);
                self.world.wan.cut(End::SiteB);
                rest(Duration::from_secs(4));
                self.world.wan.restore(End::SiteB);
                wait_until(PATIENCE, "the end of a transfer", || sending.ended().is_some());
                let log = sending.log();
                let sent: Sent =
                    serde_json::from_str(log.lines().last().unwrap_or_default()).expect("a Sent");
                std::fs::remove_file(self.world.site_a.join("cut.log")).expect("it was written");
                let (took_s, _) = *sent.arrived.last().expect("a look");
                assert!(took_s > 4.0, "the transfer was over before the cut: {took_s} s");
                (sent.frame_bytes as f64 - whole) / 1e6
            })
            .collect();
        let again = median(&again);
        let product = f64::from(RATE_MBIT) / 8.0 * ROUND_TRIP.as_secs_f64();
        // The window is twice the product, which netem's queue may double.
        let window = 4.0 * product;
        vec![
            format!("bytes sent again after a cut of 4 s, MB (a bandwidth-delay product is {product:.2})"),
            format!("≤ {window:.0}, one window"),
            figure(again),
            at_most(again, window).to_string(),
        ]
    }

    /// How soon a new limit is followed, up and down.
    fn limits(&self, effort: Effort) -> Vec<Vec<String>> {
        const HIGH: u64 = 12_500_000;
        const LOW: u64 = 2_500_000;
        let limits = vec![(0.0, Some(HIGH)), (5.0, Some(LOW)), (10.0, Some(HIGH))];
        let order = Order { seconds: 15.0, limits, ..Order::default() };
        let runs: Vec<Sent> = (0..effort.pairs).map(|_| self.send(&order)).collect();
        [("down, 100 to 20", 5.0, LOW), ("up, 20 to 100", 10.0, HIGH)]
            .map(|(name, from, wanted)| {
                let took: Vec<f64> = runs.iter().map(|sent| settled(sent, from, wanted as f64)).collect();
                let took = median(&took);
                let name = format!("seconds until a new bandwidth is kept within 10 %, {name} Mbit/s");
                vec![name, "≤ 2".to_owned(), figure(took), at_most(took, 2.0).to_string()]
            })
            .to_vec()
    }
}

/// Seconds after `from` from which on every half second until the next change has the rate within 10 %.
fn settled(sent: &Sent, from: f64, wanted: f64) -> f64 {
    let is_off = |at: &f64| (sent.rate(from + at, from + at + 0.5) / wanted - 1.0).abs() > 0.1;
    let mut last_first = (0..45).rev().map(|step| f64::from(step) / 10.0);
    last_first.find(is_off).map_or(0.0, |last| last + 0.1)
}

/// Encrypted against clear, and CPU time, without a network between.
fn loopback(effort: Effort) -> Vec<Vec<String>> {
    let scratch = Scratch::new();
    let dirs = [scratch.join("near"), scratch.join("far")];
    introduce(&dirs[0], &dirs[1]);
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    let runtime = runtime.expect("threads");
    let at = "127.0.0.1:7799".parse().expect("an address");
    let far = dirs[1].clone();
    runtime.spawn(async move { end::listen(&far, at).await });
    wait_until(PATIENCE, "the far end", || std::net::TcpStream::connect(at).is_ok());
    let bytes = 4 * effort.bytes;
    let (mut encrypted, mut clear, mut cpu) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..effort.pairs {
        let order = Order { bytes, ..Order::default() };
        let sent = runtime.block_on(end::send(&dirs[0], at, &order));
        let (seconds, arrived) = *sent.arrived.last().expect("a look");
        encrypted.push(arrived as f64 / seconds);
        cpu.push(sent.cpu_s / (arrived as f64 / 1e9));
        clear.push(clear::rate(bytes));
        eprintln!("loopback: {:?}, {:?} bytes a second", encrypted.last(), clear.last());
    }
    let ratio = median(&ratios(&encrypted, &clear));
    let per_s =
        |rates: &[f64]| -> Median { median(&rates.iter().map(|rate| rate / 1e6).collect::<Vec<_>>()) };
    let name = format!(
        "encrypted over clear on loopback ({} over {} MB/s)",
        figure(per_s(&encrypted)),
        figure(per_s(&clear))
    );
    let both = "CPU seconds for each GB through the link, both ends";
    vec![
        vec![name, "≥ 0.7".to_owned(), figure(ratio), at_least(ratio, 0.7).to_string()],
        vec![both.to_owned(), "–".to_owned(), figure(median(&cpu)), "–".to_owned()],
    ]
}
