//! The libnbd family: `nbdinfo`, `nbdcopy` and its Python binding through `nbdsh`.

use serde_json::Value;
use tests::lab::Lab;
use tests::program::Tool;
use tests::require;
use tests::scratch::{allocated_bytes, fill, first_difference};

use super::{MIB, PLANES, nbdsh};

#[test]
fn nbdinfo_shows_what_the_export_can_do() {
    let lab = require!(Lab::with(&["nbdinfo"]));
    let image = lab.scratch.sparse("image", 8 * MIB);
    let disk = lab.serve("disk", &image).export("root").start();
    let said = Tool::new("nbdinfo").args(["--json", &disk.uri()]).run();
    let info: Value = serde_json::from_str(&said).expect("nbdinfo prints JSON");
    assert_eq!((&info["protocol"], &info["structured"]), (&"newstyle-fixed".into(), &true.into()));
    let export = &info["exports"][0];
    assert_eq!(export["export-size"], 8 * MIB);
    assert_eq!(export["is_read_only"], false);
    for ability in ["df", "flush", "fua", "trim", "zero", "cache", "multi_conn"] {
        assert_eq!(export[format!("can_{ability}")], true, "can_{ability}");
    }
    assert!(export["contexts"].as_array().unwrap().contains(&"base:allocation".into()), "{export}");
    // Bounded, so that clients split their requests and the daemon's buffers have a limit.
    let maximum = export["block_size_maximum"].as_u64().expect("a maximum is advertised");
    assert!((MIB..=32 * MIB).contains(&maximum), "{maximum}");
}

#[test]
fn nbdinfo_lists_the_export_by_its_name() {
    let lab = require!(Lab::with(&["nbdinfo"]));
    let image = lab.scratch.sparse("image", MIB);
    let disk = lab.serve("disk", &image).export("root").start();
    let said = Tool::new("nbdinfo").args(["--list", "--json", &disk.uri()]).run();
    let list: Value = serde_json::from_str(&said).expect("nbdinfo prints JSON");
    let names: Vec<&Value> = list["exports"].as_array().unwrap().iter().map(|e| &e["export-name"]).collect();
    assert_eq!(names, ["root"]);
}

#[test]
fn nbdinfo_maps_data_and_holes() {
    let lab = require!(Lab::with(&["nbdinfo"]));
    let image = lab.scratch.sparse("image", 16 * MIB);
    fill(&image, 4 * MIB, 2 * MIB, 1);
    let disk = lab.serve("disk", &image).start();
    let said = Tool::new("nbdinfo").args(["--map", "--json", &disk.uri()]).run();
    let map: Value = serde_json::from_str(&said).expect("nbdinfo prints JSON");
    let ranges: Vec<(u64, u64, u64)> = map
        .as_array()
        .unwrap()
        .iter()
        .map(|entry| {
            let number = |key: &str| entry[key].as_u64().unwrap();
            (number("offset"), number("length"), number("type"))
        })
        .collect();
    // Type 3 is a hole that reads as zeroes.
    assert_eq!(ranges, [(0, 4 * MIB, 3), (4 * MIB, 2 * MIB, 0), (6 * MIB, 10 * MIB, 3)]);
}

#[test]
fn a_wrong_export_name_is_refused_and_named() {
    let lab = require!(Lab::with(&["nbdinfo", "qemu-img"]));
    let image = lab.scratch.sparse("image", MIB);
    let mut disk = lab.serve("disk", &image).export("root").start();
    let said = Tool::new("nbdinfo").arg(disk.uri_of("boot")).refused();
    assert!(said.contains("boot"), "{said}");
    let said = Tool::new("qemu-img").args(["info", &disk.uri_of("boot")]).refused();
    assert!(said.contains("boot"), "{said}");
    disk.assert_alive();
    Tool::new("nbdinfo").arg(disk.uri()).run();
}

#[test]
fn nbdcopy_copies_both_ways_over_several_connections() {
    let lab = require!(Lab::with(&["nbdcopy"]));
    let original = lab.scratch.sparse("original", 96 * MIB);
    fill(&original, MIB, 30 * MIB, 6);
    fill(&original, 90 * MIB, 6 * MIB, 7);
    for plane in PLANES {
        let image = lab.scratch.sparse(&format!("{plane}.image"), 96 * MIB);
        let back = lab.scratch.sparse(&format!("{plane}.back"), 96 * MIB);
        let disk = lab.serve(plane, &image).plane(plane).start();
        let copy = || Tool::new("nbdcopy").args(["--connections=4", "--requests=16", "--flush"]);
        copy().args(["--destination-is-zero"]).arg(&original).arg(disk.uri()).run();
        assert_eq!(first_difference(&original, &image), None, "to {plane}");
        assert!(allocated_bytes(&image) <= 37 * MIB, "{} bytes on {plane}", allocated_bytes(&image));
        copy().arg(disk.uri()).arg(&back).run();
        assert_eq!(first_difference(&original, &back), None, "from {plane}");
    }
}

