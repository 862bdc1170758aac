//! A disk with a volatile cache: what is written can be read at once, and survives a crash of the
//! host only if it was flushed.

use std::collections::{BTreeMap, BTreeSet};

use blockd::extent::{BLOCK_BYTES, Extent};

use super::rng::Rng;

const BLOCK: usize = BLOCK_BYTES as usize;

/// Bytes, which of them are durable, and which blocks have space.
#[derive(Clone, Debug)]
pub struct Disk {
    bytes: Vec<u8>,
    allocated: BTreeSet<u64>,
    /// Blocks written since the last flush, as they were durable.
    volatile: BTreeMap<u64, Vec<u8>>,
}

impl Disk {
    /// A disk of zeros without space.
    pub fn new(size: u64) -> Self {
        Self { bytes: vec![0; size as usize], allocated: BTreeSet::new(), volatile: BTreeMap::new() }
    }

    /// What a read returns.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// What a read of `extent` returns.
    pub fn read(&self, extent: &Extent) -> &[u8] {
        &self.bytes[extent.offset as usize..extent.end() as usize]
    }

    /// Writes the part of `data` (which lies at `extent`) that falls into `block`.
    pub fn write_block(&mut self, block: u64, extent: &Extent, data: &[u8]) {
        self.keep_durable(block);
        self.allocated.insert(block);
        let start = extent.offset.max(block * BLOCK_BYTES);
        let end = extent.end().min((block + 1) * BLOCK_BYTES);
        let from = (start - extent.offset) as usize;
        self.bytes[start as usize..end as usize].copy_from_slice(&data[from..from + (end - start) as usize]);
    }

    /// Zeroes the part of `extent` that falls into `block`; a whole block loses its space.
    pub fn zero_block(&mut self, block: u64, extent: &Extent, allocate: bool) {
        self.keep_durable(block);
        let start = extent.offset.max(block * BLOCK_BYTES) as usize;
        let end = extent.end().min((block + 1) * BLOCK_BYTES) as usize;
        self.bytes[start..end].fill(0);
        if end - start == BLOCK && !allocate {
            self.allocated.remove(&block);
        }
    }

    /// True if the block has no space.
    pub fn is_hole(&self, block: u64) -> bool {
        !self.allocated.contains(&block)
    }

    /// Makes everything durable.
    pub fn flush(&mut self) {
        self.volatile.clear();
    }

    /// What would be left after a crash of the host that forgets everything that may be forgotten.
    pub fn durable_bytes(&self) -> Vec<u8> {
        let mut bytes = self.bytes.clone();
        for (block, old) in &self.volatile {
            let start = *block as usize * BLOCK;
            bytes[start..start + old.len()].copy_from_slice(old);
        }
        bytes
    }

    /// The host crashes: each block that was not flushed is kept or lost.
    pub fn crash(&mut self, rng: &mut Rng) {
        for (block, old) in std::mem::take(&mut self.volatile) {
            if rng.chance(50) {
                let start = block as usize * BLOCK;
                self.bytes[start..start + old.len()].copy_from_slice(&old);
                self.allocated.insert(block);
            }
        }
    }

    fn keep_durable(&mut self, block: u64) {
        let start = block as usize * BLOCK;
        let end = (start + BLOCK).min(self.bytes.len());
        let bytes = &self.bytes;
        self.volatile.entry(block).or_insert_with(|| bytes[start..end].to_vec());
    }
}
