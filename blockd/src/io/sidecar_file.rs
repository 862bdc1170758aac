//! The sidecar as a file: a header that is durable when an update returns, and a mapped bitmap
//! that outlives the process (D10, D11).
//!
//! The bitmap is a shared mapping: a bit that is set stays set when the process is killed, without
//! a system call for each write. It does not survive the host; that is what the boot id is for.
//!
//! A new file is sparse. Before bits are set in earnest, call [`SidecarFile::reserve`]: on a full
//! file system the first touch of an unreserved page would kill the process.
//!
//! Refuses files that it does not understand, and never replaces one. Locks what it opens: no two processes use one
//! sidecar, whatever images they have.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::ptr::NonNull;
use std::time::Duration;

use nix::errno::Errno;
use nix::fcntl::{FallocateFlags, fallocate};
use nix::sys::mman::{MapFlags, ProtFlags, mmap, munmap};
use thiserror::Error;

use crate::extent::block_count;
use crate::sidecar::{
    BITMAP_OFFSET, HEADER_BYTES, Header, InvalidName, Unreadable, WordBits, newest, word_count,
};

mod publish;

/// How long to wait for the lock: a process that was killed has its files a little longer than its name.
const LOCK_TIMEOUT: Duration = Duration::from_secs(2);
/// Bytes that are written at once where the file system takes no space by itself.
const WRITE_BYTES: u64 = 64 << 10;

/// The bitmap of a sidecar file: an [`IntentMap`](crate::sidecar::IntentMap).
pub type SidecarBits = WordBits<MappedWords>;

/// Why a sidecar could not be used.
#[derive(Debug, Error)]
pub enum SidecarError {
    /// The system said no.
    #[error("cannot use the sidecar {path}")]
    Io {
        /// Which sidecar.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Not a sidecar, or damaged.
    #[error(
        "the sidecar {path} cannot be understood: {reason}. It may say that this disk moved elsewhere, so it is \
         not replaced; remove it only if you know that this image is the guest's current disk"
    )]
    Unreadable {
        /// Which sidecar.
        path: PathBuf,
        /// What is wrong.
        reason: Unreadable,
    },
    /// Another process uses it.
    #[error(
        "another blockd uses the sidecar {path}; stop it first, or, if it serves another disk, give each a sidecar of \
         its own (--sidecar)"
    )]
    InUse {
        /// Which sidecar.
        path: PathBuf,
    },
    /// A name that does not fit.
    #[error(transparent)]
    Name(#[from] InvalidName),
}

/// An open sidecar: its header. The bitmap is handed out apart, for another thread.
#[derive(Debug)]
pub struct SidecarFile {
    file: File,
    path: PathBuf,
    header: Header,
    slot: usize,
    sequence: u64,
}

impl SidecarFile {
    /// Opens the sidecar if there is one, for this process alone.
    pub fn open(path: &Path) -> Result<Option<Self>, SidecarError> {
        Self::open_within(path, LOCK_TIMEOUT)
    }

    fn open_within(path: &Path, timeout: Duration) -> Result<Option<Self>, SidecarError> {
        let failed = |source| SidecarError::Io { path: path.into(), source };
        let Some(file) = open_file(path, true)? else { return Ok(None) };
        if !publish::lock(&file, timeout).map_err(failed)? {
            return Err(SidecarError::InUse { path: path.into() });
        }
        let (slot, sequence, header) = read(path, &file)?;
        // A file cut short would kill the process at the first touch of the bitmap.
        if file.metadata().map_err(failed)?.len() < file_bytes(header.size) {
            file.set_len(file_bytes(header.size)).map_err(failed)?;
        }
        Ok(Some(Self { file, path: path.into(), header, slot, sequence }))
    }

    /// Reads the header, if there is a sidecar, without a right to write to it.
    pub fn peek(path: &Path) -> Result<Option<Header>, SidecarError> {
        let Some(file) = open_file(path, false)? else { return Ok(None) };
        read(path, &file).map(|(_, _, header)| Some(header))
    }

