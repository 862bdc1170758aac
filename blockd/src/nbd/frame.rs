//! The fixed layouts of the NBD protocol; every number is big-endian.
//!
//! ```text
//! option         IHAVEOPT:8  option:4  length:4            + length bytes
//! option reply   magic:8  option:4  type:4  length:4       + length bytes
//! request        magic:4  flags:2  type:2  cookie:8  offset:8  length:4   + data of a write
//! simple reply   magic:4  error:4  cookie:8                + data of a read
//! reply chunk    magic:4  flags:2  type:2  cookie:8  length:4   + length bytes
//! ```
//!
//! Knows where fields lie and what the magic is; whether a value makes sense is for others.

use crate::nbd::error::ProtocolError;
use crate::nbd::wire::{
    NBD_OPTS_MAGIC, NBD_REP_MAGIC, NBD_REQUEST_MAGIC, NBD_SIMPLE_REPLY_MAGIC, NBD_STRUCTURED_REPLY_MAGIC,
};

/// Bytes in the header of an option.
pub const OPTION_BYTES: usize = 16;
/// Bytes in the header of a reply to an option.
pub const OPTION_REPLY_BYTES: usize = 20;
/// Bytes in the header of a request.
pub const REQUEST_BYTES: usize = 28;
/// Bytes in a simple reply, without a read's data.
pub const SIMPLE_REPLY_BYTES: usize = 16;
/// Bytes in the header of a chunk.
pub const CHUNK_BYTES: usize = 20;

/// Copies the `N` bytes at `at`. Callers pass constants that lie inside `bytes`.
fn field<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    let mut field = [0; N];
    field.copy_from_slice(&bytes[at..at + N]);
    field
}

/// The header of an option.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OptionHeader {
    /// `NBD_OPT_*`.
    pub option: u32,
    /// Bytes of data that follow.
    pub length: u32,
}

impl OptionHeader {
    /// Reads a header; an error if it does not begin with the magic.
    pub fn decode(bytes: &[u8; OPTION_BYTES]) -> Result<Self, ProtocolError> {
        let found = u64::from_be_bytes(field(bytes, 0));
        if found != NBD_OPTS_MAGIC {
            return Err(ProtocolError::OptionMagic { found });
        }
        let option = u32::from_be_bytes(field(bytes, 8));
        Ok(Self { option, length: u32::from_be_bytes(field(bytes, 12)) })
    }

    /// Lays the header out, as a client does.
    pub fn encode(&self) -> [u8; OPTION_BYTES] {
        let mut bytes = [0; OPTION_BYTES];
        bytes[0..8].copy_from_slice(&NBD_OPTS_MAGIC.to_be_bytes());
        bytes[8..12].copy_from_slice(&self.option.to_be_bytes());
        bytes[12..16].copy_from_slice(&self.length.to_be_bytes());
        bytes
    }
}

/// The header of a reply to an option.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OptionReplyHeader {
    /// The option that is answered.
    pub option: u32,
    /// `NBD_REP_*`.
    pub reply: u32,
    /// Bytes of data that follow.
    pub length: u32,
}

impl OptionReplyHeader {
    /// Lays the header out.
    pub fn encode(&self) -> [u8; OPTION_REPLY_BYTES] {
        let mut bytes = [0; OPTION_REPLY_BYTES];
        bytes[0..8].copy_from_slice(&NBD_REP_MAGIC.to_be_bytes());
        bytes[8..12].copy_from_slice(&self.option.to_be_bytes());
        bytes[12..16].copy_from_slice(&self.reply.to_be_bytes());
        bytes[16..20].copy_from_slice(&self.length.to_be_bytes());
        bytes
    }

    /// Reads a header, as a client does; nothing if it does not begin with the magic.
    pub fn decode(bytes: &[u8; OPTION_REPLY_BYTES]) -> Option<Self> {
        (u64::from_be_bytes(field(bytes, 0)) == NBD_REP_MAGIC).then(|| Self {
            option: u32::from_be_bytes(field(bytes, 8)),
            reply: u32::from_be_bytes(field(bytes, 12)),
            length: u32::from_be_bytes(field(bytes, 16)),
        })
    }
}

/// The header of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RequestHeader {
    /// `NBD_CMD_FLAG_*`.
    pub flags: u16,
    /// `NBD_CMD_*`.
    pub command: u16,
    /// The client's own name for the request.
    pub cookie: u64,
    /// First byte of the range.
    pub offset: u64,
    /// Bytes in the range.
    pub length: u32,
}

impl RequestHeader {
    /// Reads a header; an error if it does not begin with the magic.
    pub fn decode(bytes: &[u8; REQUEST_BYTES]) -> Result<Self, ProtocolError> {
        let found = u32::from_be_bytes(field(bytes, 0));
        if found != NBD_REQUEST_MAGIC {
            return Err(ProtocolError::RequestMagic { found });
        }
        Ok(Self {
            flags: u16::from_be_bytes(field(bytes, 4)),
            command: u16::from_be_bytes(field(bytes, 6)),
            cookie: u64::from_be_bytes(field(bytes, 8)),
            offset: u64::from_be_bytes(field(bytes, 16)),
            length: u32::from_be_bytes(field(bytes, 24)),
        })
    }

