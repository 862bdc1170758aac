//! Where a disk's bytes live: the seam behind which raw files, block devices and memory look alike.
//!
//! A store is synchronous and may be used from several threads at once. A store that is one file
//! descriptor says so by [`BlockStore::ring_fd`]; then the data plane submits reads, writes,
//! flushes and fallocate straight to the kernel, and the methods here serve everyone else (the
//! replica, the thread-pool data plane, the fallbacks). Formats with a mapping of their own have
//! no such descriptor and are called through these methods alone.
//!
//! A store does not order overlapping calls, does not lock, and does not know who may write.

use std::io;
use std::os::fd::RawFd;

use crate::extent::Extent;

/// What lies in a range, as far as the store knows without reading it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Allocation {
    /// Allocated; the content has to be read.
    Data,
    /// Not allocated, reads as zeros.
    Hole,
}

/// What a discard did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trimmed {
    /// The range now reads as zeros.
    ReadsZero,
    /// The content of the range is anything; the store could or would not say.
    Unspecified,
}

/// What the store asks of its callers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Geometry {
    /// Size of the disk in bytes.
    pub size: u64,
    /// Offsets and lengths must be multiples of this many bytes (1 for buffered files).
    pub alignment: u32,
}

impl Geometry {
    /// Reads and writes go through a page cache: direct I/O asks for more alignment.
    pub fn is_buffered(&self) -> bool {
        self.alignment == 1
    }
}

/// The bytes of one disk.
pub trait BlockStore: Send + Sync {
    /// Size and alignment; constant while the store is open.
    fn geometry(&self) -> Geometry;

    /// Fills `buf` from `offset`. Bytes that were never written read as zeros.
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()>;

    /// Writes all of `buf` at `offset`; `durable` returns only when it would survive a power cut.
    fn write_at(&self, buf: &[u8], offset: u64, durable: bool) -> io::Result<()>;

    /// Makes every write that has returned durable.
    fn flush(&self) -> io::Result<()>;

    /// Makes the range read as zeros; keeps it allocated where `allocate`, else may free it.
    fn zero(&self, extent: Extent, allocate: bool) -> io::Result<()>;

    /// Gives the range's space back if possible. Advice: not being able to is no error.
    fn trim(&self, extent: Extent) -> io::Result<Trimmed>;

    /// What lies at the start of `extent`, and for how many bytes (at least 1, at most its length).
    fn allocation(&self, extent: Extent) -> io::Result<(Allocation, u64)>;

    /// Asks that the range be brought near; best effort.
    fn prefetch(&self, extent: Extent);

    /// From now on reads what is on the disk, not what is remembered of it: after a flush that failed the two may differ.
    fn forget_cached(&self) {}

    /// The descriptor that a ring may use for plain reads and writes at the same offsets.
    fn ring_fd(&self) -> Option<RawFd>;
}
