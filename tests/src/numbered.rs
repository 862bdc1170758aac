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

/// FNV-1a over the words of everything but the check itself.
fn check(block: &[u8]) -> u64 {
    let words = block[..16].chunks_exact(8).chain(block[24..].chunks_exact(8));
    words.fold(0xCBF2_9CE4_8422_2325, |hash, word| {
        let word = u64::from_le_bytes(word.try_into().expect("8 bytes"));
        (hash ^ word).wrapping_mul(0x0100_0000_01B3)
    })
}

/// The highest number that any block claims to have, whether it is whole or not: where a writer goes on.
pub fn claimed(blocks: &[u8]) -> u64 {
    let heads = blocks.chunks_exact(BLOCK_BYTES).filter(|block| block[..8] == MAGIC);
    let numbers = heads.map(|block| u64::from_le_bytes(block[8..16].try_into().expect("8 bytes")));
    numbers.max().unwrap_or(0)
}

/// Check every slot after the numbers `1..=acknowledged` were written in order, of which every one was
/// acknowledged, and at most `unanswered` more. Hands back how many blocks there are, or the first fault.
pub fn verify(
    slots: u64,
    acknowledged: u64,
    unanswered: u64,
    read: impl FnMut(u64, &mut [u8]),
) -> Result<u64, String> {
    let survey = survey(slots, acknowledged, Some(acknowledged + unanswered), read);
    survey.faults.into_iter().next().map_or(Ok(survey.present), Err)
}

/// What a disk holds.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Survey {
    /// Slots that hold a block.
    pub present: u64,
    /// The highest number of a whole block.
    pub newest: u64,
    /// Everything that is wrong.
    pub faults: Vec<String>,
}

/// Look at every slot. The writer has begun `n` only when `n - 1` was durable: so whatever number is found, all
/// before it must be there, also those of which nobody has heard that they were acknowledged. `most` is the highest
/// number that was ever begun, where that is known.
pub fn survey(
    slots: u64,
    acknowledged: u64,
    most: Option<u64>,
    mut read: impl FnMut(u64, &mut [u8]),
) -> Survey {
    let mut survey = Survey::default();
    let mut block = vec![0; BLOCK_BYTES];
    let mut numbers = Vec::new();
    for slot in 0..slots {
        read(slot, &mut block);
        let found = number_of(&block).unwrap_or_else(|why| {
            survey.faults.push(format!("slot {slot}: {why}"));
            None
        });
        numbers.push(found.unwrap_or(0));
        survey.present += u64::from(found.is_some());
    }
    survey.newest = numbers.iter().copied().max().unwrap_or(0);
    let durable = acknowledged.max(survey.newest.saturating_sub(1));
    let mut at_least = vec![0u64; numbers.len()];
    for number in durable.saturating_sub(slots) + 1..=durable {
        at_least[slot_of(number, slots) as usize] = number;
    }
    for (slot, (number, at_least)) in numbers.into_iter().zip(at_least).enumerate() {
        survey.faults.extend(fault(slot as u64, slots, number, (at_least, acknowledged, most)));
    }
    survey
}

/// What is wrong with a slot that holds `number` (0: nothing).
fn fault(
    slot: u64,
    slots: u64,
    number: u64,
    (at_least, acknowledged, most): (u64, u64, Option<u64>),
) -> Option<String> {
    if number < at_least && at_least <= acknowledged {
        return Some(format!("slot {slot}: holds {number}, but {at_least} was acknowledged"));
    }
    if number < at_least {
        return Some(format!("slot {slot}: holds {number}, but {at_least} was durable before a later one"));
    }
    if most.is_some_and(|most| number > most) {
        return Some(format!("slot {slot}: holds {number}, but only {acknowledged} were acknowledged"));
    }
    let place = slot_of(number, slots);
    (number != 0 && place != slot).then(|| format!("slot {slot}: holds {number}, which belongs to {place}"))
}

#[cfg(test)]
mod tests {
    use super::{BLOCK_BYTES, claimed, number_of, slot_of, stamp, survey, verify};

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

    #[test]
    fn a_write_that_nobody_heard_of_is_missed_when_a_later_one_is_there() {
        let mut disk = written(16, 43);
        disk[slot_of(42, 16) as usize].fill(0);
        let look = |acknowledged, most| {
            survey(16, acknowledged, most, |slot, block| block.copy_from_slice(&disk[slot as usize]))
        };
        let found = look(40, None);
        assert_eq!((found.present, found.newest, found.faults.len()), (15, 43, 1));
        assert!(found.faults[0].contains("42 was durable before a later one"), "{:?}", found.faults);
        assert_eq!(look(42, Some(42)).faults.len(), 2, "one lost, and one that was never begun");
    }

    #[test]
    fn a_writer_finds_where_it_was() {
        assert_eq!(claimed(&written(16, 43).concat()), 43);
        assert_eq!(claimed(&written(16, 0).concat()), 0);
    }
}
