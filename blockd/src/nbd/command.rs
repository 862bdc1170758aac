//! What a client can ask for, as values.
//!
//! Knows which flags belong to which command; whether a range makes sense for an export is decided
//! in `request`.

use crate::extent::Extent;
use crate::nbd::frame::RequestHeader;
use crate::nbd::wire::{
    NBD_CMD_BLOCK_STATUS, NBD_CMD_CACHE, NBD_CMD_DISC, NBD_CMD_FLAG_DF, NBD_CMD_FLAG_FUA,
    NBD_CMD_FLAG_NO_HOLE, NBD_CMD_FLAG_REQ_ONE, NBD_CMD_FLUSH, NBD_CMD_READ, NBD_CMD_TRIM, NBD_CMD_WRITE,
    NBD_CMD_WRITE_ZEROES,
};

/// A valid request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Request {
    /// The client's own name for it, to be repeated in the reply.
    pub cookie: u64,
    /// What it wants. Never an empty extent.
    pub command: Command,
}

impl Request {
    /// Bytes of data that follow the header.
    pub fn payload_bytes(&self) -> u32 {
        match self.command {
            Command::Write { extent, .. } => extent.len as u32,
            _ => 0,
        }
    }
}

/// What a client wants. Every extent lies on the disk, is aligned, and is not empty.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Command {
    /// Read, at most [`request_bytes_max`](super::export::Export::request_bytes_max).
    Read {
        /// Where.
        extent: Extent,
        /// Only one chunk may be sent.
        dont_fragment: bool,
    },
    /// Write what follows, as bounded.
    Write {
        /// Where.
        extent: Extent,
        /// Durable before the reply (D9).
        fua: bool,
    },
    /// Make every write that was answered durable (D9).
    Flush,
    /// Discard.
    Trim {
        /// Where.
        extent: Extent,
        /// Durable before the reply (D9).
        fua: bool,
    },
    /// Zero.
    WriteZeroes {
        /// Where.
        extent: Extent,
        /// Durable before the reply (D9).
        fua: bool,
        /// Keep it allocated.
        no_hole: bool,
    },
    /// Bring near.
    Cache {
        /// Where.
        extent: Extent,
    },
    /// Say what is allocated.
    BlockStatus {
        /// Where.
        extent: Extent,
        /// One descriptor is enough.
        request_one: bool,
    },
    /// Finish what is under way and close the connection. Has no reply.
    Disconnect,
}

impl Command {
    /// Its range, if it has one.
    pub fn extent(&self) -> Option<Extent> {
        match *self {
            Command::Read { extent, .. }
            | Command::Write { extent, .. }
            | Command::Trim { extent, .. }
            | Command::WriteZeroes { extent, .. }
            | Command::Cache { extent }
            | Command::BlockStatus { extent, .. } => Some(extent),
            Command::Flush | Command::Disconnect => None,
        }
    }

    /// The command without its arguments.
    pub fn kind(&self) -> CommandKind {
        match self {
            Command::Read { .. } => CommandKind::Read,
            Command::Write { .. } => CommandKind::Write,
            Command::Flush => CommandKind::Flush,
            Command::Trim { .. } => CommandKind::Trim,
            Command::WriteZeroes { .. } => CommandKind::WriteZeroes,
            Command::Cache { .. } => CommandKind::Cache,
            Command::BlockStatus { .. } => CommandKind::BlockStatus,
            Command::Disconnect => CommandKind::Disconnect,
        }
    }
}

/// A command without its arguments; the form of a reply depends on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum CommandKind {
    /// `NBD_CMD_READ`
    Read,
    /// `NBD_CMD_WRITE`
    Write,
    /// `NBD_CMD_DISC`
    Disconnect,
    /// `NBD_CMD_FLUSH`
    Flush,
    /// `NBD_CMD_TRIM`
    Trim,
    /// `NBD_CMD_CACHE`
    Cache,
    /// `NBD_CMD_WRITE_ZEROES`
    WriteZeroes,
    /// `NBD_CMD_BLOCK_STATUS`
    BlockStatus,
    /// A number that is no command.
    Unknown(u16),
}

impl CommandKind {
    /// The command with this number.
    pub(super) fn of(command: u16) -> Self {
        match command {
            NBD_CMD_READ => CommandKind::Read,
            NBD_CMD_WRITE => CommandKind::Write,
            NBD_CMD_DISC => CommandKind::Disconnect,
            NBD_CMD_FLUSH => CommandKind::Flush,
            NBD_CMD_TRIM => CommandKind::Trim,
            NBD_CMD_CACHE => CommandKind::Cache,
            NBD_CMD_WRITE_ZEROES => CommandKind::WriteZeroes,
            NBD_CMD_BLOCK_STATUS => CommandKind::BlockStatus,
            unknown => CommandKind::Unknown(unknown),
        }
    }

    /// The flags that a client may set. FUA is valid for every command, and ignored where nothing
    /// is written.
    pub(super) fn flags_allowed(self, structured_replies: bool) -> u16 {
        NBD_CMD_FLAG_FUA
            | match self {
                CommandKind::Read if structured_replies => NBD_CMD_FLAG_DF,
                CommandKind::WriteZeroes => NBD_CMD_FLAG_NO_HOLE,
                CommandKind::BlockStatus => NBD_CMD_FLAG_REQ_ONE,
                _ => 0,
            }
    }

    /// True for commands that change the disk.
    pub fn mutates(self) -> bool {
        matches!(self, CommandKind::Write | CommandKind::Trim | CommandKind::WriteZeroes)
    }
}

/// The command of a header that passed the checks; none if there is nothing to do.
pub(super) fn command(kind: CommandKind, header: &RequestHeader) -> Option<Command> {
    let has = |flag: u16| header.flags & flag != 0;
    let extent = Extent::new(header.offset, u64::from(header.length));
    let fua = has(NBD_CMD_FLAG_FUA);
    if extent.is_empty() && kind != CommandKind::Flush {
        return None;
    }
    match kind {
        CommandKind::Read => Some(Command::Read { extent, dont_fragment: has(NBD_CMD_FLAG_DF) }),
        CommandKind::Write => Some(Command::Write { extent, fua }),
        CommandKind::Flush => Some(Command::Flush),
        CommandKind::Trim => Some(Command::Trim { extent, fua }),
        CommandKind::WriteZeroes => {
            Some(Command::WriteZeroes { extent, fua, no_hole: has(NBD_CMD_FLAG_NO_HOLE) })
        }
        CommandKind::Cache => Some(Command::Cache { extent }),
        CommandKind::BlockStatus => {
            Some(Command::BlockStatus { extent, request_one: has(NBD_CMD_FLAG_REQ_ONE) })
        }
        CommandKind::Disconnect | CommandKind::Unknown(_) => None,
    }
}
