//! The numbers of the NBD protocol, each under the name that the specification gives it, and the
//! few error values that may cross the wire.
//!
//! Holds no structure and no decision: layouts are in `frame`.

/// First eight bytes of a greeting: `NBDMAGIC`.
pub const NBD_INIT_MAGIC: u64 = 0x4e42_444d_4147_4943;
/// Opens the second half of a greeting, and every option: `IHAVEOPT`.
pub const NBD_OPTS_MAGIC: u64 = 0x4948_4156_454f_5054;
/// Opens every reply to an option.
pub const NBD_REP_MAGIC: u64 = 0x0003_e889_0455_65a9;
/// Opens every request.
pub const NBD_REQUEST_MAGIC: u32 = 0x2560_9513;
/// Opens a simple reply.
pub const NBD_SIMPLE_REPLY_MAGIC: u32 = 0x6744_6698;
/// Opens a chunk of a structured reply.
pub const NBD_STRUCTURED_REPLY_MAGIC: u32 = 0x668e_33ef;

/// Handshake flag: options are answered by structured replies.
pub const NBD_FLAG_FIXED_NEWSTYLE: u16 = 1 << 0;
/// Handshake flag: the 124 zero bytes after `NBD_OPT_EXPORT_NAME` can be left out.
pub const NBD_FLAG_NO_ZEROES: u16 = 1 << 1;
/// Client flag: answers [`NBD_FLAG_FIXED_NEWSTYLE`].
pub const NBD_FLAG_C_FIXED_NEWSTYLE: u32 = 1 << 0;
/// Client flag: answers [`NBD_FLAG_NO_ZEROES`].
pub const NBD_FLAG_C_NO_ZEROES: u32 = 1 << 1;

/// Transmission flag: always set.
pub const NBD_FLAG_HAS_FLAGS: u16 = 1 << 0;
/// Transmission flag: writes are refused.
pub const NBD_FLAG_READ_ONLY: u16 = 1 << 1;
/// Transmission flag: `NBD_CMD_FLUSH` is supported.
pub const NBD_FLAG_SEND_FLUSH: u16 = 1 << 2;
/// Transmission flag: `NBD_CMD_FLAG_FUA` is supported.
pub const NBD_FLAG_SEND_FUA: u16 = 1 << 3;
/// Transmission flag: seeks are costly.
pub const NBD_FLAG_ROTATIONAL: u16 = 1 << 4;
/// Transmission flag: `NBD_CMD_TRIM` is supported.
pub const NBD_FLAG_SEND_TRIM: u16 = 1 << 5;
/// Transmission flag: `NBD_CMD_WRITE_ZEROES` is supported.
pub const NBD_FLAG_SEND_WRITE_ZEROES: u16 = 1 << 6;
/// Transmission flag: `NBD_CMD_FLAG_DF` is supported.
pub const NBD_FLAG_SEND_DF: u16 = 1 << 7;
/// Transmission flag: a flush on one connection covers all.
pub const NBD_FLAG_CAN_MULTI_CONN: u16 = 1 << 8;
/// Transmission flag: `NBD_CMD_CACHE` is supported.
pub const NBD_FLAG_SEND_CACHE: u16 = 1 << 10;
/// Transmission flag: `NBD_CMD_FLAG_FAST_ZERO` is supported (never offered here).
pub const NBD_FLAG_SEND_FAST_ZERO: u16 = 1 << 11;

