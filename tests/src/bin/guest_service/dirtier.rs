//! Dirties memory at a set rate with a pattern that can be verified.
//!
//! ```text
//! page p, version v   = numbered block (p << 32 | v): it says which page and which version it is, and has a check
//! versions[p]         = v, kept elsewhere: so a page that went back to an older version shows too
//! ```

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use crate::numbered::{BLOCK_BYTES, number_of, stamp};

/// Pages that are dirtied in one go at most, so that a check gets its turn.
const BATCH: u64 = 256;

#[repr(align(4096))]
struct Page([u8; BLOCK_BYTES]);

/// What to dirty.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Orders {
    /// Memory that holds the pattern.
    pub mib: u64,
    /// Pages a second.
    pub rate: u64,
    /// The part of it that is written again and again, in MiB; 0: all.
    pub working_mib: u64,
}

#[derive(Default)]
struct Area {
    orders: Orders,
    is_running: bool,
    pages: Vec<Page>,
    versions: Vec<u32>,
    // Writes since the pattern was laid down, those since the orders changed, and when that was.
    dirtied: u64,
    round: u64,
    begin: Option<Instant>,
}

/// The pattern, and who changes it.
pub struct Dirtier {
    area: Mutex<Area>,
    changed: Condvar,
}

impl Dirtier {
    /// An idle one without memory.
    pub fn start() -> Arc<Self> {
        let dirtier = Arc::new(Self { area: Mutex::default(), changed: Condvar::new() });
        let worker = Arc::clone(&dirtier);
        thread::spawn(move || worker.work());
        dirtier
    }

    /// Dirty from now on, by `change` of the orders of before.
    pub fn run(&self, change: impl FnOnce(&mut Orders)) -> String {
        let mut area = self.area();
        let mut orders = area.orders;
        change(&mut orders);
        if orders.mib == 0 || orders.working_mib > orders.mib {
            return format!("error {orders:?}: mib must not be 0, and working not more than it");
        }
        if let Err(why) = area.lay(orders.mib) {
            return format!("error {why}");
        }
        area.orders = orders;
        area.is_running = orders.rate > 0;
        (area.begin, area.round) = (Some(Instant::now()), 0);
        let answer = area.describe();
        drop(area);
        self.changed.notify_all();
        answer
    }

    /// Leave the pattern as it is.
    pub fn stop(&self) -> String {
        let mut area = self.area();
        area.is_running = false;
        area.describe()
    }

    /// What it does, in one line.
    pub fn describe(&self) -> String {
        self.area().describe()
    }

    /// Verify every page.
    pub fn check(&self) -> String {
        self.area().check()
    }

    fn work(&self) {
        let mut area = self.area();
        loop {
            let due = area.due();
            for _ in 0..due.min(BATCH) {
                area.dirty();
            }
            area = match (area.is_running, due > BATCH) {
                // Others wait for the lock.
                (true, true) => {
                    drop(area);
                    thread::yield_now();
                    self.area()
                }
                (true, false) => {
                    let pause = Duration::from_millis(10);
                    self.changed.wait_timeout(area, pause).unwrap_or_else(PoisonError::into_inner).0
                }
                (false, _) => self.changed.wait(area).unwrap_or_else(PoisonError::into_inner),
            };
        }
    }

    fn area(&self) -> MutexGuard<'_, Area> {
        self.area.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Area {
    /// Lay the pattern down, unless it has that size already.
    fn lay(&mut self, mib: u64) -> Result<(), String> {
        let pages = (mib << 20) as usize / BLOCK_BYTES;
        if pages == self.pages.len() {
            return Ok(());
        }
        (self.pages, self.versions, self.dirtied) = (Vec::new(), vec![1; pages], 0);
        self.pages.try_reserve_exact(pages).map_err(|error| error.to_string())?;
        for page in 0..pages {
            self.pages.push(Page([0; BLOCK_BYTES]));
            stamp(&mut self.pages[page].0, number(page, 1));
        }
        Ok(())
    }

    /// Writes that should have happened by now and have not.
    fn due(&self) -> u64 {
        let Some(begin) = self.begin.filter(|_| self.is_running) else { return 0 };
        let wanted = begin.elapsed().as_secs_f64() * self.orders.rate as f64;
        (wanted as u64).saturating_sub(self.round)
    }

    fn dirty(&mut self) {
        let mib = if self.orders.working_mib == 0 { self.orders.mib } else { self.orders.working_mib };
        let working = (mib << 20) / BLOCK_BYTES as u64;
        let page = (self.dirtied % working) as usize;
        self.versions[page] += 1;
        stamp(&mut self.pages[page].0, number(page, self.versions[page]));
        self.dirtied += 1;
        self.round += 1;
    }

    fn describe(&self) -> String {
        let Orders { mib, rate, working_mib } = self.orders;
        let (running, pages, dirtied) = (self.is_running, self.pages.len(), self.dirtied);
        format!(
            "ok running={running} mib={mib} rate={rate} working={working_mib} pages={pages} dirtied={dirtied}"
        )
    }

    fn check(&self) -> String {
        for (page, (content, version)) in self.pages.iter().zip(&self.versions).enumerate() {
            let wanted = number(page, *version);
            match number_of(&content.0) {
                Ok(Some(found)) if found == wanted => {}
                Ok(found) => {
                    let found = found.map(|found| (found >> 32, found as u32));
                    return format!(
                        "bad page={page} version={version} but it holds (page, version) {found:?}"
                    );
                }
                Err(why) => return format!("bad page={page} version={version}: {why}"),
            }
        }
        let versions: u64 = self.versions.iter().map(|version| u64::from(*version) - 1).sum();
        if versions != self.dirtied {
            return format!("bad versions={versions} but dirtied={}", self.dirtied);
        }
        format!("ok pages={} versions={versions}", self.pages.len())
    }
}

fn number(page: usize, version: u32) -> u64 {
    (page as u64) << 32 | u64::from(version)
}
