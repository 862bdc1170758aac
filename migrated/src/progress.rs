//! From successive samples of a migration to its rates, and to when it will be over.
//!
//! ```text
//! Status with counters (sent, left, deltas) ── handle_sample(now) ──► the same Status with rates and ETA
//!                                                 │
//!                            windows of 10 s ─────┘          Series: deltas by second, for the report
//! ```
//!
//! Pure: `now` is the time since any fixed instant, the same one for all calls. Says only what the last seconds say;
//! what the rates mean for the switchover is not decided here.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use crate::phase::Phase;
use crate::quantity::ms;
use crate::status::Status;

/// Over how long rates are taken.
const SPAN: Duration = Duration::from_secs(10);
/// Samples nearer to each other than this are not kept apart.
const STEP: Duration = Duration::from_millis(200);
/// A later time of arrival than this is no prediction.
const ETA_S_MAX: u64 = 7 * 24 * 3600;

/// A counter over the last seconds.
#[derive(Clone, Debug, Default)]
pub struct Window {
    samples: VecDeque<(Duration, u64)>,
}

impl Window {
    /// Takes in what the counter shows now. One that shows less than before has been started anew.
    pub fn push(&mut self, now: Duration, counter: u64) {
        if self.samples.back().is_some_and(|(_, last)| *last > counter) {
            self.samples.clear();
        }
        // The last sample moves along until it is a step away from the one before it.
        if let [.., (before, _), last] = self.samples.make_contiguous()
            && last.0.saturating_sub(*before) < STEP
        {
            *last = (now, counter);
        } else {
            self.samples.push_back((now, counter));
        }
        // One sample that is older than the span stays: the span begins between it and the next.
        while self.samples.len() > 2 && now.saturating_sub(self.samples[1].0) >= SPAN {
            self.samples.pop_front();
        }
    }

    /// How much it grows in a second; 0 as long as nothing can be said.
    pub fn rate_per_s(&self) -> u64 {
        let (Some((from, first)), Some((to, last))) = (self.samples.front(), self.samples.back()) else {
            return 0;
        };
        let ms = to.saturating_sub(*from).as_millis();
        if ms == 0 {
            return 0;
        }
        u64::try_from(u128::from(last - first) * 1000 / ms).unwrap_or(u64::MAX)
    }
}

/// How what is left shrinks over the last seconds.
#[derive(Clone, Debug, Default)]
struct Shrinking {
    samples: VecDeque<(Duration, u64)>,
}

impl Shrinking {
    fn push(&mut self, now: Duration, left: u64) {
        self.samples.push_back((now, left));
        while self.samples.len() > 2 && now.saturating_sub(self.samples[1].0) >= SPAN {
            self.samples.pop_front();
        }
    }

    /// Seconds until nothing is left, if it goes on like this; none: it does not get less.
    fn eta_s(&self) -> Option<u64> {
        let ((from, first), (to, left)) = (self.samples.front()?, self.samples.back()?);
        let ms = to.saturating_sub(*from).as_millis();
        let less = u128::from(first.checked_sub(*left)?);
        if ms == 0 || less == 0 {
            return None;
        }
        let seconds = (u128::from(*left) * ms).div_ceil(less * 1000);
        u64::try_from(seconds).ok().filter(|seconds| *seconds <= ETA_S_MAX)
    }
}

/// The rates of one migration.
#[derive(Clone, Debug, Default)]
pub struct Progress {
    began: Option<Duration>,
    phase: Option<(Phase, Duration)>,
    disks: BTreeMap<String, Window>,
    ram: Window,
    left: Shrinking,
}

impl Progress {
    /// Fills in what follows from the counters of `status` and of those before: times, rates, ETA.
    pub fn handle_sample(&mut self, now: Duration, status: &mut Status) {
        let began = *self.began.get_or_insert(now);
        if self.phase.is_none_or(|(phase, _)| phase != status.phase) {
            self.phase = Some((status.phase, now));
        }
        let phase_began = self.phase.map_or(now, |(_, since)| since);
        status.elapsed_ms = ms(now.saturating_sub(began));
        status.phase_elapsed_ms = ms(now.saturating_sub(phase_began));
        for disk in &mut status.disks {
            let window = self.disks.entry(disk.id.clone()).or_default();
            window.push(now, disk.sent_bytes);
            disk.rate_bytes_per_s = window.rate_per_s();
        }
        self.ram.push(now, status.ram.sent_bytes);
        status.ram.rate_bytes_per_s = self.ram.rate_per_s();
        self.left.push(now, left_bytes(status));
        status.eta_s = match status.phase {
            Phase::Bulk | Phase::PreCopy | Phase::StopAndCopy => self.left.eta_s(),
            _ => None,
        };
    }
}

/// What has to go over before the guest can run there: what the disks lack, and the memory, all of it before its
/// first pass. Memory counts uncompressed, so an ETA is rather too late than too early.
fn left_bytes(status: &Status) -> u64 {
    let disks: u64 = status.disks.iter().map(|disk| disk.left_bytes).sum();
    let ram = if status.ram.passes == 0 { status.ram.total_bytes } else { status.ram.left_bytes };
    disks.saturating_add(ram)
}

/// How much a counter grew in each step of time, in a bounded number of steps: when they are full, two become one.
#[derive(Clone, Debug)]
pub struct Series {
    began: Duration,
    counter: u64,
    step_s: u64,
    steps: Vec<u64>,
}

