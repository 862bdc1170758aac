//! Threads that run store calls, one call a thread at a time.
//!
//! ```text
//! data plane ── job ──► queue ──► worker ── done ──► data plane
//!                                   └─ eventfd wakes it
//! ```
//!
//! A job has a buffer of its own, copied from and to that of the op: what a worker uses belongs to
//! nobody else. That is what this fallback pays for needing nothing of the kernel.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::mpsc;
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use nix::sys::eventfd::{EfdFlags, EventFd};

use crate::buffer::PageBuf;
use crate::io::store_call;
use crate::store::BlockStore;
use crate::volume::{StoreCall, StoreOutcome};

/// A call to run.
struct Job {
    call: StoreCall,
    buf: PageBuf,
}

/// A call that ended.
pub struct Done {
    /// Which.
    pub call: StoreCall,
    /// A read's data, or a write's on its way back to a pool.
    pub buf: PageBuf,
    /// How.
    pub outcome: StoreOutcome,
}

/// The threads.
pub struct Workers {
    jobs: Option<mpsc::Sender<Job>>,
    done: mpsc::Receiver<Done>,
    bell: Arc<EventFd>,
    threads: Vec<JoinHandle<()>>,
    in_flight: usize,
}

impl Workers {
    /// Starts `count` threads on `store`.
    pub fn start(store: &Arc<dyn BlockStore>, count: usize) -> io::Result<Self> {
        let flags = EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK;
        let bell = Arc::new(EventFd::from_value_and_flags(0, flags)?);
        let (jobs, queue) = mpsc::channel();
        let (finished, done) = mpsc::channel();
        let queue = Arc::new(Mutex::new(queue));
        let spawn = |index| {
            let (queue, finished) = (Arc::clone(&queue), finished.clone());
            let (store, bell) = (Arc::clone(store), Arc::clone(&bell));
            let work = move || work(&*store, &queue, &finished, &bell);
            std::thread::Builder::new().name(format!("store-{index}")).spawn(work)
        };
        let threads = (0..count).map(spawn).collect::<io::Result<_>>()?;
        Ok(Self { jobs: Some(jobs), done, bell, threads, in_flight: 0 })
    }

    /// Hands a call to the next thread that is free.
    pub fn submit(&mut self, call: StoreCall, buf: PageBuf) {
        let jobs = self.jobs.as_ref().expect("jobs are submitted only before the end");
        jobs.send(Job { call, buf }).expect("the threads live as long as the queue");
        self.in_flight += 1;
    }

    /// A call that ended, if there is one. Silences the bell, so ask until there is none.
    pub fn poll_done(&mut self) -> Option<Done> {
        // Nothing to read means that nobody rang since.
        let _ = self.bell.read();
        let done = self.done.try_recv().ok()?;
        self.in_flight -= 1;
        Some(done)
    }

    /// Waits for a call to end; none if none is under way.
    pub fn wait_done(&mut self) -> Option<Done> {
        if self.in_flight == 0 {
            return None;
        }
        self.in_flight -= 1;
        Some(self.done.recv().expect("a thread that runs a call reports it"))
    }
}

impl AsFd for Workers {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.bell.as_fd()
    }
}

impl Drop for Workers {
    fn drop(&mut self) {
        self.jobs = None;
        for thread in self.threads.drain(..) {
            // A thread that panicked has said so.
            let _ = thread.join();
        }
    }
}

fn work(
    store: &dyn BlockStore,
    queue: &Mutex<mpsc::Receiver<Job>>,
    finished: &mpsc::Sender<Done>,
    bell: &EventFd,
) {
    loop {
        let job = queue.lock().expect("nothing panics while it waits for a job").recv();
        let Ok(Job { call, mut buf }) = job else { return };
        let outcome = store_call::execute(store, call.action, call.extent, &mut buf);
        if finished.send(Done { call, buf, outcome }).is_err() {
            return;
        }
        // Fails only when the counter is full, and then it has been rung.
        let _ = bell.write(1);
    }
}
