//! A raw file or a block device as a store.
//!
//! ```text
//! read_at, write_at ── pread/pwrite ──┐
//! durable write ────── RWF_DSYNC ─────┤
//! zero, trim ───────── fallocate ─────┼──► one open file description, which also
//! allocation ───────── SEEK_DATA ─────┘    carries the lock of D12
//! ```
//!
//! The file stays sparse: zeros that may be holes become holes. What a file system or device does
//! not support is done another way or, where it is advice, not done; nothing of this is an error. A device discards
//! and zeroes whole sectors only: what is left at both ends is written, or not trimmed.
//!
//! D12: [`FileStore::lock`] locks the very description that all I/O goes through, also that of the
//! ring. The kernel keeps the description alive while a request on it is in flight, so a successor
//! gets the lock only after the last write of its dead predecessor. A device is opened exclusively,
//! which the same description holds.
//!
//! Refuses files that are no disks, sizes that direct I/O could not reach, and images that anybody
//! else has. Does not know roles or sidecars.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::fs::{FileExt, FileTypeExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::errno::Errno;
use nix::fcntl::{FallocateFlags, PosixFadviseAdvice, fallocate, posix_fadvise};
use nix::unistd::{Whence, lseek64};
use thiserror::Error;

use crate::buffer::{PAGE_BYTES, PageBuf};
use crate::extent::Extent;
use crate::io::holders::Holders;
use crate::store::{Allocation, BlockStore, Geometry, Trimmed};

mod lease;
mod image_lock;
pub mod mark;

pub use image_lock::{LOCK_BYTE, LockError};

/// Zeros are written in pieces of this many bytes where the kernel has no better way.
const ZERO_CHUNK_BYTES: usize = 1 << 20;

/// Whether reads and writes go through the page cache.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cache {
    /// Past the page cache (`O_DIRECT`): aligned requests only.
    Direct,
    /// Through the page cache.
    Buffered,
}

/// How to open a disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Options {
    /// Never write.
    pub read_only: bool,
    /// Page cache or not.
    pub cache: Cache,
}

/// Why a disk could not be opened.
#[derive(Debug, Error)]
pub enum OpenError {
    /// The system said no.
    #[error("cannot open the image {path}")]
    Open {
        /// Which image.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The file system has no direct I/O.
    #[error("{path} is on a file system without direct I/O; use --cache buffered")]
    DirectRefused {
        /// Which image.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A device that somebody has for himself.
    #[error(
        "the device {path} is in use by {by}; unmount it, or take it out of what is made of it, or end what holds it"
    )]
    Busy {
        /// Which device.
        path: PathBuf,
        /// Who has it.
        by: Holders,
    },
    /// A directory, a socket, a terminal…
    #[error("{path} is neither a regular file nor a block device")]
    NotADisk {
        /// Which image.
        path: PathBuf,
    },
    /// The last bytes of the disk could not be reached.
    #[error(
        "{path} has {size} bytes, which is no multiple of the {alignment} bytes that direct I/O needs here; \
         use --cache buffered"
    )]
    Unaligned {
        /// Which image.
        path: PathBuf,
        /// Its size in bytes.
        size: u64,
        /// What direct I/O needs, in bytes.
        alignment: u32,
    },
}

/// An open raw file or block device.
#[derive(Debug)]
pub struct FileStore {
    file: File,
    path: PathBuf,
    geometry: Geometry,
    /// What a discard or a zeroing by the kernel is a multiple of, in bytes.
    sector_bytes: u32,
    read_only: bool,
}

impl FileStore {
    /// Opens an existing file or device; a device exclusively.
    pub fn open(path: &Path, options: Options) -> Result<Self, OpenError> {
        Self::open_within(path, options, Duration::ZERO)
    }

    fn open_once(path: &Path, options: Options) -> Result<Self, OpenError> {
        let failed = |source| OpenError::Open { path: path.into(), source };
        let kind = std::fs::metadata(path).map_err(failed)?.file_type();
        if !kind.is_file() && !kind.is_block_device() {
            return Err(OpenError::NotADisk { path: path.into() });
        }
        let file = open_file(path, options, kind.is_block_device())?;
        // The end by seeking works for files and devices alike.
        let size = lseek64(&file, 0, Whence::SeekEnd).map_err(|e| failed(e.into()))? as u64;
        let sector_bytes = if kind.is_block_device() { logical_block_bytes(&file) } else { 1 };
        let alignment = match options.cache {
            Cache::Buffered => 1,
            Cache::Direct if kind.is_block_device() => sector_bytes,
            Cache::Direct => direct_alignment(&file),
        };
        if !size.is_multiple_of(alignment.into()) {
            return Err(OpenError::Unaligned { path: path.into(), size, alignment });
        }
        let geometry = Geometry { size, alignment };
        Ok(Self { file, path: path.into(), geometry, sector_bytes, read_only: options.read_only })
    }