    /// Makes a new sidecar, whole or not at all. One that exists is an error.
    pub fn create(path: &Path, header: Header) -> Result<Self, SidecarError> {
        header.check()?;
        let made = publish::make(path, |file| {
            file.write_all_at(&header.encode(1), 0)?;
            file.write_all_at(&header.encode(0), HEADER_BYTES as u64)?;
            file.set_len(file_bytes(header.size))
        });
        made.map_err(|source| SidecarError::Io { path: path.into(), source })?;
        let opened = Self::open(path)?;
        let lost = || io::Error::new(io::ErrorKind::NotFound, "it was removed while it was made");
        opened.ok_or_else(|| SidecarError::Io { path: path.into(), source: lost() })
    }

    /// Opens the sidecar, or makes it with the header that `make` gives.
    pub fn open_or_create(
        path: &Path,
        make: impl FnOnce() -> Result<Header, InvalidName>,
    ) -> Result<Self, SidecarError> {
        match Self::open(path)? {
            Some(sidecar) => Ok(sidecar),
            None => Self::create(path, make()?),
        }
    }

    /// Moves the sidecar to where nothing is yet.
    pub fn move_to(&mut self, path: &Path) -> Result<(), SidecarError> {
        let failed = |source| SidecarError::Io { path: path.into(), source };
        publish::move_to(&self.path, path).map_err(failed)?;
        // On another file system it is another file.
        *self = Self::moved(path, self)?;
        Ok(())
    }

    fn moved(path: &Path, before: &Self) -> Result<Self, SidecarError> {
        let failed = |source| SidecarError::Io { path: path.into(), source };
        let Some(file) = open_file(path, true)? else { return Err(failed(io::ErrorKind::NotFound.into())) };
        let is_same = publish::is_same(&before.file, &file.metadata().map_err(failed)?);
        let file = if is_same { before.file.try_clone().map_err(failed)? } else { file };
        if !publish::lock(&file, LOCK_TIMEOUT).map_err(failed)? {
            return Err(SidecarError::InUse { path: path.into() });
        }
        let Self { header, slot, sequence, .. } = before;
        Ok(Self { file, path: path.into(), header: header.clone(), slot: *slot, sequence: *sequence })
    }

    /// What the disk remembers now.
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// The sidecar's path.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Changes the header; durable when this returns Ok. On an error the old header holds, in
    /// memory; which of the two a restart finds is open.
    pub fn update(&mut self, change: impl FnOnce(&mut Header)) -> io::Result<()> {
        let mut header = self.header.clone();
        change(&mut header);
        header.check().map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, error))?;
        assert_eq!(header.size, self.header.size, "the bitmap is made for one size");
        if header == self.header {
            return Ok(());
        }
        let (slot, sequence) = (1 - self.slot, self.sequence + 1);
        self.file.write_all_at(&header.encode(sequence), (slot * HEADER_BYTES) as u64)?;
        self.file.sync_data()?;
        // The same in the other slot: one that is damaged later brings back nothing that was, like a disk before its fence.
        // It need not be durable now, for nobody overwrites the first before the second is.
        if let Err(error) =
            self.file.write_all_at(&header.encode(sequence), (self.slot * HEADER_BYTES) as u64)
        {
            tracing::warn!(sidecar = %self.path.display(), %error, "the header is written once only");
        }
        (self.header, self.slot, self.sequence) = (header, slot, sequence);
        Ok(())
    }

    /// Takes the space of the whole bitmap, so that setting bits cannot fail later.
    pub fn reserve(&self) -> io::Result<()> {
        let len = (file_bytes(self.header.size) - BITMAP_OFFSET) as i64;
        match fallocate(&self.file, FallocateFlags::empty(), BITMAP_OFFSET as i64, len) {
            // ext2 and ext3, exFAT, memory, NFS before 4.2.
            Err(Errno::EOPNOTSUPP | Errno::ENOSYS) => self.write_over(),
            other => Ok(other?),
        }
    }

    /// Has the file system take the space by writing what is there already.
    fn write_over(&self) -> io::Result<()> {
        let (mut at, end) = (BITMAP_OFFSET, file_bytes(self.header.size));
        let mut bytes = vec![0; WRITE_BYTES as usize];
        while at < end {
            let bytes = &mut bytes[..WRITE_BYTES.min(end - at) as usize];
            self.file.read_exact_at(bytes, at)?;
            self.file.write_all_at(bytes, at)?;
            at += bytes.len() as u64;
        }
        // Some know only now whether there was space.
        self.file.sync_data()
    }

    /// Maps the bitmap. Call it once: two maps of one file would not know of each other.
    pub fn bits(&self) -> io::Result<SidecarBits> {
        let blocks = block_count(self.header.size);
        Ok(WordBits::new(MappedWords::map(&self.file, word_count(blocks))?, blocks))
    }
}

