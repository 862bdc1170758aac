//! What the daemon does to the image file, and who may serve it.

use tests::lab::Lab;
use tests::program::Tool;
use tests::require;
use tests::scratch::{allocated_bytes, fill, first_difference};

use super::{MIB, PLANES};

#[test]
fn the_data_plane_and_the_cache_that_were_asked_for_are_the_ones_in_use() {
    let lab = require!(Lab::with(&[]));
    let image = lab.scratch.sparse("image", MIB);
    for plane in PLANES {
        for cache in ["direct", "buffered"] {
            let disk = lab.serve("disk", &image).plane(plane).flags(["--cache", cache]).start();
            let identity = &disk.status()["identity"];
            assert_eq!((&identity["data_plane"], &identity["cache"]), (&plane.into(), &cache.into()));
        }
    }
}

#[test]
fn reading_a_sparse_image_allocates_nothing_and_writing_only_what_is_written() {
    let lab = require!(Lab::with(&["qemu-io"]));
    for plane in PLANES {
        for cache in ["direct", "buffered"] {
            let image = lab.scratch.sparse(&format!("{plane}.{cache}"), 1024 * MIB);
            fill(&image, 512 * MIB, MIB, 13);
            let before = allocated_bytes(&image);
            let name = format!("{plane}-{cache}");
            let disk = lab.serve(&name, &image).plane(plane).flags(["--cache", cache]).start();
            let io =
                |command: &str| Tool::new("qemu-io").args(["-f", "raw", "-c", command, &disk.uri()]).run();
            io("read 0 1024M");
            assert_eq!(allocated_bytes(&image), before, "after reading on {name}");
            io("write 100M 64k");
            assert_eq!(allocated_bytes(&image), before + (64 << 10), "after writing on {name}");
        }
    }
}

#[test]
fn a_second_daemon_on_the_same_image_is_refused() {
    let lab = require!(Lab::with(&["qemu-io"]));
    let image = lab.scratch.sparse("image", MIB);
    let first = lab.serve("first", &image).start();
    // D12.
    let said = lab.serve("second", &image).refused();
    assert!(said.contains("image") && said.contains("lock"), "the message says what is wrong: {said}");
    Tool::new("qemu-io").args(["-f", "raw", "-c", "write -P 1 0 4k", &first.uri()]).run();
}

#[test]
fn a_missing_image_is_named_and_not_made() {
    let lab = require!(Lab::with(&[]));
    let image = lab.scratch.join("nowhere");
    let said = lab.serve("disk", &image).refused();
    assert!(said.contains("nowhere"), "{said}");
    assert!(!image.exists());
}

#[test]
fn a_killed_child_is_replaced_and_has_lost_nothing_that_was_acknowledged() {
    let lab = require!(Lab::with(&["qemu-io"]));
    // S4-31: the source disk is always complete.
    for plane in PLANES {
        let image = lab.scratch.sparse(&format!("{plane}.image"), 4 * MIB);
        let expected = lab.scratch.sparse(&format!("{plane}.expected"), 4 * MIB);
        let mut disk = lab.serve(plane, &image).plane(plane).start();
        for round in 1..=3 {
            let io = |target: &str, force: &[&str]| {
                let command = format!("write -P {round} {}k 64k", round * 100);
                Tool::new("qemu-io").args(["-f", "raw"]).args(force).args(["-c", &command, target]).run();
            };
            io(&disk.uri(), &[]);
            io(&expected.to_string_lossy(), &[]);
            disk.kill_child();
        }
        assert_eq!(first_difference(&image, &expected), None, "on {plane}");
    }
}

#[test]
fn a_daemon_that_was_asked_to_stop_ends_well_and_leaves_the_image_to_the_next() {
    let lab = require!(Lab::with(&["qemu-io"]));
    let image = lab.scratch.sparse("image", MIB);
    let io = |command: &str, uri: &str| Tool::new("qemu-io").args(["-f", "raw", "-c", command, uri]).run();
    let mut first = lab.serve("first", &image).start();
    io("write -P 7 0 4k", &first.uri());
    assert_eq!(first.shut_down(), 0, "{}", first.log());
    let second = lab.serve("second", &image).start();
    io("read -P 7 0 4k", &second.uri());
}