    /// Lays the header out, as a client does.
    pub fn encode(&self) -> [u8; REQUEST_BYTES] {
        let mut bytes = [0; REQUEST_BYTES];
        bytes[0..4].copy_from_slice(&NBD_REQUEST_MAGIC.to_be_bytes());
        bytes[4..6].copy_from_slice(&self.flags.to_be_bytes());
        bytes[6..8].copy_from_slice(&self.command.to_be_bytes());
        bytes[8..16].copy_from_slice(&self.cookie.to_be_bytes());
        bytes[16..24].copy_from_slice(&self.offset.to_be_bytes());
        bytes[24..28].copy_from_slice(&self.length.to_be_bytes());
        bytes
    }
}

/// A simple reply; a read's data follows a reply without error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SimpleReply {
    /// 0 for success, or an [`NbdError`](super::wire::NbdError).
    pub error: u32,
    /// The request that is answered.
    pub cookie: u64,
}

impl SimpleReply {
    /// Lays the reply out.
    pub fn encode(&self) -> [u8; SIMPLE_REPLY_BYTES] {
        let mut bytes = [0; SIMPLE_REPLY_BYTES];
        bytes[0..4].copy_from_slice(&NBD_SIMPLE_REPLY_MAGIC.to_be_bytes());
        bytes[4..8].copy_from_slice(&self.error.to_be_bytes());
        bytes[8..16].copy_from_slice(&self.cookie.to_be_bytes());
        bytes
    }

    /// Reads a reply, as a client does; nothing if it does not begin with the magic.
    pub fn decode(bytes: &[u8; SIMPLE_REPLY_BYTES]) -> Option<Self> {
        (u32::from_be_bytes(field(bytes, 0)) == NBD_SIMPLE_REPLY_MAGIC).then(|| Self {
            error: u32::from_be_bytes(field(bytes, 4)),
            cookie: u64::from_be_bytes(field(bytes, 8)),
        })
    }
}

/// The header of a chunk of a structured reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChunkHeader {
    /// `NBD_REPLY_FLAG_*`.
    pub flags: u16,
    /// `NBD_REPLY_TYPE_*`.
    pub kind: u16,
    /// The request that is answered.
    pub cookie: u64,
    /// Bytes of payload that follow.
    pub length: u32,
}

impl ChunkHeader {
    /// Lays the header out.
    pub fn encode(&self) -> [u8; CHUNK_BYTES] {
        let mut bytes = [0; CHUNK_BYTES];
        bytes[0..4].copy_from_slice(&NBD_STRUCTURED_REPLY_MAGIC.to_be_bytes());
        bytes[4..6].copy_from_slice(&self.flags.to_be_bytes());
        bytes[6..8].copy_from_slice(&self.kind.to_be_bytes());
        bytes[8..16].copy_from_slice(&self.cookie.to_be_bytes());
        bytes[16..20].copy_from_slice(&self.length.to_be_bytes());
        bytes
    }

    /// Reads a header, as a client does; nothing if it does not begin with the magic.
    pub fn decode(bytes: &[u8; CHUNK_BYTES]) -> Option<Self> {
        (u32::from_be_bytes(field(bytes, 0)) == NBD_STRUCTURED_REPLY_MAGIC).then(|| Self {
            flags: u16::from_be_bytes(field(bytes, 4)),
            kind: u16::from_be_bytes(field(bytes, 6)),
            cookie: u64::from_be_bytes(field(bytes, 8)),
            length: u32::from_be_bytes(field(bytes, 16)),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::{ChunkHeader, OptionHeader, OptionReplyHeader, RequestHeader, SimpleReply};
    use proptest::{prop_assert_eq, proptest};

    #[test]
    fn a_request_header_has_its_golden_bytes() {
        let header = RequestHeader {
            flags: 0x0102,
            command: 0x0304,
            cookie: 0x0506_0708_090a_0b0c,
            offset: 0x0d0e_0f10_1112_1314,
            length: 0x1516_1718,
        };
        let mut golden = vec![0x25, 0x60, 0x95, 0x13];
        golden.extend(1..=0x18_u8);
        assert_eq!(header.encode().as_slice(), golden);
    }

    #[test]
    fn an_option_header_has_its_golden_bytes() {
        let header = OptionHeader { option: 7, length: 0x0102_0304 };
        assert_eq!(&header.encode(), b"IHAVEOPT\0\0\0\x07\x01\x02\x03\x04");
    }

    proptest! {
        #[test]
        fn what_is_encoded_decodes_to_the_same(
            a in proptest::num::u16::ANY, b in proptest::num::u16::ANY, cookie in proptest::num::u64::ANY,
            offset in proptest::num::u64::ANY, c in proptest::num::u32::ANY, d in proptest::num::u32::ANY,
            e in proptest::num::u32::ANY,
        ) {
            let request = RequestHeader { flags: a, command: b, cookie, offset, length: c };
            prop_assert_eq!(RequestHeader::decode(&request.encode()), Ok(request));
            let option = OptionHeader { option: c, length: d };
            prop_assert_eq!(OptionHeader::decode(&option.encode()), Ok(option));
            let reply = OptionReplyHeader { option: c, reply: d, length: e };
            prop_assert_eq!(OptionReplyHeader::decode(&reply.encode()), Some(reply));
            let simple = SimpleReply { error: c, cookie };
            prop_assert_eq!(SimpleReply::decode(&simple.encode()), Some(simple));
            let chunk = ChunkHeader { flags: a, kind: b, cookie, length: c };
            prop_assert_eq!(ChunkHeader::decode(&chunk.encode()), Some(chunk));
        }
    }
}
