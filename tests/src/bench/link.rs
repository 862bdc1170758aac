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
pub mod tables;

use std::cell::OnceCell;
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

use super::record::{Figure, OURS, Part};
use super::session::{Asked, Session};
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
    /// Seconds of a cut.
    pub cut_s: u64,
    /// Seconds for which each of three bandwidths holds.
    pub hold_s: u64,
    /// Ways over which the goodput is measured.
    ways: &'static [Way],
}

impl Effort {
    /// For figures.
    pub const FULL: Self =
        Self { pairs: 5, seconds: 10, bytes: 100_000_000, cut_s: 4, hold_s: 5, ways: &WAYS };
    /// To see that it runs.
    pub const QUICK: Self =
        Self { pairs: 1, seconds: 1, bytes: 60_000_000, cut_s: 1, hold_s: 1, ways: &[WAYS[1], WAYS[4]] };
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

/// The peers, as the records name them.
const IPERF: &str = "iperf3 with BBR";
const CLEAR: &str = "plain TCP";

const GOODPUT: &str = "goodput";
const AGAIN: &str = "bytes sent again";
const DOWN: &str = "time until a new bandwidth is kept, down";
const UP: &str = "time until a new bandwidth is kept, up";
const RATE: &str = "rate";
const CPU: &str = "CPU time of both ends";

/// The courses, as the records name them.
const LIMITS: &str = "new bandwidths";
const LOOPBACK: &str = "loopback";

fn goodput_name((rate_mbit, round_trip, loss): Way) -> String {
    format!("{rate_mbit} Mbit/s, {} ms, {loss} % lost", round_trip.as_millis())
}

fn striped_name(way: Way) -> String {
    goodput_name(way) + ", 8 connections with cubic"
}

fn cut_name(effort: Effort) -> String {
    format!("cut of {} s", effort.cut_s)
}

/// A way: Mbit/s, round trip, per cent of the packets that are lost in each direction.
type Way = (u32, Duration, f64);

/// All of them.
const WAYS: [Way; 5] = [
    (RATE_MBIT, ROUND_TRIP, 0.0),
    (RATE_MBIT, ROUND_TRIP, 0.1),
    (RATE_MBIT, ROUND_TRIP, 1.0),
    (LONG_RATE_MBIT, LONG_ROUND_TRIP, 0.0),
    (LONG_RATE_MBIT, LONG_ROUND_TRIP, 1.0),
];

/// The limits that are set one after the other, in bytes a second.
const HIGH: u64 = 12_500_000;
const LOW: u64 = 2_500_000;

/// Measure what is lacking.
pub fn measure(session: &mut Session, effort: Effort) -> Result<(), Missing> {
    program("iperf3")?;
    let lab = OnceCell::new();
    for way in effort.ways {
        measure_goodput(session, &lab, *way, effort)?;
    }
    let plain = || Course::on(&lab, (RATE_MBIT, ROUND_TRIP, 0.0));
    let conditions = format!("{RATE_MBIT} Mbit/s, {} ms, {} bytes", ROUND_TRIP.as_millis(), effort.bytes);
    session.course(asked(&cut_name(effort), &conditions, effort.pairs), plain, |lab, _| {
        Ok(vec![Figure::less(OURS, AGAIN, "MB", lab.cut(effort))].into())
    })?;
    let conditions = format!("100, 20 and 100 Mbit/s, each for {} s", effort.hold_s);
    session
        .course(asked(LIMITS, &conditions, effort.pairs), plain, |lab, _| Ok(lab.limits(effort).into()))?;
    // Its router has a processor to itself no longer.
    drop(lab);
    measure_loopback(session, effort)
}

fn asked(course: &str, conditions: &str, pairs: usize) -> Asked {
    Asked { part: Part::Link, course: course.to_owned(), conditions: conditions.to_owned(), pairs }
}

fn measure_goodput(
    session: &mut Session,
    lab: &OnceCell<Course>,
    way: Way,
    effort: Effort,
) -> Result<(), Missing> {
    let conditions = format!("{} s, judged by the second half", effort.seconds);
    session.course(
        asked(&goodput_name(way), &conditions, effort.pairs),
        || Course::on(lab, way),
        |lab, pair| {
            // Each begins as often as the other.
            let turns = (0..2).map(|turn| match (pair - 1 + turn) % 2 {
                0 => Figure::more(OURS, GOODPUT, "Mbit/s", lab.link(effort, "bbr")),
                _ => Figure::more(IPERF, GOODPUT, "Mbit/s", lab.iperf(effort)),
            });
            Ok(turns.collect::<Vec<_>>().into())
        },
    )?;
    session.course(
        asked(&striped_name(way), &conditions, 1),
        || Course::on(lab, way),
        |lab, _| Ok(vec![Figure::more(OURS, GOODPUT, "Mbit/s", lab.link(effort, "cubic"))].into()),
    )
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
    /// The one that there is, or a new one, with links like this.
    fn on(lab: &OnceCell<Self>, (rate_mbit, round_trip, loss): Way) -> Result<&Self, Missing> {
        let profile = WanProfile::new(rate_mbit, round_trip).lossy(loss);
        if lab.get().is_none() {
            // Nobody else fills it.
            let _ = lab.set(Self::new(profile)?);
        }
        let course = lab.get().expect("it was made");
        course.world.wan.set(profile);
        Ok(course)
    }

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
        let half = effort.seconds / 2;
        // No seconds would be for ever.
        let (seconds, omitted) = (half.max(1).to_string(), half.to_string());
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

    /// Megabytes that go twice when the link is cut in the middle of a transfer.
    fn cut(&self, effort: Effort) -> f64 {
        let order = Order { bytes: effort.bytes, ..Order::default() };
        let whole = self.send(&order).frame_bytes as f64;
        let mut sending = self.world.site_a.start(&self.program, self.words(&order), "cut.log");
        let before = self.world.wan.passed(End::SiteB).to_end_bytes;
        let passed = || self.world.wan.passed(End::SiteB).to_end_bytes - before;
        wait_until(PATIENCE, "half of a transfer", || passed() > effort.bytes / 2);
        self.world.wan.cut(End::SiteB);
        rest(Duration::from_secs(effort.cut_s));
        self.world.wan.restore(End::SiteB);
        wait_until(PATIENCE, "the end of a transfer", || sending.ended().is_some());
        let log = sending.log();
        let sent: Sent = serde_json::from_str(log.lines().last().unwrap_or_default()).expect("a Sent");
        std::fs::remove_file(self.world.site_a.join("cut.log")).expect("it was written");
        let (took_s, _) = *sent.arrived.last().expect("a look");
        assert!(took_s > effort.cut_s as f64, "the transfer was over before the cut: {took_s} s");
        (sent.frame_bytes as f64 - whole) / 1e6
    }

    /// How soon a new limit is followed, up and down.
    fn limits(&self, effort: Effort) -> Vec<Figure> {
        let hold = effort.hold_s as f64;
        let limits = vec![(0.0, Some(HIGH)), (hold, Some(LOW)), (2.0 * hold, Some(HIGH))];
        let sent = self.send(&Order { seconds: 3.0 * hold, limits, ..Order::default() });
        let took = |from, wanted| settled(&sent, from, wanted as f64, hold);
        vec![
            Figure::less(OURS, DOWN, "s", took(hold, LOW)),
            Figure::less(OURS, UP, "s", took(2.0 * hold, HIGH)),
        ]
    }
}

/// Seconds after `from` from which on every half second until the next change has the rate within 10 %.
fn settled(sent: &Sent, from: f64, wanted: f64, hold: f64) -> f64 {
    let is_off = |at: &f64| (sent.rate(from + at, from + at + 0.5) / wanted - 1.0).abs() > 0.1;
    let steps = ((hold - 0.5) * 10.0) as u32;
    let mut last_first = (0..steps).rev().map(|step| f64::from(step) / 10.0);
    last_first.find(is_off).map_or(0.0, |last| last + 0.1)
}

/// Encrypted against clear, and CPU time, without a network between.
fn measure_loopback(session: &mut Session, effort: Effort) -> Result<(), Missing> {
    let bytes = 4 * effort.bytes;
    let at = "127.0.0.1:7799".parse().expect("an address");
    let set_up = || {
        let scratch = Scratch::new();
        let dirs = [scratch.join("near"), scratch.join("far")];
        introduce(&dirs[0], &dirs[1]);
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
        let runtime = runtime.expect("threads");
        let [near, far] = dirs;
        runtime.spawn(async move { end::listen(&far, at).await });
        wait_until(PATIENCE, "the far end", || std::net::TcpStream::connect(at).is_ok());
        Ok((runtime, near, scratch))
    };
    session.course(
        asked(LOOPBACK, &format!("{bytes} bytes"), effort.pairs),
        set_up,
        |(runtime, near, _), _| {
            let order = Order { bytes, ..Order::default() };
            let sent = runtime.block_on(end::send(near, at, &order));
            let (seconds, arrived) = *sent.arrived.last().expect("a look");
            let mb = arrived as f64 / 1e6;
            Ok(vec![
                Figure::more(OURS, RATE, "MB/s", mb / seconds),
                Figure::less(OURS, CPU, "s/GB", sent.cpu_s / (mb / 1e3)),
                Figure::more(CLEAR, RATE, "MB/s", clear::rate(bytes) / 1e6),
            ]
            .into())
        },
    )
}
