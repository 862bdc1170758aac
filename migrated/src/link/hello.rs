//! What the two sides say before the first frame: who, which versions, which connection of which link.
//!
//! ```text
//! dialler                         listener
//!    │ ── hello ──────────────────► │ is the key paired? a version in common? the link known?
//!    │ ◄────── welcome | refused ── │ the answer, also to those who are refused: with the reason
//! ```
//!
//! ```text
//! 0       4      5   6          8
//! | magic | kind | 0 | body len | body … | crc of all before |
//! ```
//!
//! The shape of these messages is the same in every version, for ever: a newer build must be able to refuse an older
//! one in words that the older one understands. Whose key it is was settled by TLS, not here.

use super::fields::{Fields, Malformed, put_text};
use super::probe::Probed;
use super::stripes::STRIPES_MAX;

/// First bytes of every message before the frames.
pub const MAGIC: [u8; 4] = *b"MGLK";
/// The oldest version of the frames that this build speaks.
pub const VERSION_MIN: u16 = 1;
/// The newest version of the frames that this build speaks.
pub const VERSION_MAX: u16 = 1;
/// Bytes before a message's body.
pub const PREFIX_BYTES: usize = 8;
/// Bytes after a message's body.
pub const SUFFIX_BYTES: usize = 4;
/// The longest body of a message before the frames, in bytes.
pub const HELLO_BODY_BYTES_MAX: usize = 2048;
/// The longest name of a host, in bytes.
pub const NAME_BYTES_MAX: usize = 64;
/// The longest reason of a refusal, in bytes.
pub const REASON_BYTES_MAX: usize = 1024;
/// The longest address as text, in bytes.
pub const ADDRESS_BYTES_MAX: usize = 64;

/// What names a link at both of its sides; chosen by the dialler.
pub type LinkId = [u8; 16];

/// What a connection is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Purpose {
    /// The control connection of a link that begins.
    Begin = 1,
    /// A control connection for a link that lost its own.
    Control = 2,
    /// The data connection of a link, the first or a later one.
    Data = 3,
    /// Pairing by a token.
    Pair = 4,
    /// One of several connections that are the data connection together.
    Stripe = 5,
    /// Finds out how fast this address is; carries nothing.
    Probe = 6,
}

impl Purpose {
    /// Every purpose, in the order of its number.
    pub const ALL: [Purpose; 6] =
        [Purpose::Begin, Purpose::Control, Purpose::Data, Purpose::Pair, Purpose::Stripe, Purpose::Probe];
}

/// Why a hello was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u16)]
pub enum RefusalCode {
    /// No version in common.
    Version = 1,
    /// The dialler's key is not known here.
    NotPaired = 2,
    /// The dialler's name is known here with another key.
    WrongKey = 3,
    /// There is no such link (any more).
    UnknownLink = 4,
    /// This address is not for that purpose.
    WrongAddress = 5,
    /// Too much is going on.
    Busy = 6,
    /// The token is wrong, old or used.
    Token = 7,
    /// Something else; see the text.
    Other = 8,
}

impl RefusalCode {
    /// Every code, in the order of its number.
    pub const ALL: [RefusalCode; 8] = [
        RefusalCode::Version,
        RefusalCode::NotPaired,
        RefusalCode::WrongKey,
        RefusalCode::UnknownLink,
        RefusalCode::WrongAddress,
        RefusalCode::Busy,
        RefusalCode::Token,
        RefusalCode::Other,
    ];
}

/// A message before the frames.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Message {
    /// The dialler's first word.
    Hello(Hello),
    /// The listener's consent.
    Welcome(Welcome),
    /// The listener's refusal; the connection is over.
    Refused(Refused),
    /// The dialler's proof that it holds the token, and how to reach it.
    Pair(Pair),
    /// The listener has stored the dialler, and says how it is reached itself.
    Paired(Reach),
    /// The dialler says of which set of connections this one is, after the welcome.
    Stripe(Stripe),
    /// The listener says what arrived of a probe; the connection is over.
    Probed(Probed),
}

