//! A read or write that is longer than one buffer, on its way through the disk in pieces.
//!
//! ```text
//! header ─► piece ─► piece ─► … ─► one reply (a read with structured replies: a chunk for each piece)
//! ```
//!
//! The volume sees each piece as a request, a recording as a change of its own: so the order of writes (D1 to D3) and
//! the bounds of a connection (D5) hold as for any other. Pieces of a write start as their data comes in; a read has
//! one at a time, in order.
//!
//! Promises what the protocol does and no more: a write that fails, or whose client dies, may have been done in part.

use crate::extent::Extent;
use crate::nbd::reply::{Replies, ReplyHead};
use crate::nbd::request::{Command, CommandKind, Request};

/// One long request.
#[derive(Debug)]
pub struct Large {
    request: Request,
    extent: Extent,
    piece_bytes: u64,
    /// Where the next piece begins.
    next: u64,
    in_flight: usize,
    /// Of the first piece that failed.
    errno: Option<i32>,
    /// A read whose answer has one head for all of its data.
    is_one_chunk: bool,
    /// Its head is on its way to the client.
    is_headed: bool,
}

impl Large {
    /// For `request`, if it is longer than a piece.
    pub fn of(request: Request, piece_bytes: u64, replies: &Replies) -> Option<Self> {
        let (extent, is_one_chunk) = match request.command {
            Command::Read { extent, dont_fragment } => (extent, dont_fragment || !replies.has_parts()),
            Command::Write { extent, .. } => (extent, false),
            _ => return None,
        };
        (extent.len > piece_bytes).then_some(Self {
            request,
            extent,
            piece_bytes,
            next: extent.offset,
            in_flight: 0,
            errno: None,
            is_one_chunk,
            is_headed: false,
        })
    }

    /// The client's own name for it.
    pub fn cookie(&self) -> u64 {
        self.request.cookie
    }

    /// What it is.
    pub fn kind(&self) -> CommandKind {
        self.request.command.kind()
    }

    /// The next piece, if one may start now.
    pub fn next_piece(&mut self) -> Option<Request> {
        let is_read = self.kind() == CommandKind::Read;
        if self.next == self.extent.end() || (is_read && (self.in_flight > 0 || self.errno.is_some())) {
            return None;
        }
        let extent = Extent::new(self.next, self.piece_bytes.min(self.extent.end() - self.next));
        self.next = extent.end();
        self.in_flight += 1;
        let command = match self.request.command {
            Command::Write { fua, .. } => Command::Write { extent, fua },
            _ => Command::Read { extent, dont_fragment: false },
        };
        Some(Request { cookie: self.request.cookie, command })
    }

    /// Takes in how a piece ended.
    pub fn finish(&mut self, result: Result<(), i32>) {
        self.in_flight -= 1;
        self.errno = self.errno.or(result.err());
    }

    /// Nothing of it is left to be done.
    pub fn is_over(&self) -> bool {
        let gives_up = self.kind() == CommandKind::Read && self.errno.is_some();
        self.in_flight == 0 && (gives_up || self.next == self.extent.end())
    }

    /// The errno of the first piece that failed, if one did.
    pub fn errno(&self) -> Option<i32> {
        self.errno
    }

    /// What goes before the data of this piece of a read: nothing, for the later ones of a single chunk.
    pub fn head(&mut self, piece: Extent, replies: &Replies) -> Option<ReplyHead> {
        let is_first = !std::mem::replace(&mut self.is_headed, true);
        if self.is_one_chunk {
            return is_first.then(|| replies.read_header(self.cookie(), self.extent));
        }
        Some(replies.read_part(self.cookie(), piece, piece.end() == self.extent.end()))
    }

    /// The client is in the middle of one chunk, where nothing else can be said: no other reply, and no error.
    pub fn is_mid_chunk(&self) -> bool {
        self.is_one_chunk && self.is_headed
    }
}
