//! The destination's shell: one session at a time, each op run to its end before the next.
//!
//! ```text
//! accept ─► end the old session, whatever it has in hand first (D13) ─► session thread
//! session: frame ─► ops ─► disk, sidecar ─► answers
//! ```

use std::io::{self, BufReader, Write};
use std::net::Shutdown;
use std::os::fd::AsFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use tracing::{info, warn};

use crate::buffer::PageBuf;
use crate::extent::{Extent, LEAF_BYTES};
use crate::io::clock;
use crate::io::lock::lock;
use crate::io::read_back;
use crate::io::replica_source::read_frame;
use crate::io::sidecar_file::SidecarFile;
use crate::io::store_call::errno_of;
use crate::repeated::Repeated;
use crate::replica::destination::{Destination, Identity, Op, leaf_of};
use crate::sidecar::Role;
use crate::store::BlockStore;

/// Bytes read ahead from the stream.
const READ_AHEAD_BYTES: usize = 1 << 20;
/// Pause after a failed accept: out of descriptors, most likely.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// How far the replica is, for status.
#[derive(Debug, Default)]
pub struct Applied {
    /// Epoch of the session; 0: no source is connected.
    pub epoch: AtomicU64,
    /// The last batch that was applied.
    pub applied_seq: AtomicU64,
    /// The last batch that is durable.
    pub durable_seq: AtomicU64,
    /// Bytes applied and not yet durable.
    pub unflushed_bytes: AtomicU64,
    /// Bytes of changes applied since the process started.
    pub applied_bytes_total: AtomicU64,
    /// Leaves compared since the process started.
    pub compared_leaves_total: AtomicU64,
}

struct Session {
    stream: UnixStream,
    thread: JoinHandle<()>,
}

/// Receives a copy of a disk.
pub struct Receiver {
    store: Arc<dyn BlockStore>,
    sidecar: Arc<Mutex<SidecarFile>>,
    applied: Applied,
    session: Mutex<Option<Session>>,
}

impl Receiver {
    /// Receives into `store`.
    pub fn new(store: Arc<dyn BlockStore>, sidecar: Arc<Mutex<SidecarFile>>) -> Arc<Self> {
        Arc::new(Self { store, sidecar, applied: Applied::default(), session: Mutex::new(None) })
    }

    /// Accepts sources from now on, on a thread of its own.
    pub fn listen(self: &Arc<Self>, listener: UnixListener) -> io::Result<()> {
        let receiver = Arc::clone(self);
        let accept = move || {
            let mut trouble = Repeated::default();
            loop {
                match listener.accept() {
                    Ok((stream, _)) => receiver.replace_session(stream),
                    Err(error) => {
                        if let Some(times) = trouble.handle(errno_of(&error), clock::now()) {
                            warn!(%error, times, "cannot accept a source");
                        }
                        thread::park_timeout(ACCEPT_PAUSE);
                    }
                }
            }
        };
        thread::Builder::new().name("replica-accept".into()).spawn(accept).map(drop)
    }

    /// How far it is.
    pub fn applied(&self) -> &Applied {
        &self.applied
    }

    /// Ends the session, after what it has in hand, and does something before the next may begin.
    pub fn between_sessions<T>(&self, action: impl FnOnce() -> T) -> T {
        let mut session = lock(&self.session);
        end(&mut session);
        action()
    }

    fn replace_session(self: &Arc<Self>, stream: UnixStream) {
        let mut session = lock(&self.session);
        end(&mut session);
        let receiver = Arc::clone(self);
        let started = stream.try_clone().and_then(|ours| {
            let run = move || receiver.run(&ours);
            thread::Builder::new().name("replica-apply".into()).spawn(run)
        });
        match started {
            Ok(thread) => *session = Some(Session { stream, thread }),
            Err(error) => warn!(%error, "cannot serve a source"),
        }
    }

    fn run(&self, stream: &UnixStream) {
        let mut destination = Destination::new(self.identity());
        let ended = self.apply_all(stream, &mut destination);
        let last_words: Vec<u8> = std::iter::from_fn(|| destination.poll_transmit()).flatten().collect();
        // The source may be gone already.
        let _ = (&*stream).write_all(&last_words);
        let _ = stream.shutdown(Shutdown::Both);
        self.applied.epoch.store(0, Ordering::Relaxed);
        match ended {
            Ok(()) => info!("the source ended the session"),
            Err(reason) => warn!("the session with the source ended: {reason:#}"),
        }
    }

