//! One request of a client: what it wants, or why it cannot have it.
//!
//! Nothing here allocates: a header becomes a [`Parsed`] by looking at 28 bytes. What a client was
//! offered in the handshake is enforced here, whether or not it asked to be told.
//!
//! Checks, in order: command, flags, negotiation, read-only, range, alignment, length. A request
//! of no bytes passes the same checks and then succeeds without touching the disk.
//!
//! Does not read a write's data: [`Request::payload_bytes`] and `payload_to_discard` say how many
//! bytes of it follow the header.

use thiserror::Error;

use crate::nbd::command::command;
use crate::nbd::error::ProtocolError;
use crate::nbd::export::{Export, Negotiated, PAYLOAD_BYTES_MAX};
use crate::nbd::frame::{REQUEST_BYTES, RequestHeader};
use crate::nbd::wire::NbdError;

pub use crate::nbd::command::{Command, CommandKind, Request};

/// What became of a header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Parsed {
    /// Do it, then reply.
    Valid(Request),
    /// Nothing to do, reply success at once: a request of no bytes. No data follows the header.
    Empty {
        /// The client's own name for the request.
        cookie: u64,
        /// The form of the reply depends on it.
        kind: CommandKind,
    },
    /// Reply an error, after throwing away the data that follows the header.
    Refused {
        /// The client's own name for the request.
        cookie: u64,
        /// The form of the reply depends on it.
        kind: CommandKind,
        /// For the wire.
        error: NbdError,
        /// For the log, and for the message of a structured error.
        reason: Refusal,
        /// Bytes of data that follow the header.
        payload_to_discard: u32,
    },
}

/// Why a request is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum Refusal {
    /// No such command.
    #[error("command {command} is not known to this server")]
    UnknownCommand {
        /// Its number.
        command: u16,
    },
    /// Flags that do not exist, do not belong to the command, or were not negotiated.
    #[error("flags {flags:#06x} are not valid for {kind:?}")]
    Flags {
        /// The offending ones.
        flags: u16,
        /// The command.
        kind: CommandKind,
    },
    /// A flush has no range.
    #[error("a flush with offset {offset} and length {length}, which must be 0")]
    FlushRange {
        /// The offset that it had.
        offset: u64,
        /// The length that it had.
        length: u32,
    },
    /// BLOCK_STATUS without having selected a metadata context.
    #[error("block status without base:allocation having been negotiated")]
    NoMetaContext,
    /// BLOCK_STATUS of nothing, which no legal reply can describe.
    #[error("block status of no bytes")]
    EmptyBlockStatus,
    /// TRIM that was not offered.
    #[error("trim is not offered by this export")]
    NoTrim,
    /// The export is read-only.
    #[error("{kind:?} to a read-only export")]
    ReadOnly {
        /// The command.
        kind: CommandKind,
    },
    /// The range is not wholly on the disk.
    #[error("{kind:?} of {length} bytes at offset {offset} leaves the disk of {size} bytes")]
    OutOfRange {
        /// The command.
        kind: CommandKind,
        /// Start of the range.
        offset: u64,
        /// Its length.
        length: u32,
        /// The disk's size.
        size: u64,
    },
    /// The range is not a number of whole blocks.
    #[error("{length} bytes at offset {offset} are not aligned to the minimum block size {block_size_min}")]
    Unaligned {
        /// Start of the range.
        offset: u64,
        /// Its length.
        length: u32,
        /// What both must be a multiple of.
        block_size_min: u32,
    },
    /// A read or write longer than any that is served.
    #[error("{kind:?} of {length} bytes is longer than the {max} bytes that a request may have")]
    TooLong {
        /// The command.
        kind: CommandKind,
        /// Its length.
        length: u32,
        /// The limit.
        max: u32,
    },
}

impl Refusal {
    /// What the specification wants on the wire for it.
    pub fn error(&self) -> NbdError {
        match self {
            Refusal::ReadOnly { .. } => NbdError::Perm,
            Refusal::OutOfRange { kind: CommandKind::Write | CommandKind::WriteZeroes, .. } => {
                NbdError::NoSpc
            }
            _ => NbdError::Inval,
        }
    }
}

/// The transmission phase of one connection.
#[derive(Clone, Debug)]
pub struct Session {
    /// What is served.
    pub export: Export,
    /// What the handshake agreed on.
    pub negotiated: Negotiated,
}

impl Session {
    /// Reads a request header. An error means that the connection has to be closed.
    pub fn parse(&self, bytes: &[u8; REQUEST_BYTES]) -> Result<Parsed, ProtocolError> {
        let header = RequestHeader::decode(bytes)?;
        let RequestHeader { cookie, offset, length, .. } = header;
        let kind = CommandKind::of(header.command);
        if kind == CommandKind::Write && length > PAYLOAD_BYTES_MAX {
            return Err(ProtocolError::PayloadTooLarge { length, offset, max: PAYLOAD_BYTES_MAX });
        }
        if kind == CommandKind::Disconnect {
            return Ok(Parsed::Valid(Request { cookie, command: Command::Disconnect }));
        }
        if let Err(reason) = self.check(kind, &header) {
            let payload_to_discard = if kind == CommandKind::Write { length } else { 0 };
            return Ok(Parsed::Refused { cookie, kind, error: reason.error(), reason, payload_to_discard });
        }
        Ok(match command(kind, &header) {
            Some(command) => Parsed::Valid(Request { cookie, command }),
            None => Parsed::Empty { cookie, kind },
        })
    }

    fn check(&self, kind: CommandKind, header: &RequestHeader) -> Result<(), Refusal> {
        if let CommandKind::Unknown(command) = kind {
            return Err(Refusal::UnknownCommand { command });
        }
        let flags = header.flags & !kind.flags_allowed(self.negotiated.structured_replies);
        if flags != 0 {
            return Err(Refusal::Flags { flags, kind });
        }
        if kind.mutates() && self.export.read_only {
            return Err(Refusal::ReadOnly { kind });
        }
        let &RequestHeader { offset, length, .. } = header;
        match kind {
            CommandKind::Flush if offset != 0 || length != 0 => Err(Refusal::FlushRange { offset, length }),
            CommandKind::Flush => Ok(()),
            CommandKind::Trim if !self.export.can_trim => Err(Refusal::NoTrim),
            CommandKind::BlockStatus if !self.negotiated.base_allocation => Err(Refusal::NoMetaContext),
            CommandKind::BlockStatus if length == 0 => Err(Refusal::EmptyBlockStatus),
            _ => self.check_range(kind, offset, length),
        }
    }

    fn check_range(&self, kind: CommandKind, offset: u64, length: u32) -> Result<(), Refusal> {
        let &Export { size, block_size_min, .. } = &self.export;
        if offset.checked_add(u64::from(length)).is_none_or(|end| end > size) {
            return Err(Refusal::OutOfRange { kind, offset, length, size });
        }
        // The minimum is a power of two, see Export::validate.
        if (offset | u64::from(length)) & u64::from(block_size_min.wrapping_sub(1)) != 0 {
            return Err(Refusal::Unaligned { offset, length, block_size_min });
        }
        let max = self.export.request_bytes_max();
        if length > max && matches!(kind, CommandKind::Read | CommandKind::Write) {
            return Err(Refusal::TooLong { kind, length, max });
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
