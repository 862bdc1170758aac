//! Numbered blocks: what a writer leaves on a disk, so that a lost or a stale write shows.
//!
//! ```text
//! 4 KiB block:  magic 8 | number 8 | check 8 | noise that depends on the number
//! place:        slot = number * 2654435761 mod slots      (slots is a power of two)
//! ```
//!
//! The multiplier is odd, so the numbers of one round of `slots` writes hit every slot once, in a scattered
//! order. Of every slot it is known which number was acknowledged last: an older block there is a lost write,
//! a block that fails its check a torn one. Plain `std`, as the guest's writer is built from this file alone.

/// Bytes of a block.
pub const BLOCK_BYTES: usize = 4096;

const MAGIC: [u8; 8] = *b"NUMBERED";
const MULTIPLIER: u64 = 2_654_435_761;

/// Where the block `number` goes among `slots`, a power of two.
pub fn slot_of(number: u64, slots: u64) -> u64 {
    assert!(slots.is_power_of_two(), "{slots} slots are not a power of two");
    number.wrapping_mul(MULTIPLIER) % slots
}

/// Make `block` the one with `number`.
pub fn stamp(block: &mut [u8], number: u64) {
    assert_eq!(block.len(), BLOCK_BYTES);
    block[..8].copy_from_slice(&MAGIC);
    block[8..16].copy_from_slice(&number.to_le_bytes());
    let mut noise = number.wrapping_mul(MULTIPLIER) | 1;
    for word in block[24..].chunks_exact_mut(8) {
        noise ^= noise << 13;
        noise ^= noise >> 7;
        noise ^= noise << 17;
        word.copy_from_slice(&noise.to_le_bytes());
    }
    let check = check(block).to_le_bytes();
    block[16..24].copy_from_slice(&check);
}

/// The number of a block that is whole; `Ok(None)` for one that was never written.
pub fn number_of(block: &[u8]) -> Result<Option<u64>, String> {
    if block.iter().all(|byte| *byte == 0) {
        return Ok(None);
    }
    if block[..8] != MAGIC {
        return Err("not a numbered block".to_owned());
    }
    if block[16..24] != check(block).to_le_bytes() {
        return Err("its check is wrong: torn, or partly overwritten".to_owned());
    }
    Ok(Some(u64::from_le_bytes(block[8..16].try_into().expect("8 bytes"))))
}

/// FNV-1a over everything but the check itself.
fn check(block: &[u8]) -> u64 {
    let bytes = block[..16].iter().chain(&block[24..]);
    bytes.fold(0xCBF2_9CE4_8422_2325, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01B3))
}

/// Check every slot after the numbers `1..=acknowledged` were written in order, of which every one was
/// acknowledged, and at most `unanswered` more. Hands back how many blocks there are.
pub fn verify(
    slots: u64,
    acknowledged: u64,
    unanswered: u64,
    mut read: impl FnMut(u64, &mut [u8]),
) -> Result<u64, String> {
    let mut newest = vec![0u64; usize::try_from(slots).expect("slots fit into memory")];
    for number in acknowledged.saturating_sub(slots) + 1..=acknowledged {
        newest[slot_of(number, slots) as usize] = number;
    }
    let mut block = vec![0; BLOCK_BYTES];
    let mut present = 0;
    for slot in 0..slots {
        read(slot, &mut block);
        let at_least = newest[slot as usize];
        let found = number_of(&block).map_err(|why| format!("slot {slot}: {why}"))?;
        let number = found.unwrap_or(0);
        if number < at_least {
            return Err(format!("slot {slot}: holds {number}, but {at_least} was acknowledged"));
        }
        if number > acknowledged + unanswered {
            return Err(format!("slot {slot}: holds {number}, but only {acknowledged} were acknowledged"));
        }
        if number != 0 && slot_of(number, slots) != slot {
            return Err(format!("slot {slot}: holds {number}, which belongs to {}", slot_of(number, slots)));
        }
        present += u64::from(found.is_some());
    }
    Ok(present)
}

#[cfg(test)]
mod tests {
    use super::{BLOCK_BYTES, number_of, slot_of, stamp, verify};

    /// The slots as they are after the numbers up to `last`.
    fn written(slots: u64, last: u64) -> Vec<Vec<u8>> {
        let mut disk = vec![vec![0; BLOCK_BYTES]; slots as usize];
        for number in 1..=last {
            stamp(&mut disk[slot_of(number, slots) as usize], number);
        }
        disk
    }

    fn check(disk: &[Vec<u8>], acknowledged: u64) -> Result<u64, String> {
        verify(disk.len() as u64, acknowledged, 1, |slot, block| block.copy_from_slice(&disk[slot as usize]))
    }

    #[test]
    fn a_complete_disk_passes_with_and_without_the_write_in_flight() {
        assert_eq!(check(&written(16, 40), 40), Ok(16));
        assert_eq!(check(&written(16, 41), 40), Ok(16));
        assert_eq!(check(&written(16, 5), 5), Ok(5));
        assert_eq!(check(&written(16, 0), 0), Ok(0));
    }

    #[test]
    fn a_lost_a_stale_a_torn_and_a_foreign_block_are_each_found() {
        let lost = written(16, 39);
        assert!(check(&lost, 40).unwrap_err().contains("holds 24, but 40 was acknowledged"));
        let mut never = written(16, 5);
        never[slot_of(3, 16) as usize].fill(0);
        assert!(check(&never, 5).unwrap_err().contains("holds 0, but 3 was acknowledged"));
        let mut torn = written(16, 40);
        torn[2][4095] ^= 1;
        assert!(check(&torn, 40).unwrap_err().contains("torn"));
        let mut moved = written(16, 40);
        moved.swap(slot_of(39, 16) as usize, slot_of(40, 16) as usize);
        assert!(check(&moved, 40).is_err());
        assert!(check(&written(16, 42), 40).is_err(), "a number that was never begun");
    }

    #[test]
    fn a_stamped_block_gives_its_number_back() {
        let mut block = vec![0; BLOCK_BYTES];
        assert_eq!(number_of(&block), Ok(None));
        stamp(&mut block, 77);
        assert_eq!(number_of(&block), Ok(Some(77)));
    }
}
