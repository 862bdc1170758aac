//! Writes from a thread that takes a lost connection as a reason to connect again.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use tests::bench::client::Client;
use tests::bench::load::{Kind, Load};
use tests::wait::{PATIENCE, rest, wait_until};

/// Writes in one go.
const ROUND: usize = 64;

/// Random 4 KiB writes, 16 in flight, until it is stopped.
pub struct Writes {
    stop: Arc<AtomicBool>,
    done: Arc<AtomicU64>,
    thread: Option<JoinHandle<()>>,
}

impl Writes {
    /// Begin to write to the export at `socket`.
    pub fn begin(socket: &Path) -> Self {
        let (stop, done) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let (socket, ours, count) = (socket.to_owned(), Arc::clone(&stop), Arc::clone(&done));
        let thread = thread::spawn(move || write_until(&ours, &count, &socket));
        Self { stop, done, thread: Some(thread) }
    }

    /// Wait until `more` further writes are acknowledged.
    pub fn wait_for(&self, more: u64) {
        let goal = self.done.load(Ordering::SeqCst) + more;
        wait_until(PATIENCE, "writes to be acknowledged", || self.done.load(Ordering::SeqCst) >= goal);
    }

    /// Stop, with nothing in flight.
    pub fn end(mut self) {
        self.stop.store(true, Ordering::SeqCst);
        let thread = self.thread.take().expect("a thread that writes");
        thread.join().expect("writing does not panic");
    }
}

impl Drop for Writes {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
    }
}

fn write_until(stop: &AtomicBool, done: &AtomicU64, socket: &Path) {
    let load = Load::random(Kind::Write, 16, ROUND);
    let mut seed = 0;
    while !stop.load(Ordering::SeqCst) {
        let Ok(client) = Client::connect(socket) else {
            rest(Duration::from_millis(5));
            continue;
        };
        // Every write of every connection has a payload of its own.
        let mut client = client.stamping_from(seed << 32);
        let size_bytes = client.size_bytes();
        while !stop.load(Ordering::SeqCst) {
            seed += 1;
            if client.run(&load, &load.offsets(size_bytes, seed)).is_err() {
                break;
            }
            done.fetch_add(ROUND as u64, Ordering::SeqCst);
            // A guest that thinks now and then, so that the replica has a chance on one busy core.
            rest(Duration::from_millis(2));
        }
    }
}