#[test]
fn requests_longer_than_what_was_told_are_served_and_those_longer_than_any_refused_with_their_data() {
    let lab = require!(Lab::with(&["nbdsh"]));
    for (plane, cache) in PLANES.into_iter().zip(["direct", "buffered"]) {
        let image = lab.scratch.sparse(plane, 40 * MIB);
        let mut disk = lab.serve(plane, &image).plane(plane).flags(["--cache", cache]).start();
        nbdsh(&disk, include_str!("long_requests.py"));
        disk.assert_alive();
    }
}

#[test]
fn a_write_that_is_refused_does_not_cost_a_read_only_client_its_connection() {
    let lab = require!(Lab::with(&["nbdsh"]));
    let image = lab.scratch.sparse("image", 40 * MIB);
    for plane in PLANES {
        let disk = lab.serve(plane, &image).plane(plane).flags(["--read-only"]).start();
        nbdsh(&disk, include_str!("refused_writes.py"));
    }
}

#[test]
fn nbdcopy_copies_both_ways_in_requests_of_its_own_choice() {
    let lab = require!(Lab::with(&["nbdcopy"]));
    let original = lab.scratch.patterned("original", 40 * MIB + 512, 14);
    for plane in PLANES {
        let image = lab.scratch.sparse(&format!("{plane}.image"), 40 * MIB + 512);
        let back = lab.scratch.sparse(&format!("{plane}.back"), 40 * MIB + 512);
        let disk = lab.serve(plane, &image).plane(plane).start();
        let copy = |size: &str| Tool::new("nbdcopy").args([&format!("--request-size={size}"), "--flush"]);
        copy("2097152").arg(&original).arg(disk.uri()).run();
        assert_eq!(first_difference(&original, &image), None, "to {plane}");
        copy("33554432").arg(disk.uri()).arg(&back).run();
        assert_eq!(first_difference(&original, &back), None, "from {plane}");
    }
}

#[test]
fn structured_reads_come_in_chunks_that_cover_the_range_and_in_one_piece_with_df() {
    let lab = require!(Lab::with(&["nbdsh"]));
    let image = lab.scratch.sparse("image", 8 * MIB);
    fill(&image, MIB, 64 << 10, 8);
    for plane in PLANES {
        let disk = lab.serve(plane, &image).plane(plane).start();
        nbdsh(&disk, include_str!("structured_reads.py"));
    }
}

#[test]
fn block_status_covers_what_was_asked_and_one_entry_when_one_was_asked() {
    let lab = require!(Lab::with(&["nbdsh"]));
    let image = lab.scratch.sparse("image", 8 * MIB);
    fill(&image, 2 * MIB, MIB, 9);
    for plane in PLANES {
        let disk = lab.serve(plane, &image).plane(plane).start();
        nbdsh(&disk, include_str!("block_status.py"));
    }
}

#[test]
fn requests_outside_of_the_disk_or_of_no_length_are_answered_and_harm_nothing() {
    let lab = require!(Lab::with(&["nbdsh"]));
    for plane in PLANES {
        let image = lab.scratch.patterned(&format!("{plane}.image"), 2 * MIB, 10);
        let before = lab.scratch.patterned(&format!("{plane}.before"), 2 * MIB, 10);
        let mut disk = lab.serve(plane, &image).plane(plane).start();
        nbdsh(&disk, include_str!("out_of_range.py"));
        disk.assert_alive();
        assert_eq!(first_difference(&image, &before), None);
    }
}

#[test]
fn thirty_two_requests_in_flight_are_all_answered_with_their_own_data() {
    let lab = require!(Lab::with(&["nbdsh"]));
    for plane in PLANES {
        let image = lab.scratch.sparse(&format!("{plane}.image"), 16 * MIB);
        let disk = lab.serve(plane, &image).plane(plane).start();
        nbdsh(&disk, include_str!("in_flight.py"));
    }
}

#[test]
fn connections_see_each_others_writes_and_a_flush_of_one_serves_all() {
    let lab = require!(Lab::with(&["nbdsh"]));
    for plane in PLANES {
        let image = lab.scratch.sparse(&format!("{plane}.image"), 4 * MIB);
        let disk = lab.serve(plane, &image).plane(plane).start();
        nbdsh(&disk, include_str!("connections.py"));
    }
}

#[test]
fn a_read_only_export_refuses_every_kind_of_write() {
    let lab = require!(Lab::with(&["nbdsh", "qemu-io"]));
    let image = lab.scratch.patterned("image", 2 * MIB, 11);
    let before = lab.scratch.patterned("before", 2 * MIB, 11);
    for plane in PLANES {
        let disk = lab.serve(plane, &image).plane(plane).flags(["--read-only"]).start();
        nbdsh(&disk, include_str!("read_only.py"));
        let said = Tool::new("qemu-io").args(["-f", "raw", "-c", "write 0 4k", &disk.uri()]).refused();
        assert!(said.contains("read-only") || said.contains("Permission denied"), "{said}");
        Tool::new("qemu-io").args(["-r", "-f", "raw", "-c", "read 0 4k", &disk.uri()]).run();
    }
    assert_eq!(first_difference(&image, &before), None);
}
