//! The header of a sidecar: fields, bytes, and what is refused.
//!
//! ```text
//! 0   magic "BLOCKDSC"     8   version u32        12  block bytes u32
//! 16  sequence u64         24  disk size u64      32  generation u64
//! 40  sealed u64           48  replica epoch u64  56  boot id, 16 bytes
//! 72  role u8   73 recording u8   74 length of disk id u8   75 length of moved-to u8
//! 76  length of replicate-to u8, zeros    80 disk id, 64 bytes   144 moved-to, 255 bytes
//! 400 replicate-to, 255 bytes   656 known epoch u64   664 … zeros
//! 4092 crc32 of all before
//! ```
//!
//! Numbers are little-endian. Every byte that has no meaning is zero, and refused if it is not.

use thiserror::Error;

use crate::extent::BLOCK_BYTES;

/// Bytes of one header slot.
pub const HEADER_BYTES: usize = 4096;
/// Longest disk id in bytes.
pub const DISK_ID_BYTES_MAX: usize = 64;
/// Longest name of a place (where a disk moved, where its replica is), in bytes.
pub const PLACE_BYTES_MAX: usize = 255;

const MAGIC: &[u8; 8] = b"BLOCKDSC";
const VERSION: u32 = 1;
const DISK_ID_AT: usize = 80;
const MOVED_TO_AT: usize = 144;
const REPLICATE_TO_AT: usize = 400;
const KNOWN_EPOCH_AT: usize = 656;
const END_OF_FIELDS: usize = KNOWN_EPOCH_AT + 8;
const CRC_AT: usize = HEADER_BYTES - 4;

/// What a disk is to its guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Role {
    /// The guest's disk.
    Primary,
    /// A copy that is being made or kept in step; not writable by a guest.
    Replica,
    /// A copy that became the guest's disk.
    Promoted,
    /// Was the guest's disk, which is elsewhere now.
    Fenced,
}

impl Role {
    /// Every role, in the order of its number in the file (from 1).
    pub const ALL: [Role; 4] = [Role::Primary, Role::Replica, Role::Promoted, Role::Fenced];

    /// The word for people and for the control socket.
    pub const fn name(self) -> &'static str {
        match self {
            Role::Primary => "primary",
            Role::Replica => "replica",
            Role::Promoted => "promoted",
            Role::Fenced => "fenced",
        }
    }

    const fn number(self) -> u8 {
        match self {
            Role::Primary => 1,
            Role::Replica => 2,
            Role::Promoted => 3,
            Role::Fenced => 4,
        }
    }
}

/// What a disk remembers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Header {
    /// Which guest disk this is, the same at every host: 1 to 64 of `A-Z a-z 0-9 . _ -`.
    pub disk_id: String,
    /// Size of the disk in bytes.
    pub size: u64,
    /// What it is to its guest.
    pub role: Role,
    /// Counts the moves of the disk: only the holder of the current one may write (M1).
    pub generation: u64,
    /// The generation that it is sealed for; 0: not sealed.
    pub sealed: u64,
    /// Whether writes are recorded for a replica.
    pub recording: bool,
    /// The last session with a replica (D13).
    pub replica_epoch: u64,
    /// The session with which the bitmap counts: a replica whose last session was another one may
    /// hold anything (source only).
    pub known_epoch: u64,
    /// The boot in which the bitmap was written.
    pub boot_id: [u8; 16],
    /// Where a fenced disk went; empty: not said.
    pub moved_to: String,
    /// The socket of the replica that is kept in step; empty: none.
    pub replicate_to: String,
}

/// Why a name cannot be kept in a sidecar.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{what} {name:?} is not usable: {rule}")]
pub struct InvalidName {
    what: &'static str,
    name: String,
    rule: &'static str,
}

