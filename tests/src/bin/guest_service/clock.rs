//! The guest's own clock, and what it notices of a pause.
//!
//! A clock that stands still while the guest is paused shows a pause as a lag against the client's clock; one that
//! goes on shows it as a gap between two ticks. Both are told, so a test needs not know which it is (S0-01).

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

/// Time between two ticks.
const TICK: Duration = Duration::from_millis(10);

/// Time since the start of the guest's programs.
#[derive(Debug)]
pub struct Clock {
    begin: Instant,
    ticks: Arc<AtomicU64>,
    longest_gap_us: Arc<AtomicU64>,
}

impl Clock {
    /// Begin to tick.
    pub fn start() -> Self {
        let clock = Self { begin: Instant::now(), ticks: Arc::default(), longest_gap_us: Arc::default() };
        let (ticks, longest) = (Arc::clone(&clock.ticks), Arc::clone(&clock.longest_gap_us));
        thread::spawn(move || {
            let mut last = Instant::now();
            loop {
                thread::park_timeout(TICK);
                let now = Instant::now();
                longest.fetch_max((now - last).as_micros() as u64, Ordering::Relaxed);
                ticks.fetch_add(1, Ordering::Relaxed);
                last = now;
            }
        });
        clock
    }

    /// Microseconds since the start.
    pub fn now_us(&self) -> u64 {
        self.begin.elapsed().as_micros() as u64
    }

    /// The answer to `uptime`; the longest gap begins anew.
    pub fn describe(&self) -> String {
        let ticks = self.ticks.load(Ordering::Relaxed);
        let gap_us = self.longest_gap_us.swap(0, Ordering::Relaxed);
        format!("ok us={} ticks={ticks} longest_gap_us={gap_us}", self.now_us())
    }
}