    /// The image's path, as it was opened.
    pub fn path(&self) -> &Path {
        &self.path
    }

    fn pwrite(&self, buf: &[u8], offset: u64, durable: bool) -> io::Result<()> {
        if durable && self.write_dsync(buf, offset)? {
            return Ok(());
        }
        self.file.write_all_at(buf, offset)?;
        if durable { self.file.sync_data() } else { Ok(()) }
    }

    /// One pwritev2 per round with RWF_DSYNC; false where the kernel or file system has none.
    fn write_dsync(&self, mut buf: &[u8], mut offset: u64) -> io::Result<bool> {
        while !buf.is_empty() {
            let vector = libc::iovec { iov_base: buf.as_ptr() as *mut libc::c_void, iov_len: buf.len() };
            // SAFETY: the vector describes `buf`, which lives across the call and is only read.
            let written = unsafe {
                libc::pwritev2(self.file.as_raw_fd(), &vector, 1, offset as libc::off_t, libc::RWF_DSYNC)
            };
            match Errno::result(written) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(count) => {
                    buf = &buf[count as usize..];
                    offset += count as u64;
                }
                Err(Errno::EINTR) => {}
                Err(Errno::EOPNOTSUPP | Errno::ENOSYS) => return Ok(false),
                Err(errno) => return Err(errno.into()),
            }
        }
        Ok(true)
    }

    /// True if done, false where it is not supported for this file and range.
    fn fallocate(&self, flags: FallocateFlags, extent: Extent) -> io::Result<bool> {
        let flags = flags | FallocateFlags::FALLOC_FL_KEEP_SIZE;
        loop {
            match fallocate(&self.file, flags, extent.offset as i64, extent.len as i64) {
                Ok(()) => return Ok(true),
                Err(Errno::EINTR) => {}
                // EINVAL: a device does whole sectors only.
                Err(Errno::EOPNOTSUPP | Errno::ENOSYS | Errno::EINVAL) => return Ok(false),
                Err(errno) => return Err(errno.into()),
            }
        }
    }

    /// The whole sectors in `extent`; nothing, at its end, if there are none.
    fn whole_sectors(&self, extent: Extent) -> Extent {
        let sector = u64::from(self.sector_bytes);
        let start = extent.offset.next_multiple_of(sector).min(extent.end());
        let end = (extent.end() / sector * sector).max(start);
        Extent::new(start, end - start)
    }

    fn zero_sectors(&self, extent: Extent, allocate: bool) -> io::Result<()> {
        if extent.is_empty()
            || (!allocate && self.fallocate(FallocateFlags::FALLOC_FL_PUNCH_HOLE, extent)?)
            || self.fallocate(FallocateFlags::FALLOC_FL_ZERO_RANGE, extent)?
        {
            return Ok(());
        }
        self.write_zeros(extent)
    }

    fn write_zeros(&self, extent: Extent) -> io::Result<()> {
        let zeros = PageBuf::zeroed(ZERO_CHUNK_BYTES.min(extent.len as usize));
        let mut offset = extent.offset;
        while offset < extent.end() {
            let len = zeros.len().min((extent.end() - offset) as usize);
            self.file.write_all_at(&zeros[..len], offset)?;
            offset += len as u64;
        }
        Ok(())
    }

    /// The kernel takes direct I/O only from aligned memory; other memory goes by a copy.
    fn needs_copy(&self, buf: &[u8]) -> bool {
        !self.geometry.is_buffered() && !(buf.as_ptr() as usize).is_multiple_of(PAGE_BYTES)
    }
}

