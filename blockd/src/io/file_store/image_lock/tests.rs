//! Who gets an image beside whom. QEMU itself is in the tests of the programs.

use std::fs::File;

use super::*;
use crate::io::file_store::{Cache, create_sparse};
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
fn a_second_daemon_does_not_get_the_image_until_the_first_is_gone() {
    let scratch = Scratch::new();
    let path = image(&scratch, 4096);
    let first = open(&path, Cache::Buffered);
    first.lock(Duration::ZERO).unwrap();
    // Another description of the same file in the same process is as foreign as another process.
    let second = open(&path, Cache::Buffered);
    let refused = second.lock(Duration::from_millis(30)).unwrap_err();
    assert!(refused.to_string().contains("another blockd serves"), "{refused}");
    // D12: the description lives on in a duplicate, as it does in a request in flight.
    let in_flight = first.file.try_clone().unwrap();
    drop(first);
    assert!(second.lock(Duration::ZERO).is_err());
    drop(in_flight);
    second.lock(Duration::from_secs(10)).unwrap();
}

#[test]
fn readers_share_an_image_and_keep_writers_out() {
    let scratch = Scratch::new();
    let path = image(&scratch, 4096);
    let reader = || FileStore::open(&path, Options { read_only: true, cache: Cache::Buffered }).unwrap();
    let (first, second) = (reader(), reader());
    first.lock(Duration::ZERO).unwrap();
    second.lock(Duration::ZERO).unwrap();
    assert!(open(&path, Cache::Buffered).lock(Duration::ZERO).is_err());
}

/// An image with the bytes locked that a QEMU has locked, until it is dropped.
fn locked_by_qemu(path: &Path, bytes: &[i64]) -> File {
    let file = File::open(path).unwrap();
    for byte in bytes {
        let wanted = libc::flock {
            l_type: libc::F_RDLCK as _,
            l_whence: libc::SEEK_SET as _,
            l_start: *byte,
            l_len: 1,
            l_pid: 0,
        };
        fcntl(&file, FcntlArg::F_OFD_SETLK(&wanted)).unwrap();
    }
    file
}

/// What each kind of QEMU and its tools lock, as it was seen of them, and who then gets the image: to write, to read.
#[test]
fn an_image_is_served_beside_a_qemu_exactly_if_a_qemu_would_open_it_too() {
    let scratch = Scratch::new();
    let path = image(&scratch, 4096);
    type Refused = Option<&'static str>;
    let cases: [(&str, &[i64], Refused, Refused); 8] = [
        ("nobody", &[], None, None),
        ("a guest's disk", &[100, 101, 201], Some("write"), Some("write")),
        ("a disk that guests share", &[100, 101], Some("write"), Some("write")),
        ("qemu-nbd", &[100, 101, 203], Some("write"), Some("write")),
        ("a reader that shares all", &[100], None, None),
        ("a reader that shares no writes", &[100, 201], Some("write"), None),
        ("one that changes the size", &[103], Some("resize"), Some("resize")),
        ("one that shares nothing", &[200], Some("consistent read"), Some("consistent read")),
    ];
    for (who, bytes, for_writer, for_reader) in cases {
        for (read_only, refused) in [(false, for_writer), (true, for_reader)] {
            let options = Options { read_only, cache: Cache::Buffered };
            let store = FileStore::open(&path, options).unwrap();
            let other = locked_by_qemu(&path, bytes);
            match (store.lock(Duration::ZERO), refused) {
                (Ok(()), None) => {}
                (Err(LockError::InUse { permission, .. }), Some(word)) => {
                    assert_eq!(permission, word, "{who}")
                }
                (found, _) => panic!("{who}, read_only {read_only}: {found:?}"),
            }
            drop(other);
            if refused.is_some() {
                // Who was refused keeps nothing.
                open(&path, Cache::Buffered).lock(Duration::ZERO).unwrap();
            }
        }
    }
}

#[test]
fn what_is_locked_is_what_a_qemu_locks_for_a_guest() {
    let scratch = Scratch::new();
    let path = image(&scratch, 4096);
    for (read_only, expected) in [(false, vec![100, 101, 201, 203]), (true, vec![100, 201, 203])] {
        let store = FileStore::open(&path, Options { read_only, cache: Cache::Buffered }).unwrap();
        store.lock(Duration::ZERO).unwrap();
        let looker = open(&path, Cache::Buffered);
        let is_locked = |byte: &i64| looker.is_locked(libc::F_WRLCK, *byte).unwrap();
        assert_eq!((0..400).filter(is_locked).collect::<Vec<i64>>(), expected);
        // Only against being written to: who reads with all permissions shared is let in.
        assert!(!looker.is_locked(libc::F_RDLCK, 101).unwrap());
    }
}

#[test]
fn a_qemu_that_ends_in_time_is_waited_for() {
    let scratch = Scratch::new();
    let path = image(&scratch, 4096);
    let store = open(&path, Cache::Buffered);
    let other = locked_by_qemu(&path, &[100, 101, 201]);
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| store.lock(Duration::from_secs(10)));
        drop(other);
        waiting.join().unwrap().unwrap();
    });
}

#[test]
fn who_writes_without_a_lock_is_seen_once_and_a_reader_is_none() {
    let scratch = Scratch::new();
    let path = image(&scratch, 4096);
    let alone = |read_only, timeout| {
        FileStore::open_alone(&path, Options { read_only, cache: Cache::Buffered }, timeout)
    };
    let _reader = File::open(&path).unwrap();
    // A child that another test is starting may have it open for writing until it has become its program.
    drop(alone(false, Duration::from_secs(10)).unwrap());
    let writer = File::options().append(true).open(&path).unwrap();
    for read_only in [false, true] {
        let refused = alone(read_only, Duration::ZERO).unwrap_err();
        assert!(matches!(refused, LockError::Written { .. }), "{refused}");
    }
    // A daemon that serves a running guest again does not ask.
    open(&path, Cache::Buffered).lock(Duration::ZERO).unwrap();
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| alone(false, Duration::from_secs(10)).map(drop));
        drop(writer);
        waiting.join().unwrap().unwrap();
    });
}

#[test]
fn who_has_a_lock_is_named_by_that() {
    let scratch = Scratch::new();
    let path = image(&scratch, 4096);
    let first = open(&path, Cache::Buffered);
    first.lock(Duration::ZERO).unwrap();
    let options = Options { read_only: false, cache: Cache::Buffered };
    let refused = FileStore::open_alone(&path, options, Duration::ZERO).unwrap_err();
    assert!(matches!(refused, LockError::Held { .. }), "{refused}");
}
