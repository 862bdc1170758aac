//! The frames of the replica protocol: a fixed header and a bounded body, little-endian.
//!
//! ```text
//! 0      4     5     6       8       16      24         28         32          36
//! | magic | type | 0 |   0   | epoch |  seq  | body len | body crc | header crc | body …
//! ```
//!
//! The header's checksum is apart from the body's, so that the length can be trusted before the
//! body is read. Unknown types and reserved bytes that are not zero are refused. Knows nothing of
//! what is in a body: see `wire`. Normative in `docs/wire.md`.

use thiserror::Error;

/// First bytes of every frame.
pub const MAGIC: [u8; 4] = *b"MRPL";
/// Bytes of a frame's header.
pub const HEADER_BYTES: usize = 36;
/// The longest body, in bytes.
pub const BODY_BYTES_MAX: usize = 2 << 20;

/// Why bytes are not a frame.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum Malformed {
    /// The stream is not this protocol.
    #[error("the stream does not start with the frame magic (got {0:02x?})")]
    Magic([u8; 4]),
    /// A bit flipped, or the stream is torn.
    #[error("the checksum of the {0} does not match")]
    Checksum(&'static str),
    /// A frame type that this version does not know.
    #[error("unknown frame type {0}")]
    Type(u8),
    /// Reserved bytes are in use.
    #[error("reserved bytes of the {0} are not zero")]
    Reserved(&'static str),
    /// The length is out of bounds.
    #[error("a body of {0} bytes is past the limit of {BODY_BYTES_MAX}")]
    Length(u32),
    /// The body ends early, or goes on after its end.
    #[error("the body of a {0} frame is too short or too long")]
    Truncated(&'static str),
    /// A field is out of its bounds.
    #[error("{0}")]
    Field(&'static str),
}

/// What a frame is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum FrameType {
    /// Source: who I am, which disk, which epoch.
    Hello = 1,
    /// Destination: go on.
    Welcome = 2,
    /// Destination: no, and why.
    Refused = 3,
    /// Source: changes and checks, in order.
    Batch = 4,
    /// Destination: everything up to `seq` is durable; these leaves differ.
    Ack = 5,
    /// Source: this is all, for this generation.
    Seal = 6,
    /// Destination: sealed, durably.
    Sealed = 7,
    /// Source: the seal is void.
    Unseal = 8,
    /// Destination: cannot go on, and why.
    Failed = 9,
}

impl FrameType {
    /// Every type, in the order of its number.
    pub const ALL: [FrameType; 9] = [
        FrameType::Hello,
        FrameType::Welcome,
        FrameType::Refused,
        FrameType::Batch,
        FrameType::Ack,
        FrameType::Seal,
        FrameType::Sealed,
        FrameType::Unseal,
        FrameType::Failed,
    ];

    fn parse(byte: u8) -> Result<Self, Malformed> {
        Self::ALL.into_iter().find(|known| *known as u8 == byte).ok_or(Malformed::Type(byte))
    }
}

/// A frame's header, checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// What the body is.
    pub frame_type: FrameType,
    /// The session (D13).
    pub epoch: u64,
    /// The place in the session's order; batches count from 1.
    pub seq: u64,
    /// Length of the body in bytes.
    pub body_bytes: u32,
    /// CRC-32 of the body.
    pub body_crc: u32,
}

impl Header {
    /// The header for `body`.
    pub fn for_body(frame_type: FrameType, epoch: u64, seq: u64, body: &[u8]) -> Self {
        let body_bytes = u32::try_from(body.len()).expect("bodies are bounded");
        Self { frame_type, epoch, seq, body_bytes, body_crc: crc32fast::hash(body) }
    }

    /// Lays the header out.
    pub fn encode(&self) -> [u8; HEADER_BYTES] {
        let mut bytes = [0; HEADER_BYTES];
        bytes[0..4].copy_from_slice(&MAGIC);
        bytes[4] = self.frame_type as u8;
        bytes[8..16].copy_from_slice(&self.epoch.to_le_bytes());
        bytes[16..24].copy_from_slice(&self.seq.to_le_bytes());
        bytes[24..28].copy_from_slice(&self.body_bytes.to_le_bytes());
        bytes[28..32].copy_from_slice(&self.body_crc.to_le_bytes());
        let crc = crc32fast::hash(&bytes[..32]);
        bytes[32..36].copy_from_slice(&crc.to_le_bytes());
        bytes
    }

    /// Reads and checks a header.
    pub fn decode(bytes: &[u8; HEADER_BYTES]) -> Result<Self, Malformed> {
        let mut reader = Reader::new(bytes, "header");
        let magic: [u8; 4] = reader.array()?;
        if magic != MAGIC {
            return Err(Malformed::Magic(magic));
        }
        let crc = u32::from_le_bytes(bytes[32..36].try_into().expect("four bytes"));
        if crc32fast::hash(&bytes[..32]) != crc {
            return Err(Malformed::Checksum("header"));
        }
        let frame_type = FrameType::parse(reader.u8()?)?;
        if reader.array::<3>()? != [0; 3] {
            return Err(Malformed::Reserved("header"));
        }
        let header = Self {
            frame_type,
            epoch: reader.u64()?,
            seq: reader.u64()?,
            body_bytes: reader.u32()?,
            body_crc: reader.u32()?,
        };
        if header.body_bytes as usize > BODY_BYTES_MAX {
            return Err(Malformed::Length(header.body_bytes));
        }
        Ok(header)
    }

    /// Checks that `body` is the body that this header announced.
    pub fn check_body(&self, body: &[u8]) -> Result<(), Malformed> {
        if crc32fast::hash(body) == self.body_crc { Ok(()) } else { Err(Malformed::Checksum("body")) }
    }
}

/// A whole frame as bytes.
pub fn frame(frame_type: FrameType, epoch: u64, seq: u64, body: &[u8]) -> Vec<u8> {
    let mut bytes = Header::for_body(frame_type, epoch, seq, body).encode().to_vec();
    bytes.extend_from_slice(body);
    bytes
}

/// Takes a body apart without ever reading past it.
pub(super) struct Reader<'a> {
    rest: &'a [u8],
    what: &'static str,
}

