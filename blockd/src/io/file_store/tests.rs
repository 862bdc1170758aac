//! Raw files as they are: sparse, buffered and direct.

use std::os::unix::fs::MetadataExt;

use super::*;
use crate::io::scratch::Scratch;

fn open(path: &Path, cache: Cache) -> FileStore {
    FileStore::open(path, Options { read_only: false, cache }).unwrap()
}

fn image(scratch: &Scratch, size: u64) -> PathBuf {
    let path = scratch.path("image");
    create_sparse(&path, size).unwrap();
    path
}

#[test]
fn what_was_written_is_read_back_in_both_cache_modes() {
    for cache in [Cache::Buffered, Cache::Direct] {
        let scratch = Scratch::new();
        let path = image(&scratch, 1 << 20);
        let store = match FileStore::open(&path, Options { read_only: false, cache }) {
            Err(OpenError::DirectRefused { .. }) => continue,
            other => other.unwrap(),
        };
        // Deliberately not page-aligned memory.
        let bytes = vec![0x5a; 8193];
        store.write_at(&bytes[1..], 4096, false).unwrap();
        store.write_at(&bytes[1..4097], 65536, true).unwrap();
        let mut back = vec![0; 16385];
        store.read_at(&mut back[1..], 0).unwrap();
        assert!(back[1..4097].iter().all(|byte| *byte == 0));
        assert!(back[4097..12289].iter().all(|byte| *byte == 0x5a));
        assert!(back[12289..].iter().all(|byte| *byte == 0));
        store.flush().unwrap();
    }
}

#[test]
fn zeroing_and_trimming_free_space_and_read_as_zeros() {
    let scratch = Scratch::new();
    let path = image(&scratch, 4 << 20);
    let store = open(&path, Cache::Buffered);
    store.write_at(&vec![1; 4 << 20], 0, true).unwrap();
    let full = std::fs::metadata(&path).unwrap().blocks();
    store.zero(Extent::new(0, 1 << 20), false).unwrap();
    assert_eq!(store.trim(Extent::new(2 << 20, 1 << 20)).unwrap(), Trimmed::ReadsZero);
    store.zero(Extent::new((1 << 20) + 5, 1000), true).unwrap();
    assert!(std::fs::metadata(&path).unwrap().blocks() <= full - 4096);
    let mut back = vec![9; 4 << 20];
    store.read_at(&mut back, 0).unwrap();
    let zeros = back.iter().filter(|byte| **byte == 0).count();
    assert_eq!(zeros, (2 << 20) + 1000);
    assert_eq!(std::fs::metadata(&path).unwrap().len(), 4 << 20);
}

#[test]
fn zeros_are_written_in_chunks_where_the_kernel_has_no_better_way() {
    let scratch = Scratch::new();
    let path = image(&scratch, 4 << 20);
    let store = open(&path, Cache::Buffered);
    store.write_at(&vec![1; 4 << 20], 0, false).unwrap();
    store.write_zeros(Extent::new(100, (3 << 20) + 1)).unwrap();
    let mut back = vec![9; 4 << 20];
    store.read_at(&mut back, 0).unwrap();
    assert!(back[..100].iter().all(|byte| *byte == 1));
    assert!(back[100..101 + (3 << 20)].iter().all(|byte| *byte == 0));
    assert!(back[101 + (3 << 20)..].iter().all(|byte| *byte == 1));
}

#[test]
fn zeroing_and_trimming_of_odd_ranges_reach_their_ends_also_where_only_whole_sectors_are_done() {
    let scratch = Scratch::new();
    for sector_bytes in [1, 512, 4096] {
        for (offset, len) in [(0, 0), (0, 4096), (512, 512), (1, 4095), (4095, 2), (5, 20_000), (4096, 8193)]
        {
            let path = scratch.path(format!("{sector_bytes}-{offset}-{len}"));
            std::fs::write(&path, [7; 40_000]).unwrap();
            let store = FileStore { sector_bytes, ..open(&path, Cache::Buffered) };
            let extent = Extent::new(offset, len);
            let mut found = vec![0; 40_000];
            let trimmed = store.trim(extent).unwrap();
            store.read_at(&mut found, 0).unwrap();
            let whole = store.whole_sectors(extent);
            assert!(whole.offset >= offset && whole.end() <= offset + len);
            let zeros = |found: &[u8]| found.iter().filter(|byte| **byte == 0).count() as u64;
            assert_eq!(zeros(&found), whole.len);
            assert_eq!(trimmed == Trimmed::ReadsZero, whole == extent);
            store.zero(extent, false).unwrap();
            store.read_at(&mut found, 0).unwrap();
            assert_eq!(zeros(&found), len);
            assert!(found[offset as usize..(offset + len) as usize].iter().all(|byte| *byte == 0));
        }
    }
}

#[test]
fn holes_and_data_are_told_apart() {
    let scratch = Scratch::new();
    let path = image(&scratch, 4 << 20);
    let store = open(&path, Cache::Buffered);
    store.write_at(&[1; 65536], 1 << 20, true).unwrap();
    let all = Extent::new(0, 4 << 20);
    assert_eq!(store.allocation(all).unwrap(), (Allocation::Hole, 1 << 20));
    let data = store.allocation(Extent::new(1 << 20, 3 << 20)).unwrap();
    assert_eq!(data, (Allocation::Data, 65536));
    let short = store.allocation(Extent::new(1 << 20, 512)).unwrap();
    assert_eq!(short, (Allocation::Data, 512));
    let tail = Extent::new(2 << 20, 2 << 20);
    assert_eq!(store.allocation(tail).unwrap(), (Allocation::Hole, 2 << 20));
    store.prefetch(all);
}

#[test]
fn a_size_that_is_no_multiple_of_512_works_buffered_and_is_refused_direct() {
    let scratch = Scratch::new();
    let path = image(&scratch, 100_001);
    let store = open(&path, Cache::Buffered);
    assert_eq!(store.geometry(), Geometry { size: 100_001, alignment: 1 });
    store.write_at(&[7], 100_000, true).unwrap();
    store.zero(Extent::new(99_000, 1000), false).unwrap();
    let mut back = [0; 2];
    store.read_at(&mut back, 99_999).unwrap();
    assert_eq!(back, [0, 7]);
    let refused = FileStore::open(&path, Options { read_only: false, cache: Cache::Direct }).unwrap_err();
    assert!(refused.to_string().contains("--cache buffered"), "{refused}");
}

#[test]
fn reading_past_the_end_is_an_error() {
    let scratch = Scratch::new();
    let store = open(&image(&scratch, 4096), Cache::Buffered);
    assert_eq!(store.read_at(&mut [0; 2], 4095).unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
}

#[test]
fn a_directory_is_no_disk() {
    let scratch = Scratch::new();
    let refused = FileStore::open(&scratch.path(""), Options { read_only: true, cache: Cache::Buffered });
    assert!(matches!(refused, Err(OpenError::NotADisk { .. })));
}

#[test]
fn creating_never_touches_what_is_there() {
    let scratch = Scratch::new();
    let path = scratch.path("image");
    std::fs::write(&path, b"precious").unwrap();
    assert_eq!(create_sparse(&path, 4096).unwrap_err().kind(), io::ErrorKind::AlreadyExists);
    assert_eq!(std::fs::read(&path).unwrap(), b"precious");
    std::fs::write(&path, b"").unwrap();
    create_sparse(&path, 1 << 40).unwrap();
    let made = std::fs::metadata(&path).unwrap();
    assert_eq!((made.len(), made.blocks()), (1 << 40, 0));
}
