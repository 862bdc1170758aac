//! A disk that is full, and a disk that fails: the client hears of it and the daemon lives on.

use std::fs::File;
use std::path::{Path, PathBuf};

use tests::daemon::Daemon;
use tests::disk::{FaultyDisk, SmallDisk};
use tests::lab::Lab;
use tests::require;
use tests::requires;
use tests::scratch::Scratch;

use super::{MIB, PLANES, nbdsh};

fn sparse_on(directory: &Path, size_bytes: u64) -> PathBuf {
    let path = directory.join("image");
    File::create(&path).and_then(|file| file.set_len(size_bytes)).expect("make an image");
    path
}

#[test]
fn a_full_disk_reaches_the_client_as_no_space_and_a_trim_makes_room_again() {
    let lab = require!(Lab::with(&["nbdsh"]));
    require!(requires::root());
    for plane in PLANES {
        let scratch = Scratch::new();
        let small = SmallDisk::new(&scratch, 8 * MIB);
        let image = sparse_on(small.path(), 64 * MIB);
        let mut disk = lab.serve(plane, &image).plane(plane).start();
        nbdsh(&disk, include_str!("full_disk.py"));
        disk.assert_alive();
    }
}

/// Has a daemon of each plane serve an image on a disk that can fail.
fn on_a_faulty_disk(lab: &Lab, cache: &str, check: impl Fn(&FaultyDisk, &dyn Fn() -> Daemon)) {
    for plane in PLANES {
        let scratch = Scratch::new();
        let faulty = FaultyDisk::new(&scratch, 128 * MIB, 0);
        let image = sparse_on(faulty.path(), 16 * MIB);
        check(&faulty, &|| lab.serve(plane, &image).plane(plane).flags(["--cache", cache]).start());
    }
}

#[test]
fn a_failing_disk_reaches_the_client_as_an_io_error_and_heals() {
    let lab = require!(Lab::with(&["nbdsh", "nbdkit", "nbdfuse"]));
    require!(requires::root());
    on_a_faulty_disk(&lab, "direct", |faulty, serve| {
        let mut disk = serve();
        nbdsh(&disk, include_str!("healthy_disk.py"));
        faulty.fail_writes(true);
        nbdsh(&disk, include_str!("failing_disk.py"));
        faulty.fail_writes(false);
        nbdsh(&disk, include_str!("healthy_disk.py"));
        disk.assert_alive();
    });
}

/// A page cache that could not be written counts as written afterwards: its daemon calls nothing durable any more.
#[test]
fn after_a_flush_that_failed_nothing_cached_is_called_durable_until_the_daemon_is_started_again() {
    let lab = require!(Lab::with(&["nbdsh", "nbdkit", "nbdfuse"]));
    require!(requires::root());
    on_a_faulty_disk(&lab, "buffered", |faulty, serve| {
        let mut disk = serve();
        nbdsh(&disk, include_str!("healthy_disk.py"));
        faulty.fail_writes(true);
        nbdsh(&disk, include_str!("lost_flush.py"));
        faulty.fail_writes(false);
        nbdsh(&disk, include_str!("lost_flush.py"));
        assert_eq!(disk.status()["requests"]["has_lost_writes"], true);
        assert_eq!(disk.log().matches("a flush failed").count(), 1, "{}", disk.log());
        disk.assert_alive();
        drop(disk);
        nbdsh(&serve(), include_str!("healthy_disk.py"));
    });
}
