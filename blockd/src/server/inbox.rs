//! What one connection has received and nobody has looked at yet.
//!
//! ```text
//!            ┌─► staging ─► headers, and the beginning of a write's data
//! socket ────┤
//!            └─► the rest of a write's data, straight into the write's buffer
//! ```
//!
//! Memory is bounded: staging never grows, and one buffer at a time is being filled.
//! Knows the length of a header, not what is in it.

use crate::buffer::{BufferPool, PageBuf};
use crate::nbd::frame::REQUEST_BYTES;
use crate::nbd::request::Request;
use crate::server::outbox::Cost;

/// Bytes that are received before anybody looks at them. Room for what a client's socket holds, so
/// that many small writes take one receive, and their replies one send.
const STAGING_BYTES: usize = 256 * 1024;
/// After a write of at least this many bytes only the next header is received, so that the data of
/// another one like it is not copied.
const LARGE_BYTES: usize = 32 * 1024;

/// Where the next bytes belong.
#[derive(Debug)]
enum Filling {
    Staging,
    Payload { request: Request, buf: PageBuf, filled: usize },
    Discard { left: usize },
}

/// The receiving half of one connection.
#[derive(Debug)]
pub struct Inbox {
    staging: Box<[u8]>,
    start: usize,
    end: usize,
    filling: Filling,
    /// How far staging is filled at once.
    window: usize,
}

impl Inbox {
    /// Nothing received.
    pub fn new() -> Self {
        Self {
            staging: vec![0; STAGING_BYTES].into_boxed_slice(),
            start: 0,
            end: 0,
            filling: Filling::Staging,
            window: STAGING_BYTES,
        }
    }

    /// Where the next bytes go; stays in place until they are there. Never empty.
    pub fn space(&mut self) -> &mut [u8] {
        match &mut self.filling {
            Filling::Payload { buf, filled, .. } => &mut buf[*filled..],
            Filling::Discard { left } => &mut self.staging[..(*left).min(STAGING_BYTES)],
            Filling::Staging => {
                self.staging.copy_within(self.start..self.end, 0);
                self.end -= self.start;
                self.start = 0;
                let window = self.window.max(self.end + 1);
                &mut self.staging[self.end..window]
            }
        }
    }

    /// True if it is better to wait until [`Self::space`] is full.
    pub fn wants_all(&self) -> bool {
        matches!(self.filling, Filling::Payload { .. })
    }

    /// Takes in that the first `n` bytes of the space are there.
    pub fn handle_received(&mut self, n: usize) {
        match &mut self.filling {
            Filling::Payload { filled, .. } => *filled += n,
            Filling::Discard { left } => {
                *left -= n;
                if *left == 0 {
                    self.filling = Filling::Staging;
                }
            }
            Filling::Staging => self.end += n,
        }
    }

    /// True if nothing is half received.
    pub fn is_between_requests(&self) -> bool {
        matches!(self.filling, Filling::Staging) && self.start == self.end
    }

    /// True if a write's data, needed or not, is still on its way.
    pub fn is_in_payload(&self) -> bool {
        !matches!(self.filling, Filling::Staging)
    }

    /// Everything in staging.
    pub fn staged(&self) -> &[u8] {
        &self.staging[self.start..self.end]
    }

    /// Takes the first `n` staged bytes as dealt with.
    pub fn consume(&mut self, n: usize) {
        self.start += n;
    }

    /// The next request header, once it is there.
    pub fn take_header(&mut self) -> Option<[u8; REQUEST_BYTES]> {
        let header = *self.staged().first_chunk()?;
        self.start += REQUEST_BYTES;
        self.window = STAGING_BYTES;
        Some(header)
    }

    /// Makes the next bytes the data of `request`, to go into `buf`.
    pub fn begin_payload(&mut self, request: Request, mut buf: PageBuf) {
        if buf.len() >= LARGE_BYTES {
            self.window = REQUEST_BYTES;
        }
        let filled = buf.len().min(self.end - self.start);
        buf[..filled].copy_from_slice(&self.staging[self.start..self.start + filled]);
        self.start += filled;
        self.filling = Filling::Payload { request, buf, filled };
    }

    /// The write whose data is complete, if there is one.
    pub fn take_payload(&mut self) -> Option<(Request, PageBuf)> {
        if !matches!(&self.filling, Filling::Payload { buf, filled, .. } if *filled == buf.len()) {
            return None;
        }
        match std::mem::replace(&mut self.filling, Filling::Staging) {
            Filling::Payload { request, buf, .. } => Some((request, buf)),
            _ => None,
        }
    }

    /// Throws the next `n` bytes away.
    pub fn begin_discard(&mut self, n: usize) {
        let staged = n.min(self.end - self.start);
        self.start += staged;
        if n > staged {
            self.filling = Filling::Discard { left: n - staged };
        }
    }

    /// Forgets what is half received; the buffer goes back to the pool.
    pub fn abandon(&mut self, pool: &mut BufferPool) -> Option<Cost> {
        match std::mem::replace(&mut self.filling, Filling::Staging) {
            Filling::Payload { buf, .. } => {
                let cost = Cost { requests: 1, bytes: buf.len() };
                pool.give(buf);
                Some(cost)
            }
            _ => None,
        }
    }
}