/// Option: choose an export and start, without a way to be refused politely.
pub const NBD_OPT_EXPORT_NAME: u32 = 1;
/// Option: leave.
pub const NBD_OPT_ABORT: u32 = 2;
/// Option: name the exports.
pub const NBD_OPT_LIST: u32 = 3;
/// Option: withdrawn from the protocol.
pub const NBD_OPT_PEEK_EXPORT: u32 = 4;
/// Option: upgrade to TLS.
pub const NBD_OPT_STARTTLS: u32 = 5;
/// Option: describe an export.
pub const NBD_OPT_INFO: u32 = 6;
/// Option: describe an export and start.
pub const NBD_OPT_GO: u32 = 7;
/// Option: use structured replies.
pub const NBD_OPT_STRUCTURED_REPLY: u32 = 8;
/// Option: name the metadata contexts.
pub const NBD_OPT_LIST_META_CONTEXT: u32 = 9;
/// Option: select metadata contexts.
pub const NBD_OPT_SET_META_CONTEXT: u32 = 10;
/// Option: use 64-bit lengths.
pub const NBD_OPT_EXTENDED_HEADERS: u32 = 11;

/// Option reply: accepted, or the end of a list.
pub const NBD_REP_ACK: u32 = 1;
/// Option reply: one export.
pub const NBD_REP_SERVER: u32 = 2;
/// Option reply: one `NBD_INFO_*` item.
pub const NBD_REP_INFO: u32 = 3;
/// Option reply: one metadata context.
pub const NBD_REP_META_CONTEXT: u32 = 4;
/// Option reply: this server does not know the option.
pub const NBD_REP_ERR_UNSUP: u32 = (1 << 31) + 1;
/// Option reply: known, but not allowed.
pub const NBD_REP_ERR_POLICY: u32 = (1 << 31) + 2;
/// Option reply: malformed, or out of order.
pub const NBD_REP_ERR_INVALID: u32 = (1 << 31) + 3;
/// Option reply: not on this platform.
pub const NBD_REP_ERR_PLATFORM: u32 = (1 << 31) + 4;
/// Option reply: TLS first.
pub const NBD_REP_ERR_TLS_REQD: u32 = (1 << 31) + 5;
/// Option reply: no such export.
pub const NBD_REP_ERR_UNKNOWN: u32 = (1 << 31) + 6;
/// Option reply: the server is shutting down.
pub const NBD_REP_ERR_SHUTDOWN: u32 = (1 << 31) + 7;
/// Option reply: the client must ask for the block sizes first.
pub const NBD_REP_ERR_BLOCK_SIZE_REQD: u32 = (1 << 31) + 8;
/// Option reply: too large to process.
pub const NBD_REP_ERR_TOO_BIG: u32 = (1 << 31) + 9;

/// Information item: size and transmission flags.
pub const NBD_INFO_EXPORT: u16 = 0;
/// Information item: the export's canonical name.
pub const NBD_INFO_NAME: u16 = 1;
/// Information item: a description for people.
pub const NBD_INFO_DESCRIPTION: u16 = 2;
/// Information item: minimum, preferred and maximum block size.
pub const NBD_INFO_BLOCK_SIZE: u16 = 3;

/// Command: read.
pub const NBD_CMD_READ: u16 = 0;
/// Command: write; the data follows the header.
pub const NBD_CMD_WRITE: u16 = 1;
/// Command: disconnect; has no reply.
pub const NBD_CMD_DISC: u16 = 2;
/// Command: make completed writes durable.
pub const NBD_CMD_FLUSH: u16 = 3;
/// Command: discard a range.
pub const NBD_CMD_TRIM: u16 = 4;
/// Command: bring a range near.
pub const NBD_CMD_CACHE: u16 = 5;
/// Command: zero a range.
pub const NBD_CMD_WRITE_ZEROES: u16 = 6;
/// Command: say what is allocated.
pub const NBD_CMD_BLOCK_STATUS: u16 = 7;

/// Command flag: durable before the reply.
pub const NBD_CMD_FLAG_FUA: u16 = 1 << 0;
/// Command flag of `NBD_CMD_WRITE_ZEROES`: keep the range allocated.
pub const NBD_CMD_FLAG_NO_HOLE: u16 = 1 << 1;
/// Command flag of `NBD_CMD_READ`: one content chunk at most.
pub const NBD_CMD_FLAG_DF: u16 = 1 << 2;
/// Command flag of `NBD_CMD_BLOCK_STATUS`: one descriptor is enough.
pub const NBD_CMD_FLAG_REQ_ONE: u16 = 1 << 3;
/// Command flag of `NBD_CMD_WRITE_ZEROES`: fail if not faster than writing (never offered here).
pub const NBD_CMD_FLAG_FAST_ZERO: u16 = 1 << 4;

