//! One io_uring as the data plane needs it: push, wait, take what completed.
//!
//! Counts what the kernel has not given back yet; as long as that is not zero, memory named in an
//! entry must stay. Hides a full submission queue, interrupted waits and a busy completion queue.

use std::io;
use std::os::fd::RawFd;
use std::time::Duration;

use io_uring::register::Restriction;
use io_uring::types::{SubmitArgs, Timespec};
use io_uring::{IoUring, cqueue, opcode, squeue};
use tracing::debug;

/// Entries of the submission queue: more are submitted in several calls.
const SUBMISSIONS: u32 = 256;
/// The kernel's number of the registration of single descriptors (IORING_REGISTER_FILES_UPDATE).
const REGISTER_FILES_UPDATE: u8 = 6;
/// Entries of the completion queue: the kernel keeps more aside.
const COMPLETIONS: u32 = 4096;

/// All that the ring may do, for no filter of system calls sees it: these operations, on registered descriptors or
/// others, and the registration of descriptors.
fn restrictions() -> Vec<Restriction> {
    let operations = [
        opcode::Accept::CODE,
        opcode::AsyncCancel::CODE,
        opcode::Fallocate::CODE,
        opcode::Fsync::CODE,
        opcode::Read::CODE,
        opcode::Recv::CODE,
        opcode::SendMsg::CODE,
        opcode::Write::CODE,
    ];
    let mut restrictions: Vec<Restriction> = operations.into_iter().map(Restriction::sqe_op).collect();
    restrictions.push(Restriction::sqe_flags_allowed(squeue::Flags::FIXED_FILE.bits()));
    restrictions.push(Restriction::register_op(REGISTER_FILES_UPDATE));
    restrictions
}

/// What an entry was for; travels through the kernel as a number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Token {
    /// A connection at the listener.
    Accept,
    /// The mailbox's bell.
    Wake,
    /// Receiving on a socket.
    Recv(usize),
    /// Sending on a socket.
    Send(usize),
    /// A store call.
    Store(usize),
    /// A cancellation.
    Cancel,
}

impl Token {
    const INDEX_BITS: u32 = 56;

    fn to_bits(self) -> u64 {
        let (kind, index) = match self {
            Token::Accept => (0, 0),
            Token::Wake => (1, 0),
            Token::Recv(slot) => (2, slot),
            Token::Send(slot) => (3, slot),
            Token::Store(op) => (4, op),
            Token::Cancel => (5, 0),
        };
        kind << Self::INDEX_BITS | index as u64
    }

    fn from_bits(bits: u64) -> Self {
        let index = (bits & ((1 << Self::INDEX_BITS) - 1)) as usize;
        match bits >> Self::INDEX_BITS {
            0 => Token::Accept,
            1 => Token::Wake,
            2 => Token::Recv(index),
            3 => Token::Send(index),
            4 => Token::Store(index),
            5 => Token::Cancel,
            kind => unreachable!("the kernel returns only tokens that it was given, not {kind}"),
        }
    }
}

/// An entry that is done.
#[derive(Clone, Copy, Debug)]
pub struct Completion {
    /// Which.
    pub token: Token,
    /// A count, a descriptor, or a negative errno.
    pub result: i32,
}

/// The ring.
pub struct Queue {
    ring: IoUring,
    in_flight: usize,
    /// Completions that had to be taken to make room.
    early: Vec<cqueue::Entry>,
}

impl Queue {
    /// A ring for this thread alone, with room for `files` registered descriptors.
    pub fn new(files: usize) -> io::Result<Self> {
        let ring = Self::build()?;
        let submitter = ring.submitter();
        submitter.register_files(&vec![-1; files])?;
        submitter.register_restrictions(&mut restrictions())?;
        submitter.register_enable_rings()?;
        Ok(Self { ring, in_flight: 0, early: Vec::new() })
    }

    fn build() -> io::Result<IoUring> {
        let mut builder = IoUring::builder();
        builder.setup_cqsize(COMPLETIONS).setup_clamp().setup_r_disabled();
        let plain = builder.clone();
        builder.setup_single_issuer().setup_defer_taskrun();
        match builder.build(SUBMISSIONS) {
            // A kernel before 6.1.
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) => {
                debug!("this kernel has no deferred task work, using a plain ring");
                plain.build(SUBMISSIONS)
            }
            result => result,
        }
    }

    /// Makes `fd` known as registered descriptor `index`; -1: makes it unknown.
    pub fn register(&self, index: u32, fd: RawFd) -> io::Result<()> {
        self.ring.submitter().register_files_update(index, &[fd]).map(drop)
    }

    /// Entries that the kernel has not given back yet.
    pub fn in_flight(&self) -> usize {
        self.in_flight
    }

    /// Hands an entry to the kernel, at the latest with the next [`Self::wait`].
    ///
    /// # Safety
    /// Memory that the entry names must stay valid, and untouched as the operation demands, until
    /// its completion has been taken.
    pub unsafe fn push(&mut self, entry: squeue::Entry, token: Token) -> io::Result<()> {
        let entry = entry.user_data(token.to_bits());
        loop {
            // SAFETY: the caller keeps the memory; the entry is not referred to afterwards.
            if unsafe { self.ring.submission().push(&entry) }.is_ok() {
                self.in_flight += 1;
                return Ok(());
            }
            self.submit()?;
        }
    }

    /// Asks that an entry be given back undone, if it has not begun.
    pub fn cancel(&mut self, token: Token) -> io::Result<()> {
        let entry = opcode::AsyncCancel::new(token.to_bits()).build();
        // SAFETY: the entry names no memory.
        unsafe { self.push(entry, Token::Cancel) }
    }

    fn submit(&mut self) -> io::Result<()> {
        match self.ring.submit() {
            Ok(_) => Ok(()),
            Err(error) => self.forgive(error),
        }
    }

    /// Submits what was pushed and waits until something completed, or `timeout` is over.
    pub fn wait(&mut self, timeout: Option<Duration>) -> io::Result<()> {
        let want = usize::from(self.early.is_empty());
        let result = match timeout {
            None => self.ring.submit_and_wait(want),
            Some(timeout) => {
                let timespec = Timespec::from(timeout);
                let args = SubmitArgs::new().timespec(&timespec);
                self.ring.submitter().submit_with_args(want, &args)
            }
        };
        match result {
            Ok(_) => Ok(()),
            Err(error) => self.forgive(error),
        }
    }

    /// Errors after which one simply goes on: a signal, a timeout, completions to be taken first.
    fn forgive(&mut self, error: io::Error) -> io::Result<()> {
        match error.raw_os_error() {
            Some(libc::EINTR | libc::ETIME) => Ok(()),
            Some(libc::EBUSY | libc::EAGAIN) => {
                let Self { ring, early, .. } = self;
                early.extend(ring.completion());
                Ok(())
            }
            _ => Err(error),
        }
    }

    /// Appends everything that completed to `out`.
    pub fn take_completions(&mut self, out: &mut Vec<Completion>) {
        let before = out.len();
        let Self { ring, early, .. } = self;
        let entries = early.drain(..).chain(ring.completion());
        out.extend(
            entries.map(|entry| Completion {
                token: Token::from_bits(entry.user_data()),
                result: entry.result(),
            }),
        );
        self.in_flight -= out.len() - before;
    }
}

#[cfg(test)]
mod tests {
    use super::Token;

    #[test]
    fn a_token_survives_its_way_through_the_kernel() {
        for token in [Token::Accept, Token::Wake, Token::Recv(7), Token::Send(0), Token::Store(1 << 40)] {
            assert_eq!(Token::from_bits(token.to_bits()), token);
        }
    }
}