/// Why bytes are no header.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum Unreadable {
    /// Not 4096 bytes.
    #[error("it is {0} bytes long, not 4096")]
    Length(usize),
    /// Some other file.
    #[error("it does not begin as a sidecar does")]
    Magic,
    /// Of a later program.
    #[error("it has format version {0}, this program knows version 1")]
    Version(u32),
    /// Torn or damaged.
    #[error("its checksum does not match (torn or damaged)")]
    Checksum,
    /// Whole, but senseless.
    #[error("its field {0} makes no sense")]
    Field(&'static str),
}

/// Checks the rules for a disk id.
pub fn check_disk_id(id: &str) -> Result<(), InvalidName> {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    if (1..=DISK_ID_BYTES_MAX).contains(&id.len()) && id.bytes().all(allowed) {
        return Ok(());
    }
    let rule = "1 to 64 characters out of A-Z a-z 0-9 . _ -";
    Err(InvalidName { what: "the disk id", name: id.into(), rule })
}

fn check_place(name: &str) -> Result<(), InvalidName> {
    if name.len() <= PLACE_BYTES_MAX && !name.contains(char::is_control) {
        return Ok(());
    }
    let rule = "at most 255 bytes without control characters";
    Err(InvalidName { what: "the place", name: name.into(), rule })
}

impl Header {
    /// The header of a disk that was never seen before.
    pub fn new(disk_id: &str, size: u64, role: Role, boot_id: [u8; 16]) -> Result<Self, InvalidName> {
        check_disk_id(disk_id)?;
        Ok(Self {
            disk_id: disk_id.into(),
            size,
            role,
            generation: 0,
            sealed: 0,
            recording: false,
            replica_epoch: 0,
            known_epoch: 0,
            boot_id,
            moved_to: String::new(),
            replicate_to: String::new(),
        })
    }

    /// Checks what a change may have broken.
    pub fn check(&self) -> Result<(), InvalidName> {
        check_disk_id(&self.disk_id)?;
        check_place(&self.moved_to)?;
        check_place(&self.replicate_to)
    }

    /// The bytes of one slot.
    ///
    /// # Panics
    /// If a name breaks its rule: see [`Header::check`].
    pub fn encode(&self, sequence: u64) -> [u8; HEADER_BYTES] {
        let mut bytes = [0; HEADER_BYTES];
        let mut put = |at: usize, field: &[u8]| bytes[at..at + field.len()].copy_from_slice(field);
        assert!(self.check().is_ok(), "names are checked before they are encoded");
        put(0, MAGIC);
        put(8, &VERSION.to_le_bytes());
        put(12, &(BLOCK_BYTES as u32).to_le_bytes());
        put(16, &sequence.to_le_bytes());
        put(24, &self.size.to_le_bytes());
        put(32, &self.generation.to_le_bytes());
        put(40, &self.sealed.to_le_bytes());
        put(48, &self.replica_epoch.to_le_bytes());
        put(KNOWN_EPOCH_AT, &self.known_epoch.to_le_bytes());
        put(56, &self.boot_id);
        let lengths = [&self.disk_id, &self.moved_to, &self.replicate_to].map(|text| text.len() as u8);
        put(72, &[self.role.number(), self.recording.into(), lengths[0], lengths[1], lengths[2]]);
        put(DISK_ID_AT, self.disk_id.as_bytes());
        put(MOVED_TO_AT, self.moved_to.as_bytes());
        put(REPLICATE_TO_AT, self.replicate_to.as_bytes());
        let crc = crc32fast::hash(&bytes[..CRC_AT]);
        bytes[CRC_AT..].copy_from_slice(&crc.to_le_bytes());
        bytes
    }

