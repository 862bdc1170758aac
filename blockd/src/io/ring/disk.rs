//! Store calls in flight: the bridge from a call to ring entries and back to an outcome.
//!
//! A short read or write is carried on, a file that ends early fails what lies past its end. A store
//! without a descriptor, and what the kernel cannot do on this file, goes through the store's own
//! methods on this very thread. So do writes of up to a mebibyte into the page cache, as long as they
//! are fast. A read of that size that is alone is tried in the page cache before the ring gets it.

use std::io;
use std::os::fd::RawFd;
use std::sync::Arc;
use std::time::Duration;

use io_uring::{opcode, squeue, types};

use crate::io::clock;
use crate::io::ring::queue::{Queue, Token};
use crate::io::store_call;
use crate::server::Server;
use crate::store::{BlockStore, Trimmed};
use crate::volume::{StoreAction, StoreCall, StoreOutcome};

/// The longest read or write of the page cache that is run on this thread: a fraction of a
/// millisecond where nothing stalls.
const INLINE_BYTES_MAX: u64 = 1024 * 1024;
/// A write on this thread that takes this long has stalled everybody. Longer than a thread that
/// only had to share its processor usually waits.
const STALL_MIN: Duration = Duration::from_millis(10);
/// For this many times its length nothing is run on this thread after a stall: so they make up at
/// most a hundredth of the time.
const STALL_SHARE: u32 = 100;

/// A call that the kernel works on.
#[derive(Clone, Copy)]
struct Flight {
    call: StoreCall,
    /// The op's buffer, which stays in place until the outcome is handed in.
    start: *mut u8,
    /// Bytes of it that are done.
    done: usize,
    len: usize,
}

/// The disk as the ring sees it.
pub struct Disk {
    store: Arc<dyn BlockStore>,
    file: Option<types::Fixed>,
    is_buffered: bool,
    /// When writes may be run on this thread again.
    inline_from: Duration,
    /// By op.
    flights: Vec<Option<Flight>>,
}

impl Disk {
    /// The disk behind `store`, whose descriptor, if any, is going to be registered as `file`.
    pub fn new(store: Arc<dyn BlockStore>, file: u32) -> Self {
        let file = store.ring_fd().map(|_| types::Fixed(file));
        let is_buffered = store.geometry().is_buffered();
        Self { store, file, is_buffered, inline_from: Duration::ZERO, flights: Vec::new() }
    }

    /// The descriptor to register.
    pub fn fd(&self) -> Option<RawFd> {
        self.store.ring_fd()
    }

    /// Starts a call; returns its outcome if it is over at once.
    pub fn start(
        &mut self,
        call: StoreCall,
        server: &mut Server,
        queue: &mut Queue,
    ) -> io::Result<Option<StoreOutcome>> {
        let is_alone = server.requests_in_flight() == 1;
        let buf = server.buffer_mut(call.op);
        if self.file.is_none() {
            return Ok(Some(store_call::execute(&*self.store, call.action, call.extent, buf)));
        }
        if self.may_inline(call) {
            return Ok(Some(self.run_inline(call, buf)));
        }
        let done = if is_alone && self.may_be_cached(call) { self.read_cached(call, buf) } else { 0 };
        if done > 0 && done == buf.len() {
            return Ok(Some(Ok(Trimmed::Unspecified)));
        }
        let flight = Flight { call, start: buf.as_mut_ptr(), done, len: buf.len() };
        self.submit(flight, queue)?;
        Ok(None)
    }

    /// Takes a completion in; returns the call's outcome if it is over.
    pub fn finish(
        &mut self,
        op: usize,
        result: i32,
        server: &mut Server,
        queue: &mut Queue,
    ) -> io::Result<Option<(StoreCall, StoreOutcome)>> {
        let mut flight = self.flights[op].take().expect("a completion belongs to a call in flight");
        let call = flight.call;
        let moves_data = matches!(call.action, StoreAction::Read | StoreAction::Write { .. });
        let outcome = match result {
            _ if result == -libc::EINTR => {
                self.submit(flight, queue)?;
                return Ok(None);
            }
            _ if is_for_the_store(call.action, -result) => {
                let buf = server.buffer_mut(call.op);
                store_call::execute(&*self.store, call.action, call.extent, buf)
            }
            ..0 => Err(-result),
            // The file ends early: somebody cut it under us. Zeros would be a lie.
            0 if moves_data && flight.done < flight.len => Err(libc::EIO),
            _ if moves_data => {
                flight.done += result as usize;
                if flight.done < flight.len {
                    self.submit(flight, queue)?;
                    return Ok(None);
                }
                Ok(Trimmed::Unspecified)
            }
            // A hole that was punched reads as zeros, in a file as on a device.
            _ if call.action == StoreAction::Trim => Ok(Trimmed::ReadsZero),
            _ => Ok(Trimmed::Unspecified),
        };
        Ok(Some((call, outcome)))
    }

