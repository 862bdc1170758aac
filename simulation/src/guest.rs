//! A guest that speaks NBD to its disk, and the oracle of what its disk must hold.
//!
//! Every write carries a number of its own in all its bytes. A sector may hold any write that was
//! issued and not superseded; a write is superseded when a later one, issued after the first was
//! answered, is answered itself.

use blockd::extent::Extent;

use super::rng::Rng;

/// Granularity of the guest's writes in bytes.
pub const SECTOR_BYTES: u64 = 512;
const REQUEST_MAGIC: u32 = 0x2560_9513;
const REPLY_MAGIC: u32 = 0x6744_6698;

/// One command of the guest that is not answered yet.
#[derive(Clone, Debug)]
pub struct Outstanding {
    /// The NBD cookie, and the number that its bytes carry.
    pub id: u64,
    /// The NBD command: write, trim, write zeroes or flush.
    pub kind: u16,
    /// The NBD flags.
    pub flags: u16,
    /// Where.
    pub extent: Extent,
}

#[derive(Clone, Debug)]
struct Written {
    id: u64,
    issued: u64,
    answered: Option<u64>,
    zeros: bool,
}

/// The guest and what it knows.
#[derive(Debug)]
pub struct Guest {
    size: u64,
    next_id: u64,
    clock: u64,
    outstanding: Vec<Outstanding>,
    sectors: Vec<Vec<Written>>,
    received: Vec<u8>,
}

/// Bytes of a client's side of the oldest handshake: no zeroes, the default export.
pub fn handshake_bytes() -> Vec<u8> {
    let mut bytes = 3u32.to_be_bytes().to_vec();
    bytes.extend_from_slice(b"IHAVEOPT");
    bytes.extend_from_slice(&1u32.to_be_bytes());
    bytes.extend_from_slice(&0u32.to_be_bytes());
    bytes
}

/// Bytes that the server sends before the first reply: greeting, size and flags.
pub const GREETING_BYTES: usize = 18 + 10;

impl Guest {
    /// A guest with an empty disk of `size` bytes.
    pub fn new(size: u64) -> Self {
        let blank = Written { id: 0, issued: 0, answered: Some(0), zeros: true };
        let sectors = vec![vec![blank]; (size / SECTOR_BYTES) as usize];
        Self { size, next_id: 1, clock: 1, outstanding: Vec::new(), sectors, received: Vec::new() }
    }

    /// Commands that are not answered.
    pub fn outstanding(&self) -> usize {
        self.outstanding.len()
    }

    /// Issues one more command; returns its bytes.
    pub fn issue(&mut self, rng: &mut Rng) -> Vec<u8> {
        let id = self.next_id;
        self.next_id += 1;
        let kind = [1, 1, 1, 1, 1, 3, 4, 6][rng.index(8)];
        let grain = if rng.chance(80) { 4096 } else { SECTOR_BYTES };
        let units = self.size / grain;
        // Half of the writes go to a small hot area, so that they meet.
        let start = if rng.chance(50) { rng.below(units.min(4)) } else { rng.below(units) };
        let longest = if rng.chance(80) { 3 } else { 12 };
        let len = (1 + rng.below(longest)).min(units - start);
        let extent = if kind == 3 { Extent::new(0, 0) } else { Extent::new(start * grain, len * grain) };
        let flags = if rng.chance(10) && kind != 3 { 1 } else { 0 };
        let command = Outstanding { id, kind, flags, extent };
        self.clock += 1;
        let written = Written { id, issued: self.clock, answered: None, zeros: kind != 1 };
        self.sectors_of(&extent).for_each(|sector| sector.push(written.clone()));
        let bytes = encode(&command);
        self.outstanding.push(command);
        bytes
    }

    /// The guest is reset: it forgets what it asked for. What it asked for may still be on the disk.
    pub fn reset(&mut self) {
        self.outstanding.clear();
    }

