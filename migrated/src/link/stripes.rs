//! One lane over several connections: its frames leave on whichever connection takes them, and come in order.
//!
//! ```text
//! session ─ frames ─► record 7 ─► connection 0 ═══════╗                   ╔═► record 6 ┐
//!                     record 8 ─► connection 2 ═══════╬══ any order ══════╬═► record 8 ├─ merge ─► frames in order
//!                     record 9 ─► connection 1 ═══════╝                   ╚═► record 7 ┘
//! ```
//!
//! ```text
//! 0       8            12           16
//! | number | body bytes | header crc | whole frames …
//! ```
//!
//! Records are numbered from 0 for each set of connections, rise on every connection of it, and are handed on in
//! order. What came too early is held: on each connection at most [`HELD_BYTES_MAX`] and one record, then it is not
//! read. The record that is next is never behind one that is held, for numbers rise: so this cannot lock up.
//!
//! Knows nothing of channels: a set of connections lives and dies as a whole, and what was lost with it the session
//! sends again. Normative in `docs/wire.md`.

use std::collections::BTreeMap;

use super::fields::{Fields, Malformed};

/// Bytes of a record's header.
pub const RECORD_HEADER_BYTES: usize = 16;
/// The longest body of a record, in bytes: all that a side can have to say at once.
pub const RECORD_BYTES_MAX: usize = 1 << 20;
/// Bytes that came too early on a connection, after which it is not read for a while.
pub const HELD_BYTES_MAX: usize = 1 << 20;
/// Most connections of a lane.
pub const STRIPES_MAX: u16 = 16;

/// Makes room for a record's header in an empty buffer.
pub fn begin(out: &mut Vec<u8>) {
    out.resize(RECORD_HEADER_BYTES, 0);
}

/// Writes the header before the frames that were put behind it.
pub fn seal(record: &mut [u8], number: u64) {
    let body_bytes = record.len() - RECORD_HEADER_BYTES;
    assert!(body_bytes <= RECORD_BYTES_MAX, "what a side says at once is bounded");
    record[..8].copy_from_slice(&number.to_le_bytes());
    record[8..12].copy_from_slice(&(body_bytes as u32).to_le_bytes());
    let crc = crc32fast::hash(&record[..12]);
    record[12..16].copy_from_slice(&crc.to_le_bytes());
}

/// Reads a record's header: its number, and the bytes that follow.
pub fn read_header(bytes: &[u8; RECORD_HEADER_BYTES]) -> Result<(u64, usize), Malformed> {
    let mut fields = Fields::new(bytes, "record");
    let (number, body_bytes, crc) = (fields.u64()?, fields.u32()?, fields.u32()?);
    if crc32fast::hash(&bytes[..12]) != crc {
        return Err(Malformed::Checksum("record's header"));
    }
    if body_bytes == 0 || body_bytes as usize > RECORD_BYTES_MAX {
        return Err(Malformed::Length(body_bytes));
    }
    Ok((number, body_bytes as usize))
}

/// What came on the connections of a lane, put in order.
#[derive(Debug)]
pub struct Merge {
    next: u64,
    held: BTreeMap<u64, (usize, Vec<u8>)>,
    held_bytes: Vec<usize>,
    /// The least number that a connection may bring next.
    least: Vec<u64>,
}

impl Merge {
    /// For so many connections, nothing here yet.
    pub fn new(connections: usize) -> Self {
        Self { next: 0, held: BTreeMap::new(), held_bytes: vec![0; connections], least: vec![0; connections] }
    }

    /// A connection brought a record.
    pub fn handle_record(&mut self, connection: usize, number: u64, body: Vec<u8>) -> Result<(), Malformed> {
        let is_new = number >= self.next.max(self.least[connection]) && !self.held.contains_key(&number);
        if !is_new || number == u64::MAX {
            return Err(Malformed::Field("a record's number does not rise"));
        }
        self.least[connection] = number + 1;
        self.held_bytes[connection] += body.len();
        self.held.insert(number, (connection, body));
        Ok(())
    }