/// The dialler's first word.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hello {
    /// The oldest version that the dialler speaks.
    pub version_min: u16,
    /// The newest version that the dialler speaks.
    pub version_max: u16,
    /// What the connection is for.
    pub purpose: Purpose,
    /// Which link; zeros for pairing.
    pub link: LinkId,
    /// The dialler's name.
    pub name: String,
}

/// The listener's consent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Welcome {
    /// The version that both will speak.
    pub version: u16,
    /// The listener's name.
    pub name: String,
}

/// The listener's refusal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    /// What kind.
    pub code: RefusalCode,
    /// For people: what is wrong, and what to do.
    pub text: String,
}

/// How a host is reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reach {
    /// Its name.
    pub name: String,
    /// Its control address; an unspecified IP address means the one that the connection shows.
    pub address: String,
    /// Its data addresses, parted by commas; empty: the same.
    pub data_addresses: String,
}

/// A proof of the token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pair {
    /// HMAC-SHA256 by the token's secret of the connection and both keys.
    pub proof: [u8; 32],
    /// Who the dialler is.
    pub reach: Reach,
}

/// A connection's place among several that are one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stripe {
    /// Which set; the newest one counts.
    pub set: u64,
    /// How many they are.
    pub count: u16,
    /// Which of them this is, from 0.
    pub index: u16,
}

/// The newest version that both speak.
pub fn negotiate(ours: (u16, u16), theirs: (u16, u16)) -> Option<u16> {
    let version = ours.1.min(theirs.1);
    (version >= ours.0 && version >= theirs.0 && theirs.0 <= theirs.1).then_some(version)
}

impl Message {
    /// Lays the message out.
    pub fn encode(&self) -> Vec<u8> {
        let mut body = Vec::new();
        let kind = match self {
            Message::Hello(hello) => hello.put(&mut body),
            Message::Welcome(welcome) => {
                body.extend_from_slice(&welcome.version.to_le_bytes());
                body.extend_from_slice(&[0; 2]);
                put_text(&mut body, &welcome.name, NAME_BYTES_MAX);
                2
            }
            Message::Refused(refused) => {
                body.extend_from_slice(&(refused.code as u16).to_le_bytes());
                put_text(&mut body, &refused.text, REASON_BYTES_MAX);
                3
            }
            Message::Pair(pair) => {
                body.extend_from_slice(&pair.proof);
                pair.reach.put(&mut body);
                4
            }
            Message::Paired(reach) => {
                reach.put(&mut body);
                5
            }
            Message::Stripe(stripe) => {
                body.extend_from_slice(&stripe.set.to_le_bytes());
                body.extend_from_slice(&stripe.count.to_le_bytes());
                body.extend_from_slice(&stripe.index.to_le_bytes());
                6
            }
            Message::Probed(probed) => {
                body.extend_from_slice(&probed.bytes.to_le_bytes());
                body.extend_from_slice(&probed.micros.to_le_bytes());
                7
            }
        };
        let mut bytes = MAGIC.to_vec();
        bytes.extend_from_slice(&[kind, 0]);
        bytes.extend_from_slice(&(body.len() as u16).to_le_bytes());
        bytes.extend_from_slice(&body);
        let crc = crc32fast::hash(&bytes);
        bytes.extend_from_slice(&crc.to_le_bytes());
        bytes
    }

    /// Checks the first bytes of a message, and says how many follow them.
    pub fn rest_bytes(prefix: &[u8; PREFIX_BYTES]) -> Result<usize, Malformed> {
        let mut fields = Fields::new(prefix, "hello's prefix");
        let magic = fields.array()?;
        if magic != MAGIC {
            return Err(Malformed::Magic(magic));
        }
        fields.u8()?;
        fields.reserved::<1>()?;
        let body_bytes = usize::from(fields.u16()?);
        if body_bytes > HELLO_BODY_BYTES_MAX {
            return Err(Malformed::Length(body_bytes as u32));
        }
        Ok(body_bytes + SUFFIX_BYTES)
    }

