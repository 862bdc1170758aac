//! The messages of the replica protocol: what is in the body of each frame but a batch's.
//!
//! | source                      | destination                                            |
//! |-----------------------------|--------------------------------------------------------|
//! | hello                       | welcome, or refused                                    |
//! | batch (see `batch`) …       | ack: durable up to here, these leaves differ …         |
//! | seal, unseal                | sealed                                                 |
//! |                             | failed, at any time                                    |
//!
//! Every field has a bound, and a body that is longer or shorter than its message is refused.
//! `Hello` and `Refused` never change their shape. Layouts are normative in `docs/wire.md`;
//! golden bytes are in the tests.

pub(super) use super::frame::Reader;
pub use super::frame::{BODY_BYTES_MAX, FrameType, HEADER_BYTES, Header, MAGIC, Malformed, frame};

/// The largest number of a session: what counts on from it never comes to an end (D13).
pub const EPOCH_MAX: u64 = 1 << 62;

/// The protocol version that this build speaks.
pub const VERSION: u16 = 1;
/// The longest disk identity, in bytes.
pub const DISK_ID_BYTES_MAX: usize = 64;
/// The longest reason text, in bytes.
pub const TEXT_BYTES_MAX: usize = 1024;
/// The most leaves that one acknowledgement may name as different.
pub const DIFFERING_MAX: usize = 65_536;

/// The source's first frame. Its shape is the same in every version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hello {
    /// The oldest version that the source speaks.
    pub version_min: u16,
    /// The newest version that the source speaks.
    pub version_max: u16,
    /// The disk's size in bytes.
    pub size: u64,
    /// The source's generation of this disk.
    pub generation: u64,
    /// Which guest disk.
    pub disk_id: String,
}

impl Hello {
    /// Lays the body out.
    pub fn encode(&self) -> Vec<u8> {
        let mut body = Vec::new();
        body.extend_from_slice(&self.version_min.to_le_bytes());
        body.extend_from_slice(&self.version_max.to_le_bytes());
        body.extend_from_slice(&[0; 4]);
        body.extend_from_slice(&self.size.to_le_bytes());
        body.extend_from_slice(&self.generation.to_le_bytes());
        put_text(&mut body, &self.disk_id, DISK_ID_BYTES_MAX);
        body
    }

    /// Reads a body.
    pub fn decode(body: &[u8]) -> Result<Self, Malformed> {
        let mut reader = Reader::new(body, "hello");
        let (version_min, version_max) = (reader.u16()?, reader.u16()?);
        if reader.array::<4>()? != [0; 4] {
            return Err(Malformed::Reserved("hello"));
        }
        let (size, generation) = (reader.u64()?, reader.u64()?);
        let disk_id = reader.text(DISK_ID_BYTES_MAX)?;
        reader.end()?;
        Ok(Self { version_min, version_max, size, generation, disk_id })
    }
}

/// The destination's consent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Welcome {
    /// The version that both will speak.
    pub version: u16,
    /// The replica may hold data already: offer before sending.
    pub existing: bool,
    /// The session before this one that the replica knows of; 0: none. If it is not the one that
    /// the source's bitmap counts from, the replica may hold anything.
    pub previous_epoch: u64,
}

impl Welcome {
    /// Lays the body out.
    pub fn encode(&self) -> Vec<u8> {
        let mut body = self.version.to_le_bytes().to_vec();
        body.extend_from_slice(&[u8::from(self.existing), 0]);
        body.extend_from_slice(&self.previous_epoch.to_le_bytes());
        body
    }

    /// Reads a body.
    pub fn decode(body: &[u8]) -> Result<Self, Malformed> {
        let mut reader = Reader::new(body, "welcome");
        let version = reader.u16()?;
        let [existing, reserved] = reader.array()?;
        let previous_epoch = reader.u64()?;
        reader.end()?;
        match (existing, reserved) {
            (0 | 1, 0) => Ok(Self { version, existing: existing == 1, previous_epoch }),
            _ => Err(Malformed::Reserved("welcome")),
        }
    }
}

/// Why the destination refused a hello.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u16)]
pub enum RefusalCode {
    /// No version in common.
    Version = 1,
    /// Another disk lives here.
    WrongDisk = 2,
    /// The sizes differ.
    WrongSize = 3,
    /// The session is not newer than the last one; the detail is that one's epoch.
    StaleEpoch = 4,
    /// This replica was promoted; the detail is its generation.
    Promoted = 5,
    /// The source's disk is of an older generation; the detail is the replica's.
    StaleGeneration = 6,
}