impl<'a> Reader<'a> {
    pub(super) fn new(rest: &'a [u8], what: &'static str) -> Self {
        Self { rest, what }
    }

    pub(super) fn bytes(&mut self, count: usize) -> Result<&'a [u8], Malformed> {
        let (taken, rest) = self.rest.split_at_checked(count).ok_or(Malformed::Truncated(self.what))?;
        self.rest = rest;
        Ok(taken)
    }

    pub(super) fn array<const N: usize>(&mut self) -> Result<[u8; N], Malformed> {
        Ok(self.bytes(N)?.try_into().expect("N bytes were taken"))
    }

    pub(super) fn u8(&mut self) -> Result<u8, Malformed> {
        Ok(self.array::<1>()?[0])
    }

    pub(super) fn u16(&mut self) -> Result<u16, Malformed> {
        Ok(u16::from_le_bytes(self.array()?))
    }

    pub(super) fn u32(&mut self) -> Result<u32, Malformed> {
        Ok(u32::from_le_bytes(self.array()?))
    }

    pub(super) fn u64(&mut self) -> Result<u64, Malformed> {
        Ok(u64::from_le_bytes(self.array()?))
    }

    pub(super) fn text(&mut self, max: usize) -> Result<String, Malformed> {
        let len = usize::from(self.u16()?);
        if len > max {
            return Err(Malformed::Field("a text is longer than allowed"));
        }
        let text =
            std::str::from_utf8(self.bytes(len)?).map_err(|_| Malformed::Field("a text is not UTF-8"))?;
        Ok(text.to_owned())
    }

    pub(super) fn rest(&mut self) -> &'a [u8] {
        std::mem::take(&mut self.rest)
    }

    pub(super) fn end(&self) -> Result<(), Malformed> {
        if self.rest.is_empty() { Ok(()) } else { Err(Malformed::Truncated(self.what)) }
    }
}
