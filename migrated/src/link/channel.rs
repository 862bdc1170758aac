//! One channel's bookkeeping: offsets of what was written, sent and acknowledged, and of what came and was read.
//!
//! ```text
//! Outgoing   0 ───── acked ───────── sent ───────── written            (sent_max: as far as ever sent)
//!                      │◄─ retained ──────────────────►│               at most RETAINED_BYTES_MAX
//!                                     │◄── unsent ────►│               at most what the pacing allows
//!                                                   credit ──►         sent never goes past it
//! Incoming   0 ───── read ────────── received ───────── credit         = read + window, in steps
//!                      │◄─ buffered ───►│
//! ```
//!
//! Invariants: acked ≤ sent ≤ sent_max ≤ written; sent_max ≤ credit; received ≤ credit given. What is not acknowledged is kept, so
//! that a new connection can begin at what the other side has (`rewind`). *Acknowledged* means: in the memory of the
//! other side's link, not read by its user. A byte is never delivered twice and never left out.
//!
//! The window follows the bandwidth-delay product: four times what is read in a round trip, between two bounds. One round
//! trip is on its way, one is the credit's way back, and up to two lie in TCP behind a hole that is being mended, which on a
//! lossy link there always is. So a thin link does not fill a buffer of seconds, a fast and long one is not held back, and a
//! stalled reader gains nothing. What a sender keeps follows by itself: it never sends past the credit.

use std::collections::VecDeque;
use std::time::Duration;

use super::{Class, Label};

/// How far a side may send on a new channel before it has heard from the other side, in bytes.
pub const INITIAL_CREDIT_BYTES: u64 = 64 << 10;
/// Most bytes of a bulk channel that are received and not read, on the longest and fastest link.
pub const WINDOW_BYTES_MAX: u64 = 32 << 20;
/// The same on the thinnest: what a reader may lag behind without anybody waiting for it.
pub const WINDOW_BYTES_MIN: u64 = 1 << 20;
/// The same as long as the link is not known.
const WINDOW_BYTES_UNKNOWN: u64 = 4 << 20;
/// Most bytes of a control channel that are received and not read.
pub const CONTROL_WINDOW_BYTES: u64 = 256 << 10;
/// Most bytes of a channel that are written and not acknowledged.
pub const RETAINED_BYTES_MAX: u64 = WINDOW_BYTES_MAX + (4 << 20);
/// Round trips that a window has room for.
const WINDOW_ROUND_TRIPS: f64 = 4.0;
/// The shortest time over which reading is measured.
const TUNE_EVERY: Duration = Duration::from_millis(10);

/// The window that a channel's receiver gives at first.
fn window_bytes(label: Label) -> u64 {
    match label.class() {
        Class::Control => CONTROL_WINDOW_BYTES,
        Class::Disk | Class::Ram => WINDOW_BYTES_UNKNOWN,
    }
}

/// What the other side did that the protocol does not allow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Violation {
    /// Data past the credit.
    #[error("the peer sent past the credit that it had")]
    Credit,
    /// Bytes are missing before these.
    #[error("the peer left out bytes of a channel")]
    Gap,
    /// Data behind the end, or another end.
    #[error("the peer sent past the end of a channel")]
    End,
    /// An acknowledgement of what was never sent.
    #[error("the peer acknowledged what was never sent")]
    Ack,
}

/// What this side writes.
#[derive(Debug, Default)]
pub struct Outgoing {
    /// From `acked` to written.
    retained: VecDeque<u8>,
    acked: u64,
    sent: u64,
    sent_max: u64,
    credit: u64,
    finished: bool,
    fin_sent: bool,
    fin_acked: bool,
}

impl Outgoing {
    /// Nothing written yet.
    pub fn new() -> Self {
        Self { credit: INITIAL_CREDIT_BYTES, ..Self::default() }
    }

    /// Takes as much of `bytes` as fits, with at most `unsent_max` bytes waiting to be sent.
    pub fn write(&mut self, bytes: &[u8], unsent_max: u64) -> usize {
        debug_assert!(!self.finished, "nothing is written behind the end");
        let room = unsent_max
            .saturating_sub(self.unsent_bytes())
            .min(RETAINED_BYTES_MAX.saturating_sub(self.retained.len() as u64));
        let taken = bytes.len().min(room as usize);
        self.retained.extend(&bytes[..taken]);
        taken
    }

    /// Nothing more will be written.
    pub fn finish(&mut self) {
        self.finished = true;
    }

    /// True after `finish`.
    pub fn is_finished(&self) -> bool {
        self.finished
    }

    /// True when all of it and its end have arrived.
    pub fn is_done(&self) -> bool {
        self.fin_acked
    }

    /// Offset of the end of what was written.
    pub fn written(&self) -> u64 {
        self.acked + self.retained.len() as u64
    }

    /// Offset up to which the other side has it.
    pub fn acked(&self) -> u64 {
        self.acked
    }

    /// Offset up to which it was sent on this connection.
    pub fn sent(&self) -> u64 {
        self.sent
    }

    /// Bytes that wait to be sent.
    pub fn unsent_bytes(&self) -> u64 {
        self.written() - self.sent
    }

    /// True if a frame could be made.
    pub fn has_frame(&self) -> bool {
        let end_alone = self.finished && !self.fin_sent && self.unsent_bytes() == 0;
        end_alone || (self.unsent_bytes() > 0 && self.sent < self.credit)
    }

