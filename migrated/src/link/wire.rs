//! The frames of a link's connections: a fixed header and a bounded body, little-endian.
//!
//! ```text
//! 0      1       2     4         8        16         20         24           28
//! | type | flags |  0  | channel | offset | body len | body crc | header crc | body …
//! ```
//!
//! | frame     | channel | offset            | flags | body              | meaning                               |
//! |-----------|---------|-------------------|-------|-------------------|---------------------------------------|
//! | `Open`    | its     | 0                 | –     | label, credit     | this channel exists                   |
//! | `Data`    | its     | of the first byte | FIN   | bytes             | bytes of it; FIN: they are the last   |
//! | `Ack`     | its     | received up to    | FIN   | credit            | I have all before; FIN: and the end   |
//! | `Reset`   | its     | 0                 | –     | –                 | it is broken off, both ways           |
//! | `Resumed` | 0       | 0                 | –     | –                 | I have said what I have: go on        |
//! | `Ping`    | 0       | nonce             | –     | –                 | say it back                           |
//! | `Pong`    | 0       | nonce             | –     | –                 | here it is                            |
//! | `Close`   | 0       | 0                 | –     | text              | the link is over, for ever            |
//!
//! The header's checksum is apart from the body's, so that the length can be trusted before the body is read.
//! Unknown types, reserved bits that are not zero, and fields that a type does not use are refused. Knows nothing of
//! the state of a channel: see `session`. Normative in `docs/wire.md`.

use super::Label;
pub use super::fields::Malformed;
use super::fields::{Fields, put_text};

/// Bytes of a frame's header.
pub const HEADER_BYTES: usize = 28;
/// The longest body, in bytes.
pub const BODY_BYTES_MAX: usize = 64 << 10;
/// The longest text of a `Close`, in bytes.
pub const TEXT_BYTES_MAX: usize = 1024;

/// The only flag: on `Data` and `Ack`.
const FIN: u8 = 1;

/// What a frame is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum FrameType {
    /// A channel begins to exist.
    Open = 1,
    /// Bytes of a channel.
    Data = 2,
    /// What was received of a channel, and how far the other side may send.
    Ack = 3,
    /// A channel is broken off.
    Reset = 4,
    /// Everything that this side has was said.
    Resumed = 5,
    /// Heartbeat.
    Ping = 6,
    /// Its echo.
    Pong = 7,
    /// The link is over.
    Close = 8,
}

impl FrameType {
    /// Every type, in the order of its number.
    pub const ALL: [FrameType; 8] = [
        FrameType::Open,
        FrameType::Data,
        FrameType::Ack,
        FrameType::Reset,
        FrameType::Resumed,
        FrameType::Ping,
        FrameType::Pong,
        FrameType::Close,
    ];

    fn of_channel(self) -> bool {
        matches!(self, FrameType::Open | FrameType::Data | FrameType::Ack | FrameType::Reset)
    }

    fn has_offset(self) -> bool {
        matches!(self, FrameType::Data | FrameType::Ack | FrameType::Ping | FrameType::Pong)
    }

    fn has_fin(self) -> bool {
        matches!(self, FrameType::Data | FrameType::Ack)
    }
}

/// A frame's header, checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// What the body is.
    pub frame_type: FrameType,
    /// The FIN flag.
    pub fin: bool,
    /// The channel, or 0.
    pub channel: u32,
    /// A place in the channel's stream, or a nonce.
    pub offset: u64,
    /// Length of the body in bytes.
    pub body_bytes: u32,
    /// CRC-32 of the body.
    pub body_crc: u32,
}

impl Header {
    /// Lays the header out.
    pub fn encode(&self) -> [u8; HEADER_BYTES] {
        let mut bytes = [0; HEADER_BYTES];
        bytes[0] = self.frame_type as u8;
        bytes[1] = if self.fin { FIN } else { 0 };
        bytes[4..8].copy_from_slice(&self.channel.to_le_bytes());
        bytes[8..16].copy_from_slice(&self.offset.to_le_bytes());
        bytes[16..20].copy_from_slice(&self.body_bytes.to_le_bytes());
        bytes[20..24].copy_from_slice(&self.body_crc.to_le_bytes());
        let crc = crc32fast::hash(&bytes[..24]);
        bytes[24..28].copy_from_slice(&crc.to_le_bytes());
        bytes
    }