/// Chunk flag: the last one of this reply.
pub const NBD_REPLY_FLAG_DONE: u16 = 1 << 0;
/// Chunk: nothing.
pub const NBD_REPLY_TYPE_NONE: u16 = 0;
/// Chunk: an offset and the data there.
pub const NBD_REPLY_TYPE_OFFSET_DATA: u16 = 1;
/// Chunk: an offset and a length of zeros.
pub const NBD_REPLY_TYPE_OFFSET_HOLE: u16 = 2;
/// Chunk: a metadata context and its descriptors.
pub const NBD_REPLY_TYPE_BLOCK_STATUS: u16 = 5;
/// Chunk: an error and a message.
pub const NBD_REPLY_TYPE_ERROR: u16 = (1 << 15) + 1;
/// Chunk: an error, a message and an offset.
pub const NBD_REPLY_TYPE_ERROR_OFFSET: u16 = (1 << 15) + 2;

/// `base:allocation`: not allocated.
pub const NBD_STATE_HOLE: u32 = 1 << 0;
/// `base:allocation`: reads as zeros.
pub const NBD_STATE_ZERO: u32 = 1 << 1;

/// The one metadata context that the specification defines.
pub const BASE_ALLOCATION: &str = "base:allocation";
/// What this server calls it in block status replies.
pub const BASE_ALLOCATION_ID: u32 = 1;

/// The longest string that the protocol allows, in bytes.
pub const STRING_BYTES_MAX: usize = 4096;

/// The error values that the protocol allows in a reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u32)]
pub enum NbdError {
    /// Operation not permitted.
    Perm = 1,
    /// Input/output error.
    Io = 5,
    /// Cannot allocate memory.
    NoMem = 12,
    /// Invalid argument.
    Inval = 22,
    /// No space left on device.
    NoSpc = 28,
    /// Value too large.
    Overflow = 75,
    /// Operation not supported.
    NotSup = 95,
    /// Server is shutting down.
    Shutdown = 108,
}

impl NbdError {
    /// The value on the wire.
    pub const fn code(self) -> u32 {
        self as u32
    }
}

/// The nearest error that the protocol allows for an `errno` of this machine.
pub const fn errno_to_nbd(errno: i32) -> NbdError {
    match errno {
        libc::EPERM | libc::EROFS => NbdError::Perm,
        libc::ENOMEM => NbdError::NoMem,
        libc::EINVAL => NbdError::Inval,
        libc::ENOSPC | libc::EDQUOT | libc::EFBIG => NbdError::NoSpc,
        libc::EOVERFLOW => NbdError::Overflow,
        libc::ENOTSUP => NbdError::NotSup,
        libc::ESHUTDOWN => NbdError::Shutdown,
        _ => NbdError::Io,
    }
}

#[cfg(test)]
mod tests {
    use super::{NbdError, errno_to_nbd};

    #[test]
    fn every_errno_becomes_one_that_the_protocol_allows() {
        let allowed = [1, 5, 12, 22, 28, 75, 95, 108];
        for errno in -5000..5000 {
            let code = errno_to_nbd(errno).code();
            assert!(allowed.contains(&code));
            if allowed.contains(&u32::try_from(errno).unwrap_or(0)) {
                assert_eq!(i64::from(code), i64::from(errno));
            }
        }
        assert_eq!(errno_to_nbd(libc::EDQUOT), NbdError::NoSpc);
        assert_eq!(errno_to_nbd(libc::EFBIG), NbdError::NoSpc);
        assert_eq!(errno_to_nbd(libc::EROFS), NbdError::Perm);
        assert_eq!(errno_to_nbd(libc::EBADF), NbdError::Io);
    }
}
