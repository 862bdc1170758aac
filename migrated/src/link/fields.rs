//! Takes a message apart field by field, never past its end, and says what is wrong with it.

use thiserror::Error;

use crate::heard;

/// Why bytes are not a message of the link.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum Malformed {
    /// The stream is not this protocol.
    #[error("this is not the link protocol (it starts with {0:02x?})")]
    Magic([u8; 4]),
    /// A bit flipped, or the stream is torn.
    #[error("the checksum of the {0} does not match")]
    Checksum(&'static str),
    /// A type that this version does not know.
    #[error("unknown {0} type {1}")]
    Type(&'static str, u8),
    /// Bits are in use that mean nothing here.
    #[error("reserved bits of the {0} are not zero")]
    Reserved(&'static str),
    /// The length is out of bounds.
    #[error("a body of {0} bytes is longer than allowed")]
    Length(u32),
    /// The body ends early, or goes on after its end.
    #[error("the {0} is too short or too long")]
    Truncated(&'static str),
    /// A field is out of its bounds.
    #[error("{0}")]
    Field(&'static str),
}

/// What is left of a message.
pub struct Fields<'a> {
    rest: &'a [u8],
    what: &'static str,
}

impl<'a> Fields<'a> {
    /// All of a message, and its name for errors.
    pub fn new(rest: &'a [u8], what: &'static str) -> Self {
        Self { rest, what }
    }

    /// The next `N` bytes.
    pub fn array<const N: usize>(&mut self) -> Result<[u8; N], Malformed> {
        let (taken, rest) = self.rest.split_first_chunk().ok_or(Malformed::Truncated(self.what))?;
        self.rest = rest;
        Ok(*taken)
    }

    /// One byte.
    pub fn u8(&mut self) -> Result<u8, Malformed> {
        Ok(self.array::<1>()?[0])
    }

    /// Two bytes, little-endian.
    pub fn u16(&mut self) -> Result<u16, Malformed> {
        Ok(u16::from_le_bytes(self.array()?))
    }

    /// Four bytes, little-endian.
    pub fn u32(&mut self) -> Result<u32, Malformed> {
        Ok(u32::from_le_bytes(self.array()?))
    }

    /// Eight bytes, little-endian.
    pub fn u64(&mut self) -> Result<u64, Malformed> {
        Ok(u64::from_le_bytes(self.array()?))
    }

    /// `N` bytes that must be zero.
    pub fn reserved<const N: usize>(&mut self) -> Result<(), Malformed> {
        if self.array::<N>()? == [0; N] { Ok(()) } else { Err(Malformed::Reserved(self.what)) }
    }

    /// A length of two bytes and a text of at most `max` bytes, as it may be shown to people.
    pub fn text(&mut self, max: usize) -> Result<String, Malformed> {
        let len = usize::from(self.u16()?);
        if len > max {
            return Err(Malformed::Field("a text is longer than allowed"));
        }
        let (taken, rest) = self.rest.split_at_checked(len).ok_or(Malformed::Truncated(self.what))?;
        self.rest = rest;
        let text = std::str::from_utf8(taken).map_err(|_| Malformed::Field("a text is not UTF-8"))?;
        let mut text = text.to_owned();
        heard::clean(&mut text);
        Ok(text)
    }

    /// Nothing is left.
    pub fn end(&self) -> Result<(), Malformed> {
        if self.rest.is_empty() { Ok(()) } else { Err(Malformed::Truncated(self.what)) }
    }
}

/// Puts a length and the text, cut at a character's border to at most `max` bytes.
pub fn put_text(out: &mut Vec<u8>, text: &str, max: usize) {
    let end = (0..=max.min(text.len())).rev().find(|end| text.is_char_boundary(*end)).unwrap_or(0);
    out.extend_from_slice(&(end as u16).to_le_bytes());
    out.extend_from_slice(&text.as_bytes()[..end]);
}