    /// Reads and checks a header.
    pub fn decode(bytes: &[u8; HEADER_BYTES]) -> Result<Self, Malformed> {
        let crc = u32::from_le_bytes([bytes[24], bytes[25], bytes[26], bytes[27]]);
        if crc32fast::hash(&bytes[..24]) != crc {
            return Err(Malformed::Checksum("header"));
        }
        let mut fields = Fields::new(bytes, "header");
        let number = fields.u8()?;
        let frame_type = FrameType::ALL.into_iter().find(|known| *known as u8 == number);
        let frame_type = frame_type.ok_or(Malformed::Type("frame", number))?;
        let flags = fields.u8()?;
        if flags & !FIN != 0 || (flags & FIN != 0 && !frame_type.has_fin()) {
            return Err(Malformed::Reserved("header's flags"));
        }
        fields.reserved::<2>()?;
        let header = Self {
            frame_type,
            fin: flags & FIN != 0,
            channel: fields.u32()?,
            offset: fields.u64()?,
            body_bytes: fields.u32()?,
            body_crc: fields.u32()?,
        };
        header.check_fields()?;
        Ok(header)
    }

    fn check_fields(&self) -> Result<(), Malformed> {
        if (self.channel != 0) != self.frame_type.of_channel() {
            return Err(Malformed::Field("a frame of a channel names none, or another frame names one"));
        }
        if self.offset != 0 && !self.frame_type.has_offset() {
            return Err(Malformed::Field("a frame has an offset that it does not use"));
        }
        if self.body_bytes as usize > BODY_BYTES_MAX {
            return Err(Malformed::Length(self.body_bytes));
        }
        if self.offset.checked_add(u64::from(self.body_bytes)).is_none() {
            return Err(Malformed::Field("a frame goes past the end of all offsets"));
        }
        Ok(())
    }
}

/// A frame, checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Frame<'a> {
    /// A channel exists.
    Open {
        /// Its number: odd if the dialling side opened it, else even; never 0, never used twice.
        channel: u32,
        /// What it is for.
        label: Label,
        /// How far the other side may send, as an offset.
        credit: u64,
    },
    /// Bytes of a channel.
    Data {
        /// Which.
        channel: u32,
        /// Where they stand in its stream.
        offset: u64,
        /// Nothing follows them.
        fin: bool,
        /// The bytes; none only with `fin`.
        bytes: &'a [u8],
    },
    /// What was received.
    Ack {
        /// Which.
        channel: u32,
        /// Everything before this offset is here.
        received: u64,
        /// The end of the stream as well.
        fin: bool,
        /// How far the other side may send, as an offset.
        credit: u64,
    },
    /// The channel is broken off.
    Reset {
        /// Which.
        channel: u32,
    },
    /// What this side has was said.
    Resumed,
    /// Heartbeat.
    Ping {
        /// What the echo brings back.
        nonce: u64,
    },
    /// Its echo.
    Pong {
        /// What the heartbeat brought.
        nonce: u64,
    },
    /// The link is over.
    Close {
        /// Why, for people.
        text: String,
    },
}