    /// True for a write into the page cache: usually a copy, cheaper here than in a thread of the
    /// kernel's, which is where the ring would run it.
    fn may_inline(&self, call: StoreCall) -> bool {
        let small = call.extent.len <= INLINE_BYTES_MAX;
        let cached = call.action == StoreAction::Write { durable: false } && self.is_buffered;
        cached && small && clock::now() >= self.inline_from
    }

    /// True for a read that the page cache may have at once. Worth a try only if the request is
    /// alone: then its reply goes out before anything else is done, and no entry has to be waited
    /// for. Several reads are cheaper as entries of one system call.
    fn may_be_cached(&self, call: StoreCall) -> bool {
        call.action == StoreAction::Read && self.is_buffered && call.extent.len <= INLINE_BYTES_MAX
    }

    /// Reads what is in the page cache, never waiting; returns how many bytes those are. The ring
    /// carries on from there, and finds out about errors.
    fn read_cached(&self, call: StoreCall, buf: &mut [u8]) -> usize {
        let Some(fd) = self.fd() else { return 0 };
        let space = libc::iovec { iov_base: buf.as_mut_ptr().cast(), iov_len: buf.len() };
        let offset = call.extent.offset as libc::off_t;
        // SAFETY: the one vector is the exclusively borrowed buffer, and the call is over when it returns.
        let n = unsafe { libc::preadv2(fd, &raw const space, 1, offset, libc::RWF_NOWAIT) };
        usize::try_from(n).unwrap_or(0)
    }

    fn run_inline(&mut self, call: StoreCall, buf: &mut [u8]) -> StoreOutcome {
        let begin = clock::now();
        let outcome = store_call::execute(&*self.store, call.action, call.extent, buf);
        let end = clock::now();
        let took = end - begin;
        if took >= STALL_MIN {
            // The system writes back, or is short of memory: let others wait for it.
            self.inline_from = end + STALL_SHARE * took;
        }
        outcome
    }

    fn submit(&mut self, flight: Flight, queue: &mut Queue) -> io::Result<()> {
        let op = flight.call.op.0;
        if self.flights.len() <= op {
            self.flights.resize(op + 1, None);
        }
        let file = self.file.expect("only a store with a descriptor has calls in flight");
        // SAFETY: the op's buffer stays in place and is left alone until its outcome is handed to
        // the server, which comes after the completion.
        unsafe { queue.push(flight.entry(file), Token::Store(op))? };
        self.flights[op] = Some(flight);
        Ok(())
    }
}

/// True if the store's own methods, which know other ways, should try what the kernel did not do for the ring.
fn is_for_the_store(action: StoreAction, errno: i32) -> bool {
    match action {
        StoreAction::Read | StoreAction::Write { .. } | StoreAction::Flush => {
            matches!(errno, libc::EAGAIN | libc::EOPNOTSUPP)
        }
        // EINVAL: a device does whole sectors only.
        StoreAction::Trim | StoreAction::Zero { .. } => {
            matches!(errno, libc::EAGAIN | libc::EOPNOTSUPP | libc::ENOSYS | libc::EINVAL)
        }
    }
}

impl Flight {
    fn entry(&self, file: types::Fixed) -> squeue::Entry {
        let extent = self.call.extent;
        let start = self.start.wrapping_add(self.done);
        let len = (self.len - self.done) as u32;
        let offset = extent.offset + self.done as u64;
        match self.call.action {
            StoreAction::Read => opcode::Read::new(file, start, len).offset(offset).build(),
            StoreAction::Write { durable } => {
                let flags = if durable { libc::RWF_DSYNC } else { 0 };
                opcode::Write::new(file, start, len).offset(offset).rw_flags(flags).build()
            }
            StoreAction::Flush => opcode::Fsync::new(file).flags(types::FsyncFlags::DATASYNC).build(),
            StoreAction::Trim | StoreAction::Zero { allocate: false } => {
                let mode = libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_KEEP_SIZE;
                opcode::Fallocate::new(file, extent.len).offset(extent.offset).mode(mode).build()
            }
            StoreAction::Zero { allocate: true } => {
                let mode = libc::FALLOC_FL_ZERO_RANGE | libc::FALLOC_FL_KEEP_SIZE;
                opcode::Fallocate::new(file, extent.len).offset(extent.offset).mode(mode).build()
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_the_kernel_cannot_do_for_the_ring_is_done_by_the_store() {
        let moves = [StoreAction::Read, StoreAction::Write { durable: true }, StoreAction::Flush];
        let shapes =
            [StoreAction::Trim, StoreAction::Zero { allocate: true }, StoreAction::Zero { allocate: false }];
        for action in moves.into_iter().chain(shapes) {
            assert!(is_for_the_store(action, libc::EAGAIN) && is_for_the_store(action, libc::EOPNOTSUPP));
            assert!(!is_for_the_store(action, libc::EIO) && !is_for_the_store(action, libc::ENOSPC));
            assert_eq!(is_for_the_store(action, libc::EINVAL), shapes.contains(&action));
            assert_eq!(is_for_the_store(action, libc::ENOSYS), shapes.contains(&action));
        }
    }
}