    /// Reads a whole message.
    pub fn decode(bytes: &[u8]) -> Result<Self, Malformed> {
        let prefix = bytes.first_chunk().ok_or(Malformed::Truncated("hello"))?;
        if bytes.len() != PREFIX_BYTES + Self::rest_bytes(prefix)? {
            return Err(Malformed::Truncated("hello"));
        }
        let (message, crc) = bytes.split_last_chunk::<SUFFIX_BYTES>().ok_or(Malformed::Truncated("hello"))?;
        if crc32fast::hash(message) != u32::from_le_bytes(*crc) {
            return Err(Malformed::Checksum("hello"));
        }
        let mut fields = Fields::new(&message[PREFIX_BYTES..], "hello");
        let read = match prefix[4] {
            1 => Message::Hello(Hello::take(&mut fields)?),
            2 => {
                let version = fields.u16()?;
                fields.reserved::<2>()?;
                Message::Welcome(Welcome { version, name: fields.text(NAME_BYTES_MAX)? })
            }
            3 => {
                let number = fields.u16()?;
                let code = RefusalCode::ALL.into_iter().find(|known| *known as u16 == number);
                // A newer listener may have more reasons than we know; its words still count.
                let code = code.unwrap_or(RefusalCode::Other);
                Message::Refused(Refused { code, text: fields.text(REASON_BYTES_MAX)? })
            }
            4 => Message::Pair(Pair { proof: fields.array()?, reach: Reach::take(&mut fields)? }),
            5 => Message::Paired(Reach::take(&mut fields)?),
            6 => Message::Stripe(Stripe::take(&mut fields)?),
            7 => Message::Probed(Probed { bytes: fields.u64()?, micros: fields.u64()? }),
            other => return Err(Malformed::Type("hello", other)),
        };
        fields.end()?;
        Ok(read)
    }
}

impl Stripe {
    fn take(fields: &mut Fields<'_>) -> Result<Self, Malformed> {
        let stripe = Self { set: fields.u64()?, count: fields.u16()?, index: fields.u16()? };
        match (2..=STRIPES_MAX).contains(&stripe.count) && stripe.index < stripe.count {
            true => Ok(stripe),
            false => {
                Err(Malformed::Field("a set of connections is too large or too small for its connection"))
            }
        }
    }
}

impl Hello {
    fn put(&self, body: &mut Vec<u8>) -> u8 {
        body.extend_from_slice(&self.version_min.to_le_bytes());
        body.extend_from_slice(&self.version_max.to_le_bytes());
        body.extend_from_slice(&[self.purpose as u8, 0, 0, 0]);
        body.extend_from_slice(&self.link);
        put_text(body, &self.name, NAME_BYTES_MAX);
        1
    }

    fn take(fields: &mut Fields<'_>) -> Result<Self, Malformed> {
        let (version_min, version_max) = (fields.u16()?, fields.u16()?);
        let number = fields.u8()?;
        let purpose = Purpose::ALL.into_iter().find(|known| *known as u8 == number);
        let purpose = purpose.ok_or(Malformed::Field("a hello has an unknown purpose"))?;
        fields.reserved::<3>()?;
        let link = fields.array()?;
        Ok(Self { version_min, version_max, purpose, link, name: fields.text(NAME_BYTES_MAX)? })
    }
}

impl Reach {
    fn put(&self, body: &mut Vec<u8>) {
        put_text(body, &self.name, NAME_BYTES_MAX);
        put_text(body, &self.address, ADDRESS_BYTES_MAX);
        put_text(body, &self.data_addresses, ADDRESS_BYTES_MAX);
    }

    fn take(fields: &mut Fields<'_>) -> Result<Self, Malformed> {
        let name = fields.text(NAME_BYTES_MAX)?;
        let address = fields.text(ADDRESS_BYTES_MAX)?;
        Ok(Self { name, address, data_addresses: fields.text(ADDRESS_BYTES_MAX)? })
    }
}

#[cfg(test)]
mod tests;