    /// The next record in order, if it is here.
    pub fn take(&mut self) -> Option<Vec<u8>> {
        let (connection, body) = self.held.remove(&self.next)?;
        self.next += 1;
        self.held_bytes[connection] -= body.len();
        Some(body)
    }

    /// Whether a connection is to be read on.
    pub fn may_read(&self, connection: usize) -> bool {
        self.held_bytes[connection] < HELD_BYTES_MAX
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use proptest::prelude::*;

    use super::{HELD_BYTES_MAX, Merge, RECORD_BYTES_MAX, begin, read_header, seal};
    use crate::link::fields::Malformed;

    #[test]
    fn golden_bytes() {
        let mut record = Vec::new();
        begin(&mut record);
        record.extend_from_slice(b"frames");
        seal(&mut record, 0x0102_0304_0506_0708);
        let hex: String = record.iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(hex, "0807060504030201060000001a530af36672616d6573");
        assert_eq!(read_header(record.first_chunk().unwrap()), Ok((0x0102_0304_0506_0708, 6)));
    }

    #[test]
    fn headers_that_cannot_be_trusted_are_refused() {
        let mut record = vec![0; 16];
        seal(&mut record, 3);
        assert_eq!(read_header(record.first_chunk().unwrap()), Err(Malformed::Length(0)));
        record.push(1);
        seal(&mut record, 3);
        for bit in 0..128 {
            let mut flipped = record.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            let read = read_header(flipped.first_chunk().unwrap());
            assert_eq!(read, Err(Malformed::Checksum("record's header")), "bit {bit}");
        }
        record.resize(16 + RECORD_BYTES_MAX, 0);
        seal(&mut record, 3);
        assert!(read_header(record.first_chunk().unwrap()).is_ok());
    }

    #[test]
    fn numbers_that_do_not_rise_are_refused() {
        let mut merge = Merge::new(2);
        merge.handle_record(0, 5, vec![5]).unwrap();
        assert!(merge.handle_record(0, 4, vec![4]).is_err(), "behind a later one of the same connection");
        assert!(merge.handle_record(1, 5, vec![5]).is_err(), "twice");
        merge.handle_record(1, 0, vec![0]).unwrap();
        assert_eq!(merge.take(), Some(vec![0]));
        assert!(merge.handle_record(1, 0, vec![0]).is_err(), "again");
        assert_eq!(merge.take(), None, "the second is missing");
    }

    proptest! {
        #[test]
        fn whatever_way_records_take_they_come_in_order_and_little_is_held(
            ways in proptest::collection::vec((0..4usize, 1..400_000usize), 1..60),
            turns in proptest::collection::vec(0..4usize, 0..400),
        ) {
            let mut wires: [VecDeque<(u64, usize)>; 4] = Default::default();
            for (number, (way, bytes)) in ways.iter().enumerate() {
                wires[*way].push_back((number as u64, *bytes));
            }
            let mut merge = Merge::new(4);
            let mut came = Vec::new();
            // First in any order, then each in turn until nothing is left: it must not lock up.
            for way in turns.into_iter().chain((0..4).cycle().take(4 * ways.len() * 60)) {
                if merge.may_read(way) && let Some((number, bytes)) = wires[way].pop_front() {
                    merge.handle_record(way, number, vec![number as u8; bytes]).unwrap();
                }
                while let Some(body) = merge.take() {
                    came.push((body[0], body.len()));
                }
                prop_assert!(merge.held_bytes.iter().all(|bytes| *bytes < HELD_BYTES_MAX + 400_000));
            }
            let sent: Vec<_> = ways.iter().enumerate().map(|(number, (_, bytes))| (number as u8, *bytes)).collect();
            prop_assert_eq!(came, sent);
        }
    }
}