    fn apply_all(&self, stream: &UnixStream, destination: &mut Destination) -> anyhow::Result<()> {
        let mut input = BufReader::with_capacity(READ_AHEAD_BYTES, stream);
        loop {
            self.work(destination, false)?;
            if input.buffer().is_empty() && !has_input(stream)? {
                self.work(destination, true)?;
            }
            while let Some(bytes) = destination.poll_transmit() {
                (&*stream).write_all(&bytes)?;
            }
            let (header, body) = match read_frame(&mut input) {
                Ok(frame) => frame?,
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(()),
                Err(error) => return Err(error.into()),
            };
            destination.handle_frame(&header, &body)?;
            self.applied.epoch.store(header.epoch, Ordering::Relaxed);
        }
    }

    /// Runs every op that is due.
    fn work(&self, destination: &mut Destination, idle: bool) -> anyhow::Result<()> {
        while let Some(op) = destination.poll_op(idle) {
            let outcome = self.run_op(&op, destination).map_err(|error| format!("cannot {op}: {error}"));
            destination.handle_done(outcome)?;
        }
        let applied = &self.applied;
        applied.applied_seq.store(destination.applied_seq(), Ordering::Relaxed);
        applied.durable_seq.store(destination.durable_seq(), Ordering::Relaxed);
        applied.unflushed_bytes.store(destination.unflushed_bytes(), Ordering::Relaxed);
        Ok(())
    }

    fn run_op(&self, op: &Op, destination: &Destination) -> io::Result<Vec<u64>> {
        match op {
            Op::Write(extent, start) => {
                self.count(&self.applied.applied_bytes_total, extent.len);
                self.store.write_at(destination.payload(extent, *start), extent.offset, false)?;
            }
            Op::Zero { extent, allocate } => {
                self.count(&self.applied.applied_bytes_total, extent.len);
                self.store.zero(*extent, *allocate)?;
            }
            // What was not acknowledged is sent, or compared, again: with what is on the disk.
            Op::Flush => self.store.flush().inspect_err(|_| self.store.forget_cached())?,
            Op::RecordEpoch(epoch) => lock(&self.sidecar).update(|header| header.replica_epoch = *epoch)?,
            Op::RecordSeal(generation) => lock(&self.sidecar).update(|header| header.sealed = *generation)?,
            Op::Compare(extent, digest) => {
                self.count(&self.applied.compared_leaves_total, 1);
                let mut leaf = PageBuf::zeroed(extent.len as usize);
                self.store.read_at(&mut leaf, extent.offset)?;
                if read_back::digest(&leaf) != *digest {
                    return Ok(vec![leaf_of(extent)]);
                }
            }
            Op::CompareZeros(extent) => {
                self.count(&self.applied.compared_leaves_total, extent.len.div_ceil(LEAF_BYTES));
                return read_back::leaves_not_zero(&*self.store, *extent);
            }
        }
        Ok(Vec::new())
    }

    fn count(&self, total: &AtomicU64, amount: u64) {
        total.fetch_add(amount, Ordering::Relaxed);
    }

    fn identity(&self) -> Identity {
        let sidecar = lock(&self.sidecar);
        let header = sidecar.header();
        let whole = Extent::new(0, header.size);
        // Anything but one hole may be data that need not be sent again.
        let blank = self
            .store
            .allocation(whole)
            .is_ok_and(|found| found == (crate::store::Allocation::Hole, whole.len));
        Identity {
            size: header.size,
            disk_id: header.disk_id.clone(),
            generation: header.generation,
            epoch: header.replica_epoch,
            existing: !blank,
            sealed: header.sealed,
            promoted: (header.role != Role::Replica).then_some(header.generation),
        }
    }
}

fn end(session: &mut Option<Session>) {
    if let Some(Session { stream, thread }) = session.take() {
        let _ = stream.shutdown(Shutdown::Both);
        let _ = thread.join();
    }
}

/// True if bytes wait, or the end of the stream.
fn has_input(stream: &UnixStream) -> io::Result<bool> {
    let mut fds = [PollFd::new(stream.as_fd(), PollFlags::POLLIN)];
    Ok(poll(&mut fds, PollTimeout::ZERO)? > 0)
}