/// The most steps of a series.
const STEPS_MAX: usize = 512;

impl Series {
    /// An empty one that begins now, with steps of a second.
    pub fn new(now: Duration, counter: u64) -> Self {
        Self { began: now, counter, step_s: 1, steps: Vec::new() }
    }

    /// Takes in what the counter shows now.
    pub fn push(&mut self, now: Duration, counter: u64) {
        let second = now.saturating_sub(self.began).as_secs();
        while second / self.step_s >= STEPS_MAX as u64 {
            self.steps = self.steps.chunks(2).map(|pair| pair.iter().sum()).collect();
            self.step_s *= 2;
        }
        let at = usize::try_from(second / self.step_s).expect("less than STEPS_MAX");
        if self.steps.len() <= at {
            self.steps.resize(at + 1, 0);
        }
        self.steps[at] += counter.saturating_sub(self.counter);
        self.counter = counter;
    }

    /// How many seconds each step has.
    pub fn step_s(&self) -> u64 {
        self.step_s
    }

    /// The growth in each step.
    pub fn steps(&self) -> &[u64] {
        &self.steps
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::status::DiskProgress;

    fn at(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    fn sample(phase: Phase, sent_bytes: u64, left_bytes: u64) -> Status {
        let mut status = Status::new("1", "web", "a", "b");
        status.phase = phase;
        status.disks = vec![DiskProgress { id: "root".into(), sent_bytes, left_bytes, ..Default::default() }];
        status
    }

    #[test]
    fn a_rate_is_that_of_the_last_seconds() {
        let mut window = Window::default();
        for second in 0..=100 {
            window.push(at(second * 1000), second * 1000);
        }
        assert_eq!(window.rate_per_s(), 1000);
        for second in 101..=111 {
            window.push(at(second * 1000), 100_000);
        }
        assert_eq!(window.rate_per_s(), 0, "what was ten seconds ago does not count");
    }

    #[test]
    fn many_samples_in_a_short_time_neither_grow_the_window_nor_make_the_rate_jump() {
        let mut window = Window::default();
        for ms in 0..=60_000 {
            window.push(at(ms), ms);
        }
        assert!(window.samples.len() <= 53, "{}", window.samples.len());
        assert_eq!(window.rate_per_s(), 1000);
    }

    #[test]
    fn nothing_is_said_before_there_is_something_to_say() {
        let mut window = Window::default();
        assert_eq!(window.rate_per_s(), 0);
        window.push(at(5), 7);
        assert_eq!(window.rate_per_s(), 0);
        window.push(at(5), 9);
        assert_eq!(window.rate_per_s(), 0);
    }

    #[test]
    fn a_counter_that_starts_anew_is_no_negative_rate() {
        let mut window = Window::default();
        window.push(at(0), 5000);
        window.push(at(1000), 6000);
        window.push(at(2000), 10);
        window.push(at(3000), 20);
        assert_eq!(window.rate_per_s(), 10);
    }

    #[test]
    fn the_eta_is_when_what_is_left_is_gone_at_the_pace_of_the_last_seconds() {
        let mut progress = Progress::default();
        for second in 0..=5 {
            let mut status = sample(Phase::Bulk, second * 100, 1000 - second * 100);
            progress.handle_sample(at(second * 1000), &mut status);
            if second == 0 {
                assert_eq!(status.eta_s, None);
            } else {
                assert_eq!(status.eta_s, Some(10 - second));
                assert_eq!(status.disks[0].rate_bytes_per_s, 100);
            }
        }
    }

    #[test]
    fn what_does_not_get_less_has_no_eta() {
        let mut progress = Progress::default();
        for (second, left) in [(0, 500), (1, 500), (2, 900)] {
            let mut status = sample(Phase::PreCopy, 0, left);
            progress.handle_sample(at(second * 1000), &mut status);
            assert_eq!(status.eta_s, None);
        }
    }

    #[test]
    fn memory_that_has_not_begun_is_still_to_come() {
        let mut status = sample(Phase::Bulk, 0, 10);
        status.ram.total_bytes = 90;
        assert_eq!(left_bytes(&status), 100);
        status.ram.passes = 1;
        status.ram.left_bytes = 5;
        assert_eq!(left_bytes(&status), 15);
    }

    #[test]
    fn times_count_from_the_first_sample_and_from_the_phase() {
        let mut progress = Progress::default();
        let mut times = Vec::new();
        for (ms, phase) in
            [(500, Phase::Connect), (900, Phase::Connect), (1500, Phase::Bulk), (1700, Phase::Bulk)]
        {
            let mut status = sample(phase, 0, 0);
            progress.handle_sample(at(ms), &mut status);
            times.push((status.elapsed_ms, status.phase_elapsed_ms));
        }
        assert_eq!(times, [(0, 0), (400, 400), (1000, 0), (1200, 200)]);
    }

    #[test]
    fn a_series_keeps_its_sum_however_long_it_gets() {
        let mut series = Series::new(at(1000), 7);
        for second in 0..10_000 {
            series.push(at(1000 + second * 1000), 7 + second);
        }
        assert_eq!(series.steps().iter().sum::<u64>(), 9_999);
        assert_eq!(series.step_s(), 32);
        assert!(series.steps().len() <= STEPS_MAX && series.steps().len() > STEPS_MAX / 2);
        assert!(series.steps()[1..300].iter().all(|growth| *growth == 32));
    }
}
