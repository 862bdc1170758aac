//! What a client gets: every reply in the smallest form that was negotiated and is legal.
//!
//! | reply to                | structured replies negotiated         | not                     |
//! |-------------------------|---------------------------------------|-------------------------|
//! | READ, done              | OFFSET_DATA + DONE, 28 bytes, data    | simple, 16 bytes, data  |
//! | part of a READ, done    | OFFSET_DATA, 28 bytes, data           | (its data follows)      |
//! | READ of nothing, done   | NONE + DONE, 20 bytes                 | simple                  |
//! | READ, BLOCK_STATUS, not | ERROR + DONE, 26 bytes, message       | simple                  |
//! | all others, done or not | simple                                | simple                  |
//!
//! (BLOCK_STATUS, done: see `block_status`.) A header marked DONE promises that no error can
//! happen any more: encode it when the data is at hand. Nothing here allocates, but a message
//! goes into the caller's buffer.

use std::ops::Deref;

use crate::extent::Extent;
use crate::nbd::command::CommandKind;
use crate::nbd::export::Negotiated;
use crate::nbd::frame::{CHUNK_BYTES, ChunkHeader, SIMPLE_REPLY_BYTES, SimpleReply};
use crate::nbd::wire::{
    NBD_REPLY_FLAG_DONE, NBD_REPLY_TYPE_ERROR, NBD_REPLY_TYPE_NONE, NBD_REPLY_TYPE_OFFSET_DATA, NbdError,
    STRING_BYTES_MAX,
};

/// The longest [`ReplyHead`], in bytes: what to leave free in front of a read's data.
pub const REPLY_HEAD_BYTES_MAX: usize = CHUNK_BYTES + 8;
/// Bytes of an ERROR chunk's payload before its message.
const ERROR_BYTES: usize = 6;

/// A reply, or the part of it before a read's data. Derefs to its bytes.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct ReplyHead {
    bytes: [u8; REPLY_HEAD_BYTES_MAX],
    length: u8,
}

impl ReplyHead {
    fn of(parts: &[&[u8]]) -> Self {
        let mut head = Self { bytes: [0; REPLY_HEAD_BYTES_MAX], length: 0 };
        for part in parts {
            let start = usize::from(head.length);
            head.bytes[start..start + part.len()].copy_from_slice(part);
            head.length += part.len() as u8;
        }
        head
    }
}

impl Deref for ReplyHead {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.bytes[..usize::from(self.length)]
    }
}

impl std::fmt::Debug for ReplyHead {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "ReplyHead({:02x?})", &**self)
    }
}

/// A simple reply.
pub fn simple(cookie: u64, error: Option<NbdError>) -> [u8; SIMPLE_REPLY_BYTES] {
    SimpleReply { error: error.map_or(0, NbdError::code), cookie }.encode()
}

/// Encodes replies in the form that was negotiated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Replies {
    structured: bool,
}

impl Replies {
    /// For a connection with this outcome of its handshake.
    pub fn new(negotiated: Negotiated) -> Self {
        Self { structured: negotiated.structured_replies }
    }

    /// Success of a read; the `extent.len` bytes of data follow. The extent is one that
    /// [`Session::parse`](super::request::Session::parse) passed.
    pub fn read_header(&self, cookie: u64, extent: Extent) -> ReplyHead {
        if !self.structured {
            return ReplyHead::of(&[&simple(cookie, None)]);
        }
        chunk_of_data(cookie, extent, true)
    }

    /// Success of a part of a read whose other parts, and the mark that all is said, come in chunks of their own; the
    /// `extent.len` bytes of data follow.
    ///
    /// # Panics
    /// If structured replies were not negotiated.
    pub fn read_part(&self, cookie: u64, extent: Extent, is_last: bool) -> ReplyHead {
        assert!(self.structured, "a simple reply has no parts");
        chunk_of_data(cookie, extent, is_last)
    }

    /// A read may be answered in parts.
    pub fn has_parts(&self) -> bool {
        self.structured
    }

    /// Success of a command that has no data to return; also of a read of no bytes.
    pub fn done(&self, cookie: u64, kind: CommandKind) -> ReplyHead {
        if !self.must_be_chunk(kind) {
            return ReplyHead::of(&[&simple(cookie, None)]);
        }
        let chunk = ChunkHeader { flags: NBD_REPLY_FLAG_DONE, kind: NBD_REPLY_TYPE_NONE, cookie, length: 0 };
        ReplyHead::of(&[&chunk.encode()])
    }

    /// Failure, without a message.
    pub fn error(&self, cookie: u64, kind: CommandKind, error: NbdError) -> ReplyHead {
        if !self.must_be_chunk(kind) {
            return ReplyHead::of(&[&simple(cookie, Some(error))]);
        }
        let chunk = error_chunk(cookie, 0);
        ReplyHead::of(&[&chunk.encode(), &error.code().to_be_bytes(), &[0, 0]])
    }

    /// Appends a failure to `out`, with a message where the form of the reply has room for one.
    /// Messages longer than the protocol allows are clipped.
    pub fn error_message(
        &self,
        out: &mut Vec<u8>,
        cookie: u64,
        kind: CommandKind,
        error: NbdError,
        message: &str,
    ) {
        if !self.must_be_chunk(kind) {
            out.extend_from_slice(&simple(cookie, Some(error)));
            return;
        }
        let message = clipped(message);
        // At most STRING_BYTES_MAX, so it fits 16 bits.
        let length = message.len() as u16;
        out.extend_from_slice(&error_chunk(cookie, length).encode());
        out.extend_from_slice(&error.code().to_be_bytes());
        out.extend_from_slice(&length.to_be_bytes());
        out.extend_from_slice(message.as_bytes());
    }

    /// The specification lets simple replies answer all but reads. Clients are known to insist on
    /// a chunk for BLOCK_STATUS too, also for its errors.
    fn must_be_chunk(&self, kind: CommandKind) -> bool {
        self.structured && matches!(kind, CommandKind::Read | CommandKind::BlockStatus)
    }
}

/// The longest beginning of `message` that the protocol allows and that is whole characters.
fn clipped(message: &str) -> &str {
    let mut end = message.len().min(STRING_BYTES_MAX);
    while !message.is_char_boundary(end) {
        end -= 1;
    }
    &message[..end]
}

fn chunk_of_data(cookie: u64, extent: Extent, is_last: bool) -> ReplyHead {
    let length = u32::try_from(extent.len + 8).expect("reads are bounded by PAYLOAD_BYTES_MAX");
    let flags = if is_last { NBD_REPLY_FLAG_DONE } else { 0 };
    let chunk = ChunkHeader { flags, kind: NBD_REPLY_TYPE_OFFSET_DATA, cookie, length };
    ReplyHead::of(&[&chunk.encode(), &extent.offset.to_be_bytes()])
}

fn error_chunk(cookie: u64, message_bytes: u16) -> ChunkHeader {
    ChunkHeader {
        flags: NBD_REPLY_FLAG_DONE,
        kind: NBD_REPLY_TYPE_ERROR,
        cookie,
        length: ERROR_BYTES as u32 + u32::from(message_bytes),
    }
}

#[cfg(test)]
mod tests;
