//! Looks at a disk for the replica: what a range holds, and what its leaves' digests are.

use std::ops::Range;

use crate::buffer::PageBuf;
use crate::extent::{Extent, LEAF_BYTES};
use crate::replica::batch::{Digest, is_zero};
use crate::replica::source::{Found, Hashed};
use crate::store::{Allocation, BlockStore};

/// The most leaves that are hashed in one go: 1 MiB.
const LEAVES_AT_ONCE: u64 = 16;

/// What the start of `extent` holds: a hole of any length, or at most `most` bytes of data.
pub fn look(store: &dyn BlockStore, extent: Extent, most: u64) -> Found {
    let failed =
        |error| Found::Failed(format!("cannot read {} bytes at {}: {error}", extent.len, extent.offset));
    let (allocation, len) = match store.allocation(extent) {
        Ok(found) => found,
        Err(error) => return failed(error),
    };
    // A hole that does not reach a block's end is read like data: only whole blocks travel.
    let whole = Extent::new(extent.offset, len).covered_blocks(store.geometry().size);
    let hole = Extent::of_blocks(whole, store.geometry().size);
    if allocation == Allocation::Hole && !hole.is_empty() {
        return Found::Hole(hole.len);
    }
    let blocks = Extent::new(extent.offset, len).touched_blocks();
    let data = Extent::of_blocks(blocks, store.geometry().size);
    let mut buf = PageBuf::zeroed(data.len.min(extent.len).min(most) as usize);
    match store.read_at(&mut buf, extent.offset) {
        Ok(()) => Found::Data(buf),
        Err(error) => failed(error),
    }
}

/// Hashes leaves from the disk, as many from the start as lie in one hole or in a piece of data.
pub fn hash(store: &dyn BlockStore, leaves: Range<u64>) -> Hashed {
    let size = store.geometry().size;
    let extent = Extent::of_leaves(leaves.clone(), size);
    let failed =
        |error| Hashed::Failed(format!("cannot read {} bytes at {}: {error}", extent.len, extent.offset));
    match store.allocation(extent) {
        Ok((Allocation::Hole, len)) if len == extent.len => return Hashed::Zeros(leaves.end - leaves.start),
        Ok((Allocation::Hole, len)) if len >= LEAF_BYTES => return Hashed::Zeros(len / LEAF_BYTES),
        Ok(_) => {}
        Err(error) => return failed(error),
    }
    let some = leaves.start..leaves.end.min(leaves.start + LEAVES_AT_ONCE);
    let mut buf = PageBuf::zeroed(Extent::of_leaves(some, size).len as usize);
    match store.read_at(&mut buf, extent.offset) {
        Ok(()) => Hashed::Digests(buf.chunks(LEAF_BYTES as usize).map(digest).collect()),
        Err(error) => failed(error),
    }
}

/// The digest of one leaf's bytes.
pub fn digest(leaf: &[u8]) -> Digest {
    *blake3::hash(leaf).as_bytes()
}

/// The leaves of `extent` that are not all zeros on the disk.
pub fn leaves_not_zero(store: &dyn BlockStore, extent: Extent) -> std::io::Result<Vec<u64>> {
    let mut found = Vec::new();
    let mut at = extent.offset;
    while at < extent.end() {
        let (allocation, len) = store.allocation(Extent::new(at, extent.end() - at))?;
        if allocation == Allocation::Hole {
            at += len;
            continue;
        }
        let leaf = at / LEAF_BYTES;
        let bytes = Extent::of_leaves(leaf..leaf + 1, store.geometry().size);
        let mut buf = PageBuf::zeroed(bytes.len as usize);
        store.read_at(&mut buf, bytes.offset)?;
        if !is_zero(&buf) {
            found.push(leaf);
        }
        at = bytes.end();
    }
    Ok(found)
}