    /// Reads one slot: its sequence number and the header.
    pub fn decode(bytes: &[u8]) -> Result<(u64, Self), Unreadable> {
        let bytes: &[u8; HEADER_BYTES] = bytes.try_into().map_err(|_| Unreadable::Length(bytes.len()))?;
        check_frame(bytes)?;
        let role = Role::ALL.into_iter().find(|role| role.number() == bytes[72]);
        let recording = match bytes[73] {
            0 => false,
            1 => true,
            _ => return Err(Unreadable::Field("recording")),
        };
        let header = Self {
            disk_id: text(bytes, DISK_ID_AT, DISK_ID_BYTES_MAX, bytes[74], "disk id")?,
            size: number(bytes, 24),
            role: role.ok_or(Unreadable::Field("role"))?,
            generation: number(bytes, 32),
            sealed: number(bytes, 40),
            recording,
            replica_epoch: number(bytes, 48),
            known_epoch: number(bytes, KNOWN_EPOCH_AT),
            boot_id: bytes[56..72].try_into().expect("16 bytes"),
            moved_to: text(bytes, MOVED_TO_AT, PLACE_BYTES_MAX, bytes[75], "moved to")?,
            replicate_to: text(bytes, REPLICATE_TO_AT, PLACE_BYTES_MAX, bytes[76], "replicate to")?,
        };
        check_disk_id(&header.disk_id).map_err(|_| Unreadable::Field("disk id"))?;
        check_place(&header.moved_to).map_err(|_| Unreadable::Field("moved to"))?;
        check_place(&header.replicate_to).map_err(|_| Unreadable::Field("replicate to"))?;
        Ok((number(bytes, 16), header))
    }
}

/// Chooses between the two slots: the newest that is whole; with its slot and sequence number.
///
/// A slot of a later format counts: an older one beside it must not win.
pub fn newest(slots: [&[u8]; 2]) -> Result<(usize, u64, Header), Unreadable> {
    let [a, b] = slots.map(Header::decode);
    match (a, b) {
        (Err(Unreadable::Version(version)), _) | (_, Err(Unreadable::Version(version))) => {
            Err(Unreadable::Version(version))
        }
        (Ok((old, _)), Ok((sequence, header))) if sequence > old => Ok((1, sequence, header)),
        (Ok((sequence, header)), _) => Ok((0, sequence, header)),
        (Err(_), Ok((sequence, header))) => Ok((1, sequence, header)),
        (Err(unreadable), Err(_)) => Err(unreadable),
    }
}

fn check_frame(bytes: &[u8; HEADER_BYTES]) -> Result<(), Unreadable> {
    if &bytes[..8] != MAGIC {
        return Err(Unreadable::Magic);
    }
    if crc32fast::hash(&bytes[..CRC_AT]).to_le_bytes() != bytes[CRC_AT..] {
        return Err(Unreadable::Checksum);
    }
    let word = |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().expect("4 bytes"));
    if word(8) != VERSION {
        return Err(Unreadable::Version(word(8)));
    }
    if u64::from(word(12)) != BLOCK_BYTES {
        return Err(Unreadable::Field("block bytes"));
    }
    let unused = [
        77..DISK_ID_AT,
        MOVED_TO_AT + PLACE_BYTES_MAX..REPLICATE_TO_AT,
        655..KNOWN_EPOCH_AT,
        END_OF_FIELDS..CRC_AT,
    ];
    if unused.into_iter().any(|range| bytes[range].iter().any(|byte| *byte != 0)) {
        return Err(Unreadable::Field("reserved"));
    }
    Ok(())
}

fn number(bytes: &[u8; HEADER_BYTES], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().expect("8 bytes"))
}

fn text(
    bytes: &[u8; HEADER_BYTES],
    at: usize,
    max: usize,
    len: u8,
    field: &'static str,
) -> Result<String, Unreadable> {
    let field_bytes = &bytes[at..at + max];
    let (used, unused) = field_bytes.split_at_checked(len.into()).ok_or(Unreadable::Field(field))?;
    if unused.iter().any(|byte| *byte != 0) {
        return Err(Unreadable::Field(field));
    }
    String::from_utf8(used.to_vec()).map_err(|_| Unreadable::Field(field))
}

#[cfg(test)]
mod tests;