    /// The connection was lost: every unanswered command is sent again on the new one.
    pub fn reconnect(&mut self) -> Vec<u8> {
        self.received.clear();
        let mut bytes = handshake_bytes();
        self.outstanding.iter().for_each(|command| bytes.extend(encode(command)));
        bytes
    }

    /// Takes in bytes from the server.
    pub fn handle_bytes(&mut self, bytes: &[u8], greeting: &mut usize) {
        let skipped = (*greeting).min(bytes.len());
        *greeting -= skipped;
        self.received.extend_from_slice(&bytes[skipped..]);
        while self.received.len() >= 16 {
            let reply: Vec<u8> = self.received.drain(..16).collect();
            assert_eq!(reply[..4], REPLY_MAGIC.to_be_bytes(), "the server sends simple replies");
            let id = u64::from_be_bytes(reply[8..16].try_into().expect("eight bytes"));
            let failed = reply[4..8] != [0; 4];
            self.handle_reply(id, failed);
        }
    }

    /// The host crashed: unflushed writes may be gone, whatever is there now is the truth.
    pub fn accept_disk(&mut self, bytes: &[u8]) {
        for (sector, chunk) in self.sectors.iter_mut().zip(bytes.chunks(SECTOR_BYTES as usize)) {
            let pending: Vec<Written> =
                sector.iter().filter(|written| written.answered.is_none()).cloned().collect();
            let id = u64::from_le_bytes(chunk[..8].try_into().expect("eight bytes"));
            *sector = vec![Written { id, issued: 0, answered: Some(0), zeros: id == 0 }];
            sector.extend(pending);
        }
    }

    /// Says what is wrong with the disk, if anything is.
    pub fn check(&self, bytes: &[u8]) -> Result<(), String> {
        for (index, (sector, chunk)) in
            self.sectors.iter().zip(bytes.chunks(SECTOR_BYTES as usize)).enumerate()
        {
            let (words, _) = chunk.as_chunks::<8>();
            let id = u64::from_le_bytes(words[0]);
            if words.iter().any(|word| u64::from_le_bytes(*word) != id) {
                return Err(format!("sector {index} is torn"));
            }
            if !sector.iter().any(|written| if written.zeros { id == 0 } else { id == written.id }) {
                return Err(format!("sector {index} holds write {id}, which was superseded"));
            }
        }
        Ok(())
    }

    fn handle_reply(&mut self, id: u64, failed: bool) {
        let index =
            self.outstanding.iter().position(|command| command.id == id).expect("an answer to a question");
        let command = self.outstanding.swap_remove(index);
        self.clock += 1;
        let now = self.clock;
        for sector in self.sectors_of(&command.extent) {
            let Some(this) = sector.iter_mut().find(|written| written.id == id) else { continue };
            this.answered = Some(now);
            let issued = this.issued;
            if !failed {
                sector.retain(|other| other.answered.is_none_or(|answered| answered >= issued));
            }
        }
    }

    fn sectors_of(&mut self, extent: &Extent) -> impl Iterator<Item = &mut Vec<Written>> {
        let range = (extent.offset / SECTOR_BYTES) as usize..(extent.end() / SECTOR_BYTES) as usize;
        self.sectors[range].iter_mut()
    }
}

fn encode(command: &Outstanding) -> Vec<u8> {
    let mut bytes = REQUEST_MAGIC.to_be_bytes().to_vec();
    bytes.extend_from_slice(&command.flags.to_be_bytes());
    bytes.extend_from_slice(&command.kind.to_be_bytes());
    bytes.extend_from_slice(&command.id.to_be_bytes());
    bytes.extend_from_slice(&command.extent.offset.to_be_bytes());
    bytes.extend_from_slice(&(command.extent.len as u32).to_be_bytes());
    if command.kind == 1 {
        let words = command.extent.len / 8;
        (0..words).for_each(|_| bytes.extend_from_slice(&command.id.to_le_bytes()));
    }
    bytes
}