    /// The next bytes to send, at most `max`: their offset, whether they are the last, and the two pieces in which
    /// they lie. Call only if `has_frame`.
    pub fn next(&mut self, max: usize) -> (u64, bool, (&[u8], &[u8])) {
        let offset = self.sent;
        let count = self.unsent_bytes().min(self.credit.saturating_sub(self.sent)).min(max as u64);
        self.sent += count;
        self.sent_max = self.sent_max.max(self.sent);
        let fin = self.finished && self.unsent_bytes() == 0;
        self.fin_sent |= fin;
        let start = (offset - self.acked) as usize;
        (offset, fin, pieces(&self.retained, start, count as usize))
    }

    /// The other side says what it has and how far it takes more. Returns the bytes that are newly acknowledged.
    pub fn handle_ack(&mut self, received: u64, fin: bool, credit: u64) -> Result<u64, Violation> {
        let fin_is_true = self.finished && self.fin_sent && received == self.written();
        if received > self.sent_max || (fin && !self.fin_acked && !fin_is_true) {
            return Err(Violation::Ack);
        }
        // Credit is never taken back, and an older acknowledgement says nothing new.
        self.credit = self.credit.max(credit);
        self.fin_acked |= fin;
        let newly = received.saturating_sub(self.acked);
        self.retained.drain(..newly as usize);
        if self.retained.is_empty() {
            self.retained.shrink_to(64 << 10);
        }
        self.acked += newly;
        self.sent = self.sent.max(self.acked);
        Ok(newly)
    }

    /// A new connection: what is not acknowledged is sent again.
    pub fn rewind(&mut self) {
        self.sent = self.acked;
        self.fin_sent = self.fin_acked;
    }
}

/// What the other side writes.
#[derive(Debug, Default)]
pub struct Incoming {
    /// From read to `received`.
    buffered: VecDeque<u8>,
    received: u64,
    window: u64,
    /// The window follows the link.
    is_tuned: bool,
    /// When the window was looked at last, and how far the reader was.
    tuned: (Duration, u64),
    /// How far the other side was told that it may send.
    credit: u64,
    fin: bool,
    /// Nobody will read: what comes is thrown away.
    abandoned: bool,
}

impl Incoming {
    /// Nothing received yet.
    pub fn new(label: Label) -> Self {
        let is_tuned = label.class() != Class::Control;
        Self { window: window_bytes(label), is_tuned, credit: INITIAL_CREDIT_BYTES, ..Self::default() }
    }

    /// Bytes came. Those that are here already are passed over; returns how many are new.
    pub fn handle_data(&mut self, offset: u64, fin: bool, bytes: &[u8]) -> Result<usize, Violation> {
        let end = offset + bytes.len() as u64;
        if offset > self.received {
            return Err(Violation::Gap);
        }
        if end > self.credit {
            return Err(Violation::Credit);
        }
        if self.fin && (end > self.received || (fin && end != self.received)) || (fin && end < self.received)
        {
            return Err(Violation::End);
        }
        let known = (self.received - offset).min(bytes.len() as u64) as usize;
        let fresh = &bytes[known..];
        if !self.abandoned {
            self.buffered.extend(fresh);
        }
        self.received += fresh.len() as u64;
        self.fin |= fin;
        Ok(fresh.len())
    }

    /// Has the window follow what was read in a round trip: up at once, down bit by bit.
    pub fn tune(&mut self, rtt: Duration, now: Duration) {
        let (since, read_then) = self.tuned;
        let elapsed = now.saturating_sub(since);
        if !self.is_tuned || elapsed < rtt.max(TUNE_EVERY) {
            return;
        }
        let read = self.received - self.buffered_bytes();
        self.tuned = (now, read);
        let product = (read - read_then) as f64 * rtt.as_secs_f64() / elapsed.as_secs_f64();
        let wanted = (WINDOW_ROUND_TRIPS * product) as u64;
        let wanted = wanted.clamp(WINDOW_BYTES_MIN, WINDOW_BYTES_MAX);
        self.window = wanted.max(self.window - self.window.saturating_sub(wanted) / 8);
    }

    /// Takes bytes out.
    pub fn read(&mut self, into: &mut [u8]) -> usize {
        let count = into.len().min(self.buffered.len());
        let (first, second) = pieces(&self.buffered, 0, count);
        into[..first.len()].copy_from_slice(first);
        into[first.len()..count].copy_from_slice(second);
        self.buffered.drain(..count);
        if self.buffered.is_empty() {
            self.buffered.shrink_to(1 << 20);
        }
        count
    }

    /// Nobody reads any more.
    pub fn abandon(&mut self) {
        self.abandoned = true;
        self.buffered = VecDeque::new();
    }

    /// Offset up to which everything is here.
    pub fn received(&self) -> u64 {
        self.received
    }

    /// Bytes that are here and not read.
    pub fn buffered_bytes(&self) -> u64 {
        self.buffered.len() as u64
    }

    /// The other side's end is here.
    pub fn has_fin(&self) -> bool {
        self.fin
    }

    /// The reader has come so far that the other side should be told of more credit.
    pub fn owes_credit(&self) -> bool {
        !self.fin && self.next_credit() - self.credit >= self.window / 4
    }

    /// The credit to tell the other side now.
    pub fn give_credit(&mut self) -> u64 {
        self.credit = self.next_credit();
        self.credit
    }

    fn next_credit(&self) -> u64 {
        (self.received - self.buffered_bytes()).saturating_add(self.window).max(self.credit)
    }
}

/// `count` bytes from `start`, in the two pieces in which they lie.
fn pieces(bytes: &VecDeque<u8>, start: usize, count: usize) -> (&[u8], &[u8]) {
    let (first, second) = bytes.as_slices();
    let end = start + count;
    let split = first.len();
    let of_first = &first[start.min(split)..end.min(split)];
    let of_second = &second[start.saturating_sub(split)..end.saturating_sub(split)];
    (of_first, of_second)
}

#[cfg(test)]
mod tests;