/// Words of a file, mapped and shared with it.
#[derive(Debug)]
pub struct MappedWords {
    start: NonNull<u64>,
    words: usize,
}

// SAFETY: the mapping belongs to this value alone, like a Box<[u64]>.
unsafe impl Send for MappedWords {}
// SAFETY: shared access only ever reads, like a Box<[u64]>.
unsafe impl Sync for MappedWords {}

impl MappedWords {
    fn map(file: &impl AsFd, words: usize) -> io::Result<Self> {
        // A disk of no blocks maps one word, so that there is something to map.
        let words = words.max(1);
        let bytes = (words * 8).try_into().expect("not zero");
        let (protection, flags) = (ProtFlags::PROT_READ | ProtFlags::PROT_WRITE, MapFlags::MAP_SHARED);
        // SAFETY: a new mapping at an address that the kernel chooses; the file is at least this
        // long (see `open`), and its lock keeps other processes from changing it.
        let start = unsafe { mmap(None, bytes, protection, flags, file, BITMAP_OFFSET as i64)? };
        Ok(Self { start: start.cast(), words })
    }
}

impl AsRef<[u64]> for MappedWords {
    fn as_ref(&self) -> &[u64] {
        // SAFETY: the mapping is page-aligned, `words` long, and any bytes are a u64.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr(), self.words) }
    }
}

impl AsMut<[u64]> for MappedWords {
    fn as_mut(&mut self) -> &mut [u64] {
        // SAFETY: as in as_ref, and the borrow is exclusive.
        unsafe { std::slice::from_raw_parts_mut(self.start.as_ptr(), self.words) }
    }
}

impl Drop for MappedWords {
    fn drop(&mut self) {
        // SAFETY: start and length are those of the mapping, which nothing borrows any more.
        let _ = unsafe { munmap(self.start.cast(), self.words * 8) };
    }
}

/// Names this boot of this host.
pub fn boot_id() -> io::Result<[u8; 16]> {
    let text = std::fs::read_to_string("/proc/sys/kernel/random/boot_id")?;
    let digits = text.trim().replace('-', "");
    let number = u128::from_str_radix(&digits, 16);
    number.map(u128::to_be_bytes).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
}

/// Bytes of the file for a disk of `size` bytes.
fn file_bytes(size: u64) -> u64 {
    let bitmap = word_count(block_count(size)).max(1) as u64 * 8;
    BITMAP_OFFSET + bitmap.next_multiple_of(4096)
}

/// A slot's number and what is in it: sequence number and header.
type Newest = (usize, u64, Header);

fn open_file(path: &Path, for_update: bool) -> Result<Option<File>, SidecarError> {
    match OpenOptions::new().read(true).write(for_update).open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        other => other.map(Some).map_err(|source| SidecarError::Io { path: path.into(), source }),
    }
}