impl<'a> Frame<'a> {
    /// Appends the frame to `out`.
    pub fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Frame::Open { channel, label, credit } => {
                let (kind, index) = label_numbers(*label);
                let mut body = [0; 12];
                body[0] = kind;
                body[2..4].copy_from_slice(&index.to_le_bytes());
                body[4..12].copy_from_slice(&credit.to_le_bytes());
                put(out, FrameType::Open, *channel, 0, false, &body);
            }
            Frame::Data { channel, offset, fin, bytes } => {
                put(out, FrameType::Data, *channel, *offset, *fin, bytes);
            }
            Frame::Ack { channel, received, fin, credit } => {
                put(out, FrameType::Ack, *channel, *received, *fin, &credit.to_le_bytes());
            }
            Frame::Reset { channel } => put(out, FrameType::Reset, *channel, 0, false, &[]),
            Frame::Resumed => put(out, FrameType::Resumed, 0, 0, false, &[]),
            Frame::Ping { nonce } => put(out, FrameType::Ping, 0, *nonce, false, &[]),
            Frame::Pong { nonce } => put(out, FrameType::Pong, 0, *nonce, false, &[]),
            Frame::Close { text } => {
                let mut body = Vec::new();
                put_text(&mut body, text, TEXT_BYTES_MAX);
                put(out, FrameType::Close, 0, 0, false, &body);
            }
        }
    }

    /// Checks `body` against its header and reads it.
    pub fn decode(header: &Header, body: &'a [u8]) -> Result<Self, Malformed> {
        if body.len() != header.body_bytes as usize {
            return Err(Malformed::Truncated("body"));
        }
        if crc32fast::hash(body) != header.body_crc {
            return Err(Malformed::Checksum("body"));
        }
        let &Header { channel, offset, fin, .. } = header;
        if header.frame_type == FrameType::Data {
            if body.is_empty() && !fin {
                return Err(Malformed::Field("a data frame without data and without an end"));
            }
            return Ok(Frame::Data { channel, offset, fin, bytes: body });
        }
        let mut fields = Fields::new(body, "body");
        let frame = match header.frame_type {
            FrameType::Open => {
                let label = read_label(&mut fields)?;
                Frame::Open { channel, label, credit: fields.u64()? }
            }
            FrameType::Ack => Frame::Ack { channel, received: offset, fin, credit: fields.u64()? },
            FrameType::Reset => Frame::Reset { channel },
            FrameType::Resumed => Frame::Resumed,
            FrameType::Ping => Frame::Ping { nonce: offset },
            FrameType::Pong => Frame::Pong { nonce: offset },
            FrameType::Close => Frame::Close { text: fields.text(TEXT_BYTES_MAX)? },
            FrameType::Data => unreachable!("read above"),
        };
        fields.end()?;
        Ok(frame)
    }
}

/// Appends a `Data` frame whose bytes lie in two pieces.
pub fn put_data(out: &mut Vec<u8>, channel: u32, offset: u64, fin: bool, pieces: (&[u8], &[u8])) {
    let start = out.len();
    out.resize(start + HEADER_BYTES, 0);
    out.extend_from_slice(pieces.0);
    out.extend_from_slice(pieces.1);
    let body = &out[start + HEADER_BYTES..];
    let header = header_for(FrameType::Data, channel, offset, fin, body);
    out[start..start + HEADER_BYTES].copy_from_slice(&header.encode());
}

fn put(out: &mut Vec<u8>, frame_type: FrameType, channel: u32, offset: u64, fin: bool, body: &[u8]) {
    out.extend_from_slice(&header_for(frame_type, channel, offset, fin, body).encode());
    out.extend_from_slice(body);
}

fn header_for(frame_type: FrameType, channel: u32, offset: u64, fin: bool, body: &[u8]) -> Header {
    assert!(body.len() <= BODY_BYTES_MAX, "bodies are bounded");
    let body_bytes = body.len() as u32;
    Header { frame_type, fin, channel, offset, body_bytes, body_crc: crc32fast::hash(body) }
}

fn label_numbers(label: Label) -> (u8, u16) {
    match label {
        Label::Control => (1, 0),
        Label::Disk(index) => (2, index),
        Label::Ram(index) => (3, index),
    }
}

fn read_label(fields: &mut Fields<'_>) -> Result<Label, Malformed> {
    let kind = fields.u8()?;
    fields.reserved::<1>()?;
    match (kind, fields.u16()?) {
        (1, 0) => Ok(Label::Control),
        (1, _) => Err(Malformed::Reserved("control label")),
        (2, index) => Ok(Label::Disk(index)),
        (3, index) => Ok(Label::Ram(index)),
        (other, _) => Err(Malformed::Type("label", other)),
    }
}

#[cfg(test)]
mod tests;
