//! Writes numbered blocks, each durable before the next begins, and tells its clients which are.
//!
//! ```text
//! thread:   wait for its turn ─► write block n (O_DIRECT) ─► fdatasync ─► acknowledged = n ─► wake the clients
//! client:   the number of now, then every later one, one a line (a slow client falls behind, the writer never)
//! ```
//!
//! After a reboot it goes on with the number that the disk holds.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use crate::console::say;
use crate::numbered::{BLOCK_BYTES, claimed, slot_of, stamp};

/// `O_DIRECT` on x86-64 and most others.
const O_DIRECT: i32 = 0o40000;

/// O_DIRECT wants memory that is aligned as the disk's blocks are.
#[repr(align(4096))]
struct Aligned([u8; BLOCK_BYTES]);

/// How to write.
#[derive(Clone, Copy, Debug)]
pub struct Orders {
    /// Writes per second; 0: as fast as the disk goes.
    pub rate: u64,
    /// Writes that come in one go; the average rate stays as it is.
    pub burst: u64,
    /// Places of blocks, a power of two; settled by the first start.
    pub slots: u64,
}

#[derive(Debug)]
struct State {
    orders: Orders,
    is_running: bool,
    is_writing: bool,
    acknowledged: u64,
    failed: Option<String>,
    // Where this round of bursts began, and the writes since.
    begun: (Instant, u64),
}

/// The writer of one disk.
#[derive(Debug)]
pub struct Writer {
    /// What commands call it.
    pub name: char,
    path: &'static str,
    state: Mutex<State>,
    changed: Condvar,
}

impl Writer {
    /// An idle writer for the file or device at `path`.
    pub fn start(name: char, path: &'static str) -> Arc<Self> {
        let state = State {
            orders: Orders { rate: 0, burst: 1, slots: 0 },
            is_running: false,
            is_writing: false,
            acknowledged: 0,
            failed: None,
            begun: (Instant::now(), 0),
        };
        let writer = Arc::new(Self { name, path, state: Mutex::new(state), changed: Condvar::new() });
        let worker = Arc::clone(&writer);
        thread::spawn(move || {
            if let Err(error) = worker.write() {
                say(&format!("writer {} failed: {error}", worker.name));
                worker.state().failed = Some(error.to_string());
                worker.changed.notify_all();
            }
        });
        writer
    }

    /// Write from now on, by `change` of the orders of before.
    pub fn run(&self, change: impl FnOnce(&mut Orders)) -> String {
        let mut state = self.state();
        let mut orders = state.orders;
        change(&mut orders);
        if !orders.slots.is_power_of_two() || orders.burst == 0 {
            return format!("error {orders:?}: slots must be a power of two, burst not 0");
        }
        if state.orders.slots != 0 && orders.slots != state.orders.slots {
            return format!("error the slots are settled: {}", state.orders.slots);
        }
        state.orders = orders;
        state.is_running = true;
        state.begun = (Instant::now(), 0);
        drop(state);
        self.changed.notify_all();
        self.describe()
    }

    /// Stop, and come back when the write that was under way is acknowledged.
    pub fn stop(&self) -> String {
        let mut state = self.state();
        state.is_running = false;
        self.changed.notify_all();
        while state.is_writing && state.failed.is_none() {
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        drop(state);
        self.describe()
    }

    /// What it does, in one line.
    pub fn describe(&self) -> String {
        let state = self.state();
        if let Some(error) = &state.failed {
            return format!("error writer {}: {error}", self.name);
        }
        let Orders { rate, burst, slots } = state.orders;
        let (disk, running, acknowledged) = (self.name, state.is_running, state.acknowledged);
        format!(
            "ok disk={disk} running={running} acknowledged={acknowledged} rate={rate} burst={burst} slots={slots}"
        )
    }

    /// Tell one client every number, until it goes away.
    pub fn tell(&self, mut client: &TcpStream) -> io::Result<()> {
        let mut told = self.state().acknowledged;
        client.write_all(format!("{told}\n").as_bytes())?;
        loop {
            let mut state = self.state();
            while state.acknowledged == told {
                state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
            }
            let reached = state.acknowledged;
            drop(state);
            let lines: String = (told + 1..=reached).map(|number| format!("{number}\n")).collect();
            client.write_all(lines.as_bytes())?;
            told = reached;
        }
    }

    fn write(&self) -> io::Result<()> {
        let slots = self.turn().slots;
        let mut number = newest(self.path, slots)?;
        self.state().acknowledged = number;
        let mut options = OpenOptions::new();
        let file = options.write(true).create(true).truncate(false).custom_flags(O_DIRECT).open(self.path)?;
        let mut block = Box::new(Aligned([0; BLOCK_BYTES]));
        loop {
            number += 1;
            stamp(&mut block.0, number);
            file.write_all_at(&block.0, slot_of(number, slots) * BLOCK_BYTES as u64)?;
            file.sync_data()?;
            let mut state = self.state();
            state.acknowledged = number;
            state.is_writing = false;
            drop(state);
            self.changed.notify_all();
            self.turn();
        }
    }

    /// Wait until the orders want a write.
    fn turn(&self) -> Orders {
        let mut state = self.state();
        loop {
            let due = state.due();
            match due {
                Some(wait) if wait.is_zero() => break,
                Some(wait) => {
                    state = self.changed.wait_timeout(state, wait).unwrap_or_else(PoisonError::into_inner).0
                }
                None => state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner),
            }
        }
        state.begun.1 += 1;
        state.is_writing = true;
        state.orders
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// How long the next write has to wait; none while it is stopped.
    fn due(&self) -> Option<Duration> {
        if !self.is_running {
            return None;
        }
        let Orders { rate, burst, .. } = self.orders;
        if rate == 0 {
            return Some(Duration::ZERO);
        }
        let (begin, written) = self.begun;
        let bursts = written / burst;
        let at = begin + Duration::from_secs_f64((bursts * burst) as f64 / rate as f64);
        Some(at.saturating_duration_since(Instant::now()))
    }
}

/// The number that the disk has reached.
fn newest(path: &str, slots: u64) -> io::Result<u64> {
    let mut file = match File::open(path) {
        Ok(file) => file.take(slots * BLOCK_BYTES as u64),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(0),
        Err(error) => return Err(error),
    };
    let mut newest = 0;
    let mut blocks = Vec::new();
    while file.by_ref().take(256 * BLOCK_BYTES as u64).read_to_end(&mut blocks)? > 0 {
        newest = newest.max(claimed(&blocks));
        blocks.clear();
    }
    Ok(newest)
}