fn read(path: &Path, file: &File) -> Result<Newest, SidecarError> {
    let failed = |source| SidecarError::Io { path: path.into(), source };
    let unreadable = |reason| SidecarError::Unreadable { path: path.into(), reason };
    let mut slots = vec![0; BITMAP_OFFSET as usize];
    match file.read_exact_at(&mut slots, 0) {
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
            let len = file.metadata().map_err(failed)?.len() as usize;
            return Err(unreadable(Unreadable::Length(len)));
        }
        other => other.map_err(failed)?,
    }
    let (a, b) = slots.split_at(HEADER_BYTES);
    newest([a, b]).map_err(unreadable)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;

    use super::*;
    use crate::io::scratch::Scratch;
    use crate::sidecar::Role;

    fn header(size: u64) -> Header {
        Header::new("disk", size, Role::Primary, [1; 16]).unwrap()
    }

    #[test]
    fn what_was_updated_is_found_again() {
        let scratch = Scratch::new();
        let path = scratch.path("image.blockd");
        let mut sidecar = SidecarFile::open_or_create(&path, || Ok(header(1 << 30))).unwrap();
        for generation in 1..6 {
            sidecar.update(|header| header.generation = generation).unwrap();
            assert_eq!(SidecarFile::peek(&path).unwrap().unwrap().generation, generation);
        }
    }

    #[test]
    fn a_torn_update_leaves_the_header_before_it() {
        let scratch = Scratch::new();
        let path = scratch.path("image.blockd");
        let mut sidecar = SidecarFile::create(&path, header(1 << 20)).unwrap();
        sidecar.update(|header| header.generation = 1).unwrap();
        sidecar.update(|header| header.generation = 2).unwrap();
        let next = Header { generation: 3, ..sidecar.header.clone() }.encode(sidecar.sequence + 1);
        sidecar.file.write_all_at(&next[..30], ((1 - sidecar.slot) * HEADER_BYTES) as u64).unwrap();
        assert_eq!(SidecarFile::peek(&path).unwrap().unwrap().generation, 2);
    }

    #[test]
    fn a_slot_that_is_damaged_later_does_not_bring_back_what_was_before_a_fence() {
        for slot in 0..2 {
            let scratch = Scratch::new();
            let path = scratch.path("image.blockd");
            let mut sidecar = SidecarFile::create(&path, header(1 << 20)).unwrap();
            for generation in 1..4 {
                sidecar.update(|header| header.generation = generation).unwrap();
                sidecar.file.write_all_at(&[0xff], (slot * HEADER_BYTES + 50) as u64).unwrap();
                assert_eq!(SidecarFile::peek(&path).unwrap().unwrap().generation, generation);
            }
        }
    }

    #[test]
    fn bits_are_found_again_and_a_new_disk_has_none() {
        let scratch = Scratch::new();
        let path = scratch.path("image.blockd");
        let sidecar = SidecarFile::create(&path, header((1 << 30) + 1)).unwrap();
        sidecar.reserve().unwrap();
        let mut bits = sidecar.bits().unwrap();
        assert_eq!(bits.count(), 0);
        bits.set(100..5000);
        bits.set((1 << 18)..(1 << 18) + 1);
        drop((bits, sidecar));
        let again = SidecarFile::open(&path).unwrap().unwrap().bits().unwrap();
        assert_eq!(again.runs(0).collect::<Vec<_>>(), [100..5000, (1 << 18)..(1 << 18) + 1]);
    }

    #[test]
    fn the_sidecar_of_a_large_disk_takes_no_space_until_it_is_needed() {
        let scratch = Scratch::new();
        let path = scratch.path("image.blockd");
        let sidecar = SidecarFile::create(&path, header(1 << 40)).unwrap();
        let made = std::fs::metadata(&path).unwrap();
        assert_eq!(made.len(), BITMAP_OFFSET + (32 << 20));
        assert!(made.blocks() * 512 <= 64 << 10, "{} blocks", made.blocks());
        let mut bits = sidecar.bits().unwrap();
        bits.set_all();
        assert_eq!(bits.count(), 1 << 28);
        bits.clear_all();
        assert_eq!(bits.next_run(0), None);
    }

    #[test]
    fn a_file_that_is_no_sidecar_is_refused_and_left_alone() {
        let scratch = Scratch::new();
        let path = scratch.path("image.blockd");
        for content in [vec![], b"notes".to_vec(), vec![7; 10_000]] {
            std::fs::write(&path, &content).unwrap();
            let refused = SidecarFile::open_or_create(&path, || Ok(header(4096))).unwrap_err();
            assert!(matches!(refused, SidecarError::Unreadable { .. }), "{refused}");
            assert!(SidecarFile::create(&path, header(4096)).is_err());
            assert_eq!(std::fs::read(&path).unwrap(), content);
        }
    }

    #[test]
    fn a_change_that_cannot_be_kept_changes_nothing() {
        let scratch = Scratch::new();
        let mut sidecar = SidecarFile::create(&scratch.path("s"), header(4096)).unwrap();
        assert!(sidecar.update(|header| header.moved_to = "x".repeat(300)).is_err());
        assert_eq!(sidecar.header(), &header(4096));
    }

    #[test]
    fn a_sidecar_is_for_one_process_and_any_may_read_it() {
        let scratch = Scratch::new();
        let path = scratch.path("image.blockd");
        let first = SidecarFile::create(&path, header(4096)).unwrap();
        let second = SidecarFile::open_within(&path, Duration::ZERO);
        assert!(matches!(second, Err(SidecarError::InUse { .. })));
        assert_eq!(SidecarFile::peek(&path).unwrap(), Some(header(4096)));
        let bits = first.bits().unwrap();
        drop(first);
        assert!(SidecarFile::open_within(&path, Duration::ZERO).is_err(), "its bits are still in use");
        drop(bits);
        assert!(SidecarFile::open_within(&path, Duration::ZERO).unwrap().is_some());
    }

    #[test]
    fn a_sidecar_that_is_moved_stays_the_same_and_locked_and_replaces_nothing() {
        let scratch = Scratch::new();
        let [old, new, taken] = ["old", "new", "taken"].map(|name| scratch.path(name));
        let mut sidecar = SidecarFile::create(&old, header(1 << 20)).unwrap();
        std::fs::write(&taken, "precious").unwrap();
        assert!(sidecar.move_to(&taken).is_err());
        assert_eq!((std::fs::read(&taken).unwrap(), sidecar.path()), (b"precious".to_vec(), &*old));
        sidecar.update(|header| header.generation = 7).unwrap();
        sidecar.move_to(&new).unwrap();
        assert!(!old.exists() && SidecarFile::open_within(&new, Duration::ZERO).is_err());
        sidecar.update(|header| header.generation = 8).unwrap();
        assert_eq!(SidecarFile::peek(&new).unwrap().unwrap().generation, 8);
    }

    #[test]
    fn space_that_is_taken_by_writing_changes_nothing_and_is_taken() {
        let scratch = Scratch::new();
        let path = scratch.path("s");
        let sidecar = SidecarFile::create(&path, header(16 << 30)).unwrap();
        let mut bits = sidecar.bits().unwrap();
        bits.set(5..9);
        sidecar.write_over().unwrap();
        assert_eq!((bits.runs(0).next(), bits.count()), (Some(5..9), 4));
        let made = std::fs::metadata(&path).unwrap();
        assert!(made.blocks() * 512 >= made.len(), "{} of {} bytes", made.blocks() * 512, made.len());
    }

    #[test]
    fn a_boot_has_one_id() {
        let said = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap();
        let read: String = boot_id().unwrap().iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(read, said.trim().replace('-', ""));
    }
}