impl RefusalCode {
    /// Every code, in the order of its number.
    pub const ALL: [RefusalCode; 6] = [
        RefusalCode::Version,
        RefusalCode::WrongDisk,
        RefusalCode::WrongSize,
        RefusalCode::StaleEpoch,
        RefusalCode::Promoted,
        RefusalCode::StaleGeneration,
    ];
}

/// The destination's refusal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    /// What kind.
    pub code: RefusalCode,
    /// A number that goes with the code, else 0.
    pub detail: u64,
    /// For people.
    pub text: String,
}

impl Refused {
    /// Lays the body out.
    pub fn encode(&self) -> Vec<u8> {
        let mut body = (self.code as u16).to_le_bytes().to_vec();
        body.extend_from_slice(&self.detail.to_le_bytes());
        put_text(&mut body, &self.text, TEXT_BYTES_MAX);
        body
    }

    /// Reads a body.
    pub fn decode(body: &[u8]) -> Result<Self, Malformed> {
        let mut reader = Reader::new(body, "refused");
        let number = reader.u16()?;
        let code = RefusalCode::ALL.into_iter().find(|known| *known as u16 == number);
        let code = code.ok_or(Malformed::Field("unknown code in a refusal"))?;
        let refused = Self { code, detail: reader.u64()?, text: reader.text(TEXT_BYTES_MAX)? };
        reader.end()?;
        Ok(refused)
    }
}

/// Lays out the body of an acknowledgement: the leaves that differ, in ascending order.
pub fn encode_differing(leaves: &[u64]) -> Vec<u8> {
    assert!(leaves.len() <= DIFFERING_MAX, "the destination flushes before");
    let mut body = (leaves.len() as u32).to_le_bytes().to_vec();
    leaves.iter().for_each(|leaf| body.extend_from_slice(&leaf.to_le_bytes()));
    body
}

/// Reads the body of an acknowledgement.
pub fn decode_differing(body: &[u8]) -> Result<Vec<u64>, Malformed> {
    let mut reader = Reader::new(body, "ack");
    let count = reader.u32()? as usize;
    if count > DIFFERING_MAX {
        return Err(Malformed::Field("an acknowledgement names too many leaves"));
    }
    let leaves = (0..count).map(|_| reader.u64()).collect::<Result<Vec<_>, _>>()?;
    reader.end()?;
    // The source searches by halving: out of order, a leaf that differs would pass as the same.
    if leaves.is_sorted_by(|a, b| a < b) {
        Ok(leaves)
    } else {
        Err(Malformed::Field("an acknowledgement's leaves are not in ascending order"))
    }
}

/// Lays out the body of `Seal`, `Sealed` and `Unseal`.
pub fn encode_generation(generation: u64) -> Vec<u8> {
    generation.to_le_bytes().to_vec()
}

/// Reads the body of `Seal`, `Sealed` and `Unseal`.
pub fn decode_generation(body: &[u8]) -> Result<u64, Malformed> {
    let mut reader = Reader::new(body, "seal");
    let generation = reader.u64()?;
    reader.end()?;
    Ok(generation)
}

/// Lays out the body of `Failed`.
pub fn encode_text(text: &str) -> Vec<u8> {
    let mut body = Vec::new();
    put_text(&mut body, text, TEXT_BYTES_MAX);
    body
}

/// Reads the body of `Failed`.
pub fn decode_text(body: &[u8]) -> Result<String, Malformed> {
    let mut reader = Reader::new(body, "failed");
    let text = reader.text(TEXT_BYTES_MAX)?;
    reader.end()?;
    Ok(text)
}

/// Puts a length and the text, cut at a character's border to at most `max` bytes.
fn put_text(body: &mut Vec<u8>, text: &str, max: usize) {
    let end = (0..=max.min(text.len())).rev().find(|end| text.is_char_boundary(*end)).unwrap_or(0);
    body.extend_from_slice(&(end as u16).to_le_bytes());
    body.extend_from_slice(&text.as_bytes()[..end]);
}

#[cfg(test)]
pub(super) mod tests;