impl BlockStore for FileStore {
    fn geometry(&self) -> Geometry {
        self.geometry
    }

    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        if self.needs_copy(buf) {
            let mut aligned = PageBuf::zeroed(buf.len());
            self.file.read_exact_at(&mut aligned, offset)?;
            buf.copy_from_slice(&aligned);
            return Ok(());
        }
        self.file.read_exact_at(buf, offset)
    }

    fn write_at(&self, buf: &[u8], offset: u64, durable: bool) -> io::Result<()> {
        if self.needs_copy(buf) {
            return self.pwrite(&PageBuf::copy_of(buf), offset, durable);
        }
        self.pwrite(buf, offset, durable)
    }

    fn flush(&self) -> io::Result<()> {
        if self.read_only { Ok(()) } else { self.file.sync_data() }
    }

    fn zero(&self, extent: Extent, allocate: bool) -> io::Result<()> {
        let whole = self.whole_sectors(extent);
        self.write_zeros(Extent::new(extent.offset, whole.offset - extent.offset))?;
        self.zero_sectors(whole, allocate)?;
        self.write_zeros(Extent::new(whole.end(), extent.end() - whole.end()))
    }

    fn trim(&self, extent: Extent) -> io::Result<Trimmed> {
        let whole = self.whole_sectors(extent);
        let is_done = whole.is_empty() || self.fallocate(FallocateFlags::FALLOC_FL_PUNCH_HOLE, whole)?;
        Ok(if is_done && whole == extent { Trimmed::ReadsZero } else { Trimmed::Unspecified })
    }

    fn allocation(&self, extent: Extent) -> io::Result<(Allocation, u64)> {
        let offset = extent.offset as i64;
        let until = |end: i64| (end as u64 - extent.offset).min(extent.len);
        // The seek position is nobody's: all I/O here and in the ring names its offset.
        match lseek64(&self.file, offset, Whence::SeekData) {
            Ok(data) if data > offset => return Ok((Allocation::Hole, until(data))),
            Ok(_) => {}
            Err(Errno::ENXIO) => return Ok((Allocation::Hole, extent.len)),
            // Devices do not know their holes.
            Err(_) => return Ok((Allocation::Data, extent.len)),
        }
        match lseek64(&self.file, offset, Whence::SeekHole) {
            Ok(hole) if hole > offset => Ok((Allocation::Data, until(hole))),
            // Changed under our eyes, or not supported: calling it data is always right.
            _ => Ok((Allocation::Data, extent.len)),
        }
    }

    fn prefetch(&self, extent: Extent) {
        let advice = PosixFadviseAdvice::POSIX_FADV_WILLNEED;
        let _ = posix_fadvise(&self.file, extent.offset as i64, extent.len as i64, advice);
    }

    fn forget_cached(&self) {
        // Pages that could not be written count as clean, and go like the rest.
        let _ = posix_fadvise(&self.file, 0, 0, PosixFadviseAdvice::POSIX_FADV_DONTNEED);
    }

    fn ring_fd(&self) -> Option<RawFd> {
        Some(self.file.as_raw_fd())
    }
}

/// Makes the image of a replica target: a sparse file of `size` bytes, durable with its name.
///
/// An empty file is grown. Anything else that is there is a stranger's: `AlreadyExists`. Whether a
/// present image may be reused is decided by the mark in its sidecar, before this is called.
pub fn create_sparse(path: &Path, size: u64) -> io::Result<()> {
    let file = OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(path)?;
    if !file.metadata()?.is_file() || file.metadata()?.len() != 0 {
        let text = format!("{} exists and is not empty; it is left as it is", path.display());
        return Err(io::Error::new(io::ErrorKind::AlreadyExists, text));
    }
    file.set_len(size)?;
    file.sync_all()?;
    sync_directory_of(path)
}

/// Makes a name in a directory as durable as the file behind it.
pub(crate) fn sync_directory_of(path: &Path) -> io::Result<()> {
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    File::open(parent.unwrap_or(Path::new(".")))?.sync_all()
}

fn open_file(path: &Path, options: Options, is_device: bool) -> Result<File, OpenError> {
    let mut how = OpenOptions::new();
    how.read(true).write(!options.read_only);
    let direct = if options.cache == Cache::Direct { libc::O_DIRECT } else { 0 };
    // Of a file it would mean something else.
    let exclusive = if is_device { libc::O_EXCL } else { 0 };
    how.custom_flags(direct | exclusive);
    how.open(path).map_err(|source| {
        if options.cache == Cache::Direct && source.raw_os_error() == Some(libc::EINVAL) {
            return OpenError::DirectRefused { path: path.into(), source };
        }
        match source.kind() {
            // Who it is, is looked up once waiting is over.
            io::ErrorKind::ResourceBusy => OpenError::Busy { path: path.into(), by: Holders::default() },
            _ => OpenError::Open { path: path.into(), source },
        }
    })
}

/// A device's logical block in bytes: what direct I/O, discards and zeroings are a multiple of.
fn logical_block_bytes(device: &File) -> u32 {
    let mut bytes: libc::c_int = 0;
    // SAFETY: BLKSSZGET writes one int to the address.
    let result = unsafe { libc::ioctl(device.as_raw_fd(), libc::BLKSSZGET as _, &mut bytes) };
    if result == 0 && bytes > 0 { bytes as u32 } else { PAGE_BYTES as u32 }
}

/// What direct I/O on a file asks of offsets and lengths, in bytes: what its file system says, and a page, which every
/// file system takes, where it says nothing.
fn direct_alignment(file: &File) -> u32 {
    const STATX_DIOALIGN: u32 = 0x2000;
    // SAFETY: statx is plain numbers, for which all zeros is a value.
    let mut answer: libc::statx = unsafe { std::mem::zeroed() };
    // SAFETY: the path is an empty C string, the answer a statx, and both live across the call.
    let result = unsafe {
        let fd = file.as_raw_fd();
        libc::statx(fd, c"".as_ptr(), libc::AT_EMPTY_PATH, STATX_DIOALIGN, &mut answer)
    };
    let known = result == 0 && answer.stx_mask & STATX_DIOALIGN != 0 && answer.stx_dio_offset_align > 0;
    if known { answer.stx_dio_offset_align } else { PAGE_BYTES as u32 }
}

#[cfg(test)]
mod tests;
