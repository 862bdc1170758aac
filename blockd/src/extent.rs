//! Byte ranges of a disk, and the two grids laid over them.
//!
//! ```text
//! bytes   |----------------------------------------------|
//! blocks  |  4 KiB  |  4 KiB  | …   unit of "is it dirty"
//! leaves  |            64 KiB            | …  unit of "do both disks agree"
//! ```
//!
//! The last block and the last leaf of a disk may be short: every conversion from blocks or leaves
//! back to bytes takes the disk's size and clips. Nothing here knows what is stored in a range.

use std::ops::Range;

/// Bytes in one dirty-tracking block.
pub const BLOCK_BYTES: u64 = 4096;
/// Bytes in one digest leaf.
pub const LEAF_BYTES: u64 = 64 * 1024;
/// Blocks in one digest leaf.
pub const BLOCKS_PER_LEAF: u64 = LEAF_BYTES / BLOCK_BYTES;

/// A byte range `[offset, offset + len)` of a disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Extent {
    /// First byte.
    pub offset: u64,
    /// Length in bytes.
    pub len: u64,
}

impl Extent {
    /// The range that starts at `offset` and is `len` bytes long.
    pub const fn new(offset: u64, len: u64) -> Self {
        Self { offset, len }
    }

    /// The bytes of a range of blocks, clipped to a disk of `size` bytes.
    pub fn of_blocks(blocks: Range<u64>, size: u64) -> Self {
        let offset = blocks.start * BLOCK_BYTES;
        Self::new(offset, (blocks.end * BLOCK_BYTES).min(size).saturating_sub(offset))
    }

    /// The bytes of a range of leaves, clipped to a disk of `size` bytes.
    pub fn of_leaves(leaves: Range<u64>, size: u64) -> Self {
        let offset = leaves.start * LEAF_BYTES;
        Self::new(offset, (leaves.end * LEAF_BYTES).min(size).saturating_sub(offset))
    }

    /// One past the last byte.
    pub const fn end(&self) -> u64 {
        self.offset + self.len
    }

    /// True for a range of no bytes.
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// True if the two ranges share a byte.
    pub const fn overlaps(&self, other: &Extent) -> bool {
        self.offset < other.end() && other.offset < self.end()
    }

    /// Every block that the range touches, also in part.
    pub const fn touched_blocks(&self) -> Range<u64> {
        if self.len == 0 {
            return 0..0;
        }
        self.offset / BLOCK_BYTES..self.end().div_ceil(BLOCK_BYTES)
    }

    /// Every block that the range covers whole, on a disk of `size` bytes: a short last block
    /// counts as covered when the range reaches the end of the disk.
    pub const fn covered_blocks(&self, size: u64) -> Range<u64> {
        let start = self.offset.div_ceil(BLOCK_BYTES);
        let end = if self.end() >= size { size.div_ceil(BLOCK_BYTES) } else { self.end() / BLOCK_BYTES };
        if start >= end { 0..0 } else { start..end }
    }

    /// Every leaf that the range touches, also in part.
    pub const fn touched_leaves(&self) -> Range<u64> {
        if self.len == 0 {
            return 0..0;
        }
        self.offset / LEAF_BYTES..self.end().div_ceil(LEAF_BYTES)
    }
}

/// Blocks on a disk of `size` bytes.
pub const fn block_count(size: u64) -> u64 {
    size.div_ceil(BLOCK_BYTES)
}

/// Leaves on a disk of `size` bytes.
pub const fn leaf_count(size: u64) -> u64 {
    size.div_ceil(LEAF_BYTES)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_short_last_block_counts_as_covered_at_the_end_of_the_disk() {
        let size = 3 * BLOCK_BYTES + 512;
        assert_eq!(Extent::new(BLOCK_BYTES, size - BLOCK_BYTES).covered_blocks(size), 1..4);
        assert_eq!(Extent::new(3 * BLOCK_BYTES, 100).covered_blocks(size), 0..0);
        assert_eq!(Extent::of_blocks(3..4, size), Extent::new(3 * BLOCK_BYTES, 512));
    }

    #[test]
    fn unaligned_ranges_touch_more_than_they_cover() {
        let extent = Extent::new(BLOCK_BYTES - 1, BLOCK_BYTES + 2);
        assert_eq!(extent.touched_blocks(), 0..3);
        assert_eq!(extent.covered_blocks(1 << 30), 1..2);
        assert_eq!(Extent::new(LEAF_BYTES - 1, 2).touched_leaves(), 0..2);
    }

    #[test]
    fn an_empty_range_touches_nothing() {
        assert_eq!(Extent::new(5000, 0).touched_blocks(), 0..0);
        assert_eq!(Extent::new(5000, 0).touched_leaves(), 0..0);
    }
}
