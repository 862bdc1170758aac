//! QEMU's tools: `qemu-img` and `qemu-io`.

use serde_json::Value;
use tests::lab::Lab;
use tests::program::Tool;
use tests::require;
use tests::scratch::{allocated_bytes, fill, first_difference};

use super::{MIB, PLANES};

#[test]
fn qemu_img_sees_the_size_of_the_image() {
    let lab = require!(Lab::with(&["qemu-img"]));
    let image = lab.scratch.sparse("image", 40 * MIB);
    for plane in PLANES {
        let disk = lab.serve(plane, &image).plane(plane).export("root").start();
        let said = Tool::new("qemu-img").args(["info", "--output=json", &disk.uri()]).run();
        let info: Value = serde_json::from_str(&said).expect("qemu-img info prints JSON");
        assert_eq!(info["virtual-size"], 40 * MIB);
        assert_eq!(info["format"], "raw");
    }
}

#[test]
fn qemu_img_maps_the_holes_of_a_sparse_image() {
    let lab = require!(Lab::with(&["qemu-img"]));
    let image = lab.scratch.sparse("image", 64 * MIB);
    let written = [(0, MIB), (8 * MIB, 64 << 10), (40 * MIB, 4 << 10), (63 * MIB, MIB)];
    for (offset, len) in written {
        fill(&image, offset, len, offset + 1);
    }
    for plane in PLANES {
        let disk = lab.serve(plane, &image).plane(plane).start();
        assert_eq!(ranges_of_data(&disk.uri()), written, "on {plane}");
    }
}

/// Where `qemu-img map` sees data: offset and length, neighbours joined.
fn ranges_of_data(uri: &str) -> Vec<(u64, u64)> {
    let said = Tool::new("qemu-img").args(["map", "--output=json", uri]).run();
    let map: Value = serde_json::from_str(&said).expect("qemu-img map prints JSON");
    let mut ranges: Vec<(u64, u64)> = Vec::new();
    for entry in map.as_array().expect("a list") {
        assert_eq!(entry["data"], !entry["zero"].as_bool().unwrap(), "{entry}");
        if entry["data"] == false {
            continue;
        }
        let (start, length) = (entry["start"].as_u64().unwrap(), entry["length"].as_u64().unwrap());
        match ranges.last_mut() {
            Some(last) if last.0 + last.1 == start => last.1 += length,
            _ => ranges.push((start, length)),
        }
    }
    ranges
}

#[test]
fn qemu_img_converts_to_the_export_and_back_and_finds_no_difference() {
    let lab = require!(Lab::with(&["qemu-img"]));
    let original = lab.scratch.sparse("original", 48 * MIB);
    fill(&original, 3 * MIB, 20 * MIB, 3);
    fill(&original, 47 * MIB + 512, 1024, 4);
    for plane in PLANES {
        let image = lab.scratch.sparse(&format!("{plane}.image"), 48 * MIB);
        let back = lab.scratch.join(&format!("{plane}.qcow2"));
        let disk = lab.serve(plane, &image).plane(plane).start();
        let convert = |words: &[&str]| Tool::new("qemu-img").arg("convert").args(words);
        // Out of order and in parallel, onto what is there.
        convert(&["-n", "-W", "-m", "8", "-f", "raw", "-O", "raw"]).arg(&original).arg(disk.uri()).run();
        assert_eq!(first_difference(&original, &image), None, "on {plane}");
        convert(&["-f", "raw", "-O", "qcow2"]).arg(disk.uri()).arg(&back).run();
        let compare = Tool::new("qemu-img").args(["compare", "-f", "raw", "-F", "qcow2"]);
        assert!(compare.arg(disk.uri()).arg(&back).run().contains("Images are identical"));
        // Holes were written as holes (S4-75).
        assert!(allocated_bytes(&image) <= 21 * MIB, "{} bytes on {plane}", allocated_bytes(&image));
    }
}

#[test]
fn qemu_img_compare_finds_the_byte_that_differs() {
    let lab = require!(Lab::with(&["qemu-img"]));
    let (one, other) = (lab.scratch.patterned("one", 4 * MIB, 1), lab.scratch.patterned("other", 4 * MIB, 1));
    fill(&other, 3 * MIB + 513, 1, 99);
    let disk = lab.serve("disk", &one).start();
    let compare = Tool::new("qemu-img").args(["compare", "-f", "raw", "-F", "raw"]);
    let said = compare.arg(disk.uri()).arg(&other).refused();
    assert!(said.contains(&format!("mismatch at offset {}", 3 * MIB + 512)), "{said}");
}

/// Commands of `qemu-io`, all of which have to succeed.
fn qemu_io(uri: &str, commands: &[&str]) -> String {
    let commands = commands.iter().flat_map(|command| ["-c", command]);
    let said = Tool::new("qemu-io").args(["-f", "raw", "-d", "unmap"]).args(commands).arg(uri).run();
    assert!(!said.contains("failed") && !said.contains("error"), "{said}");
    said
}

#[test]
fn qemu_io_reads_the_patterns_that_it_wrote() {
    let lab = require!(Lab::with(&["qemu-io"]));
    for plane in PLANES {
        let image = lab.scratch.sparse(&format!("{plane}.image"), 16 * MIB);
        let disk = lab.serve(plane, &image).plane(plane).start();
        qemu_io(
            &disk.uri(),
            &[
                "write -P 0xa5 0 64k",
                "write -f -P 0x5a 1M 4k",
                "write -P 0x11 2M 3M",
                "aio_write -P 0x22 6M 256k",
                "aio_write -P 0x33 7M 256k",
                "aio_flush",
                "flush",
                "read -P 0xa5 0 64k",
                "read -P 0x5a 1M 4k",
                "read -P 0 1028k 4k",
                "read -P 0x11 2M 3M",
                "aio_read -P 0x22 6M 256k",
                "aio_read -P 0x33 7M 256k",
                "aio_flush",
                "write -P 0x77 512 512",
                "read -P 0x77 512 512",
                "read -P 0xa5 0 512",
                "read -P 0xa5 1024 512",
            ],
        );
    }
}

#[test]
fn qemu_io_zeroes_and_discards_and_the_image_gets_its_holes_back() {
    let lab = require!(Lab::with(&["qemu-io"]));
    for plane in PLANES {
        let image = lab.scratch.patterned(&format!("{plane}.image"), 16 * MIB, 5);
        let disk = lab.serve(plane, &image).plane(plane).start();
        let full = allocated_bytes(&image);
        qemu_io(&disk.uri(), &["write -z 0 4M", "read -P 0 0 4M"]);
        assert!(allocated_bytes(&image) >= full, "zeroes without leave to unmap keep their place");
        // The file system may need a block or two to say where the holes are.
        qemu_io(&disk.uri(), &["write -z -u 4M 4M", "read -P 0 4M 4M"]);
        let freed = || (full - allocated_bytes(&image)).next_multiple_of(MIB);
        assert_eq!(freed(), 4 * MIB, "zeroes with leave to unmap make a hole");
        qemu_io(&disk.uri(), &["discard 8M 4M", "read -P 0 8M 4M"]);
        assert_eq!(freed(), 8 * MIB, "a discard makes a hole");
        qemu_io(&disk.uri(), &["write -z 12289k 512", "read -P 0 12289k 512", "flush"]);
    }
}
