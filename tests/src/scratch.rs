//! A directory of its own for every test, gone when the test ends, also by a panic.
//!
//! The names are short: the path of a UNIX socket has to fit into 107 bytes.

use std::fs::{self, File};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::process;
use std::sync::atomic::{AtomicU32, Ordering};

static COUNT: AtomicU32 = AtomicU32::new(0);

/// A directory that lives as long as this value.
#[derive(Debug)]
pub struct Scratch {
    path: PathBuf,
}

impl Scratch {
    /// Make an empty directory below the system's directory for temporary files.
    pub fn new() -> Self {
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let path = PathBuf::from(format!("{}{number}", prefix().display()));
        fs::create_dir_all(&path).unwrap_or_else(|error| panic!("create {}: {error}", path.display()));
        Self { path }
    }

    /// The directory itself.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The path of `name` inside the directory.
    pub fn join(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// Make a sparse file of `size_bytes`, all of it a hole.
    pub fn sparse(&self, name: &str, size_bytes: u64) -> PathBuf {
        let path = self.join(name);
        let file = File::create(&path).unwrap_or_else(|error| panic!("create {}: {error}", path.display()));
        file.set_len(size_bytes).expect("set the size of a sparse file");
        path
    }

    /// Make a file of `size_bytes` filled with a pattern that depends on `seed` and has no zero block.
    pub fn patterned(&self, name: &str, size_bytes: u64, seed: u64) -> PathBuf {
        let path = self.sparse(name, size_bytes);
        fill(&path, 0, size_bytes, seed);
        path
    }
}

/// What the paths of all directories of this program begin with.
pub fn prefix() -> PathBuf {
    std::env::temp_dir().join(format!("bd-{}-", process::id()))
}

impl Default for Scratch {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // A mount that is still busy keeps its directory; its own fixture has complained about that.
        let _ = fs::remove_dir_all(&self.path);
    }
}

/// Write a pseudo-random pattern over `len_bytes` at `offset`.
pub fn fill(path: &Path, offset: u64, len_bytes: u64, seed: u64) {
    let file = File::options().write(true).open(path).expect("open a file to fill");
    let mut noise = Noise::new(seed);
    // In small pieces: the page cache keeps what comes at once in large pieces, and then the first image of several
    // takes small writes more slowly than the others.
    let mut block = vec![0u8; 4 << 10];
    let mut at = offset;
    while at < offset + len_bytes {
        let len = block.len().min((offset + len_bytes - at) as usize);
        noise.fill(&mut block[..len]);
        file.write_all_at(&block[..len], at).expect("fill a file");
        at += len as u64;
    }
}

/// Bytes that the file occupies on its file system, holes not counted.
pub fn allocated_bytes(path: &Path) -> u64 {
    fs::metadata(path).expect("look at a file").blocks() * 512
}

/// The first offset at which two files differ, or `None` if they are identical, length included.
pub fn first_difference(left: &Path, right: &Path) -> Option<u64> {
    let (left, right) = (File::open(left).expect("open left"), File::open(right).expect("open right"));
    let (left_len, right_len) = (left.metadata().unwrap().len(), right.metadata().unwrap().len());
    let shared = left_len.min(right_len);
    let (mut a, mut b) = (vec![0u8; 1 << 20], vec![0u8; 1 << 20]);
    let mut at = 0;
    while at < shared {
        let len = a.len().min((shared - at) as usize);
        left.read_exact_at(&mut a[..len], at).expect("read left");
        right.read_exact_at(&mut b[..len], at).expect("read right");
        if let Some(index) = a[..len].iter().zip(&b[..len]).position(|(x, y)| x != y) {
            return Some(at + index as u64);
        }
        at += len as u64;
    }
    (left_len != right_len).then_some(shared)
}

/// A small fast generator of incompressible bytes (xorshift64*), the same on every run with the same seed.
#[derive(Debug, Clone)]
pub struct Noise {
    state: u64,
}

impl Noise {
    /// A generator that depends on nothing but `seed`.
    pub fn new(seed: u64) -> Self {
        Self { state: seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1 }
    }

    /// The next number.
    pub fn number(&mut self) -> u64 {
        self.state ^= self.state >> 12;
        self.state ^= self.state << 25;
        self.state ^= self.state >> 27;
        self.state.wrapping_mul(0x2545_F491_4F6C_DD1D)
    }

    /// A number below `bound`, which is not 0.
    pub fn below(&mut self, bound: u64) -> u64 {
        self.number() % bound
    }

    /// Overwrite `bytes`.
    pub fn fill(&mut self, bytes: &mut [u8]) {
        for chunk in bytes.chunks_mut(8) {
            let number = self.number().to_le_bytes();
            chunk.copy_from_slice(&number[..chunk.len()]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Scratch, allocated_bytes, fill, first_difference};

    #[test]
    fn a_scratch_directory_is_gone_after_a_panic() {
        let mut seen = None;
        let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            let scratch = Scratch::new();
            scratch.sparse("image", 4096);
            seen = Some(scratch.path().to_owned());
            assert!(!scratch.path().exists(), "on purpose");
        }));
        assert!(result.is_err());
        assert!(!seen.expect("the directory was made").exists());
    }

    #[test]
    fn a_difference_is_found_at_its_offset_and_a_hole_occupies_nothing() {
        let scratch = Scratch::new();
        let (left, right) = (scratch.sparse("left", 3 << 20), scratch.sparse("right", 3 << 20));
        assert_eq!((first_difference(&left, &right), allocated_bytes(&left)), (None, 0));
        fill(&right, 2_500_000, 1, 7);
        assert_eq!(first_difference(&left, &right), Some(2_500_000));
    }
}
