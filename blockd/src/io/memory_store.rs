//! A disk in memory, for tests: sparse, volatile, always in agreement with itself.
//!
//! It keeps one block of 4 KiB for each block that was written. It has no descriptor for a ring,
//! so it also stands for every store that is called through the trait alone.

use std::io;
use std::os::fd::RawFd;
use std::sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use crate::extent::{BLOCK_BYTES, Extent, block_count};
use crate::store::{Allocation, BlockStore, Geometry, Trimmed};

type Block = Box<[u8; BLOCK_BYTES as usize]>;

/// A sparse disk in memory.
#[derive(Debug)]
pub struct MemoryStore {
    blocks: RwLock<Vec<Option<Block>>>,
    size: u64,
}

impl MemoryStore {
    /// A disk of `size` bytes that reads as zeros.
    pub fn new(size: u64) -> Self {
        let mut blocks = Vec::new();
        blocks.resize_with(block_count(size) as usize, || None);
        Self { blocks: RwLock::new(blocks), size }
    }

    fn read(&self) -> RwLockReadGuard<'_, Vec<Option<Block>>> {
        self.blocks.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Vec<Option<Block>>> {
        self.blocks.write().unwrap_or_else(PoisonError::into_inner)
    }

    fn check(&self, extent: Extent) -> io::Result<()> {
        let end = extent.offset.checked_add(extent.len);
        if end.is_some_and(|end| end <= self.size) {
            return Ok(());
        }
        let text = format!("{extent:?} is past the end of a disk of {} bytes", self.size);
        Err(io::Error::new(io::ErrorKind::UnexpectedEof, text))
    }
}

/// Cuts a range into pieces that each lie in one block: (block, offset in it, length).
fn pieces(extent: Extent) -> impl Iterator<Item = (usize, usize, usize)> {
    extent.touched_blocks().map(move |block| {
        let start = extent.offset.max(block * BLOCK_BYTES);
        let end = extent.end().min((block + 1) * BLOCK_BYTES);
        (block as usize, (start - block * BLOCK_BYTES) as usize, (end - start) as usize)
    })
}

impl BlockStore for MemoryStore {
    fn geometry(&self) -> Geometry {
        Geometry { size: self.size, alignment: 1 }
    }

    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        let extent = Extent::new(offset, buf.len() as u64);
        self.check(extent)?;
        let blocks = self.read();
        let mut rest = buf;
        for (block, start, len) in pieces(extent) {
            let (piece, after) = rest.split_at_mut(len);
            match &blocks[block] {
                Some(bytes) => piece.copy_from_slice(&bytes[start..start + len]),
                None => piece.fill(0),
            }
            rest = after;
        }
        Ok(())
    }

    fn write_at(&self, buf: &[u8], offset: u64, _durable: bool) -> io::Result<()> {
        let extent = Extent::new(offset, buf.len() as u64);
        self.check(extent)?;
        let mut blocks = self.write();
        let mut rest = buf;
        for (block, start, len) in pieces(extent) {
            let (piece, after) = rest.split_at(len);
            let bytes = blocks[block].get_or_insert_with(|| Box::new([0; BLOCK_BYTES as usize]));
            bytes[start..start + len].copy_from_slice(piece);
            rest = after;
        }
        Ok(())
    }

    fn flush(&self) -> io::Result<()> {
        Ok(())
    }

    fn zero(&self, extent: Extent, allocate: bool) -> io::Result<()> {
        self.check(extent)?;
        let mut blocks = self.write();
        for (block, start, len) in pieces(extent) {
            let whole = len as u64 == BLOCK_BYTES;
            match &mut blocks[block] {
                slot if whole && !allocate => *slot = None,
                Some(bytes) => bytes[start..start + len].fill(0),
                slot if allocate => *slot = Some(Box::new([0; BLOCK_BYTES as usize])),
                None => {}
            }
        }
        Ok(())
    }

    fn trim(&self, extent: Extent) -> io::Result<Trimmed> {
        self.zero(extent, false).map(|()| Trimmed::ReadsZero)
    }

    fn allocation(&self, extent: Extent) -> io::Result<(Allocation, u64)> {
        self.check(extent)?;
        let blocks = self.read();
        let mut touched = extent.touched_blocks();
        let first = blocks[touched.start as usize].is_some();
        let end = touched.find(|block| blocks[*block as usize].is_some() != first);
        let end = end.map_or(extent.end(), |block| block * BLOCK_BYTES);
        let kind = if first { Allocation::Data } else { Allocation::Hole };
        Ok((kind, end - extent.offset))
    }

    fn prefetch(&self, _extent: Extent) {}

    fn ring_fd(&self) -> Option<RawFd> {
        None
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SIZE: u64 = 5 * BLOCK_BYTES + 100;

    proptest! {
        #[test]
        fn it_behaves_like_a_plain_array(
            steps in prop::collection::vec((0..3u8, 0..SIZE, 1..2 * BLOCK_BYTES, any::<u8>()), 1..40)
        ) {
            let store = MemoryStore::new(SIZE);
            let mut model = vec![0u8; SIZE as usize];
            for (kind, offset, len, byte) in steps {
                let extent = Extent::new(offset, len.min(SIZE - offset));
                let range = extent.offset as usize..extent.end() as usize;
                let byte = if kind == 0 { byte } else { 0 };
                model[range.clone()].fill(byte);
                match kind {
                    0 => store.write_at(&model[range], offset, false).unwrap(),
                    1 => store.zero(extent, false).unwrap(),
                    _ => store.zero(extent, true).unwrap(),
                }
            }
            let mut back = vec![1; SIZE as usize];
            store.read_at(&mut back, 0).unwrap();
            prop_assert_eq!(back, model);
        }
    }

    #[test]
    fn holes_come_back_by_trimming_and_not_by_zeroing_that_keeps_the_space() {
        let store = MemoryStore::new(SIZE);
        store.write_at(&[1; 3 * BLOCK_BYTES as usize], BLOCK_BYTES, false).unwrap();
        let all = Extent::new(0, SIZE);
        let rest = Extent::new(BLOCK_BYTES + 10, SIZE - BLOCK_BYTES - 10);
        assert_eq!(store.allocation(all).unwrap(), (Allocation::Hole, BLOCK_BYTES));
        assert_eq!(store.allocation(rest).unwrap(), (Allocation::Data, 3 * BLOCK_BYTES - 10));
        store.trim(Extent::new(2 * BLOCK_BYTES, BLOCK_BYTES)).unwrap();
        store.zero(Extent::new(3 * BLOCK_BYTES, BLOCK_BYTES), true).unwrap();
        assert_eq!(store.allocation(rest).unwrap(), (Allocation::Data, BLOCK_BYTES - 10));
        let last = Extent::new(3 * BLOCK_BYTES, BLOCK_BYTES);
        assert_eq!(store.allocation(last).unwrap(), (Allocation::Data, BLOCK_BYTES));
    }

    #[test]
    fn ranges_past_the_end_are_refused() {
        let store = MemoryStore::new(SIZE);
        assert!(store.write_at(&[0; 2], SIZE - 1, false).is_err());
        assert!(store.read_at(&mut [0], u64::MAX).is_err());
    }
}
