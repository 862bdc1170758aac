//! Page-aligned buffers, and the pool that lends them.
//!
//! A buffer carries the data of one request from socket to disk or back; after a recorded write it
//! moves, uncopied, into the delta queue. Alignment makes it fit for O_DIRECT. The pool is a
//! last-in-first-out list per size class, so that a busy disk keeps using memory that is warm in
//! the cache; it holds at most [`POOL_BYTES_MAX`] and gives the rest back to the allocator.
//!
//! Memory is counted where it matters: a buffer may be charged to an [`Account`], which it credits
//! back when it is dropped, wherever that happens.

use std::alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error};
use std::ops::{Deref, DerefMut};
use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Alignment, and granularity of capacity, of every buffer in bytes.
pub const PAGE_BYTES: usize = 4096;
/// The most memory that one pool keeps for reuse, in bytes.
pub const POOL_BYTES_MAX: usize = 16 << 20;

/// Bytes held by the buffers that are charged to it.
#[derive(Clone, Debug, Default)]
pub struct Account(Arc<AtomicU64>);

impl Account {
    /// Bytes charged and not yet credited.
    pub fn bytes(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// An owned, zero-initialised, page-aligned run of bytes.
#[derive(Debug)]
pub struct PageBuf {
    start: NonNull<u8>,
    len: usize,
    capacity: usize,
    account: Option<Account>,
}

// SAFETY: a PageBuf owns its memory alone, like a Box<[u8]>.
unsafe impl Send for PageBuf {}
// SAFETY: shared access only ever reads, like a Box<[u8]>.
unsafe impl Sync for PageBuf {}

impl PageBuf {
    /// A buffer of `len` zero bytes, its capacity rounded up to whole pages (at least one).
    pub fn zeroed(len: usize) -> Self {
        let capacity = len.max(1).next_multiple_of(PAGE_BYTES);
        let layout = Self::layout(capacity);
        // SAFETY: the layout has a non-zero size.
        let start = unsafe { alloc_zeroed(layout) };
        let start = NonNull::new(start).unwrap_or_else(|| handle_alloc_error(layout));
        Self { start, len, capacity, account: None }
    }

    /// A buffer that holds a copy of `bytes`.
    pub fn copy_of(bytes: &[u8]) -> Self {
        let mut buf = Self::zeroed(bytes.len());
        buf.copy_from_slice(bytes);
        buf
    }

    /// Memory behind the buffer, in bytes.
    pub fn capacity(&self) -> usize {
        self.capacity
    }

    /// Changes the length within the capacity; bytes that become visible are whatever was there.
    ///
    /// # Panics
    /// If `len` is past the capacity.
    pub fn set_len(&mut self, len: usize) {
        assert!(len <= self.capacity, "length {len} past capacity {}", self.capacity);
        self.len = len;
    }

    /// Charges the buffer's memory to `account` until it is dropped.
    pub fn charge_to(&mut self, account: &Account) {
        self.credit();
        account.0.fetch_add(self.capacity as u64, Ordering::Relaxed);
        self.account = Some(account.clone());
    }

    fn credit(&mut self) {
        if let Some(account) = self.account.take() {
            account.0.fetch_sub(self.capacity as u64, Ordering::Relaxed);
        }
    }

    fn layout(capacity: usize) -> Layout {
        Layout::from_size_align(capacity, PAGE_BYTES).expect("buffer sizes are bounded far below isize::MAX")
    }
}

impl Deref for PageBuf {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        // SAFETY: start points to `capacity` initialised bytes and len <= capacity.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr(), self.len) }
    }
}

impl DerefMut for PageBuf {
    fn deref_mut(&mut self) -> &mut [u8] {
        // SAFETY: as in deref, and the borrow is exclusive.
        unsafe { std::slice::from_raw_parts_mut(self.start.as_ptr(), self.len) }
    }
}

impl Drop for PageBuf {
    fn drop(&mut self) {
        self.credit();
        // SAFETY: start came from alloc_zeroed with this very layout.
        unsafe { dealloc(self.start.as_ptr(), Self::layout(self.capacity)) }
    }
}

/// Keeps dropped buffers for reuse, newest first, in classes of a power of two of pages.
#[derive(Debug, Default)]
pub struct BufferPool {
    classes: Vec<Vec<PageBuf>>,
    bytes: usize,
}

impl BufferPool {
    /// An empty pool.
    pub fn new() -> Self {
        Self::default()
    }

    /// A buffer of `len` bytes whose content is arbitrary: the caller overwrites all of it.
    pub fn take(&mut self, len: usize) -> PageBuf {
        let class = Self::class(len);
        match self.classes.get_mut(class).and_then(Vec::pop) {
            Some(mut buf) => {
                self.bytes -= buf.capacity;
                buf.set_len(len);
                buf
            }
            None => {
                let mut buf = PageBuf::zeroed(PAGE_BYTES << class);
                buf.set_len(len);
                buf
            }
        }
    }

    /// Takes a buffer back; past the pool's bound it is freed.
    pub fn give(&mut self, mut buf: PageBuf) {
        buf.credit();
        let class = Self::class(buf.capacity);
        if self.bytes + buf.capacity > POOL_BYTES_MAX || PAGE_BYTES << class != buf.capacity {
            return;
        }
        if self.classes.len() <= class {
            self.classes.resize_with(class + 1, Vec::new);
        }
        self.bytes += buf.capacity;
        self.classes[class].push(buf);
    }

    fn class(len: usize) -> usize {
        len.max(1).div_ceil(PAGE_BYTES).next_power_of_two().trailing_zeros() as usize
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pool_lends_the_buffer_that_came_back_last() {
        let mut pool = BufferPool::new();
        let mut first = pool.take(5000);
        first[0] = 7;
        let address = first.as_ptr();
        pool.give(first);
        let again = pool.take(8192);
        assert_eq!(again.as_ptr(), address);
        assert_eq!(again.as_ptr() as usize % PAGE_BYTES, 0);
        assert_eq!(again.len(), 8192);
    }

    #[test]
    fn a_pool_is_bounded() {
        let mut pool = BufferPool::new();
        let bufs: Vec<_> = (0..40).map(|_| pool.take(1 << 20)).collect();
        bufs.into_iter().for_each(|buf| pool.give(buf));
        assert!(pool.bytes <= POOL_BYTES_MAX);
    }

    #[test]
    #[allow(clippy::disallowed_methods, reason = "another thread is what the test is about")]
    fn an_account_is_credited_wherever_the_buffer_is_dropped() {
        let account = Account::default();
        let mut buf = PageBuf::copy_of(&[1; 5000]);
        buf.charge_to(&account);
        assert_eq!(account.bytes(), 8192);
        std::thread::spawn(move || drop(buf)).join().unwrap();
        assert_eq!(account.bytes(), 0);
    }
}
