//! Both data planes answer any request alike, whatever the sectors of the disk: each answer is compared with a model, and
//! what is on the disks in the end with each other.

use std::path::Path;

use tests::disk::LoopDevice;
use tests::lab::Lab;
use tests::require;
use tests::requires;
use tests::scratch::{fill, first_difference};

use super::MIB;
use crate::foreign_clients::{PLANES, nbdsh};

/// Has both planes serve a disk of `size_bytes` each, which `attach` makes of a file.
fn alike<T>(
    lab: &Lab,
    name: &str,
    size_bytes: u64,
    cache: &str,
    attach: impl Fn(&Path) -> (T, std::path::PathBuf),
) {
    let files = PLANES.map(|plane| {
        let file = lab.scratch.sparse(&format!("{name}.{plane}"), size_bytes);
        fill(&file, 0, size_bytes, 15);
        let (attached, image) = attach(&file);
        let label = format!("{name}.{plane}.d");
        let sidecar = lab.scratch.join(&format!("{label}.sidecar"));
        let flags = ["--cache", cache, "--sidecar", &sidecar.to_string_lossy()].map(String::from);
        let mut disk = lab.serve(&label, &image).plane(plane).flags(flags).start();
        nbdsh(&disk, include_str!("any_requests.py"));
        disk.assert_alive();
        assert_eq!(disk.shut_down(), 0, "{}", disk.log());
        drop(attached);
        file
    });
    assert_eq!(first_difference(&files[0], &files[1]), None, "{name}");
}

#[test]
fn any_request_to_a_file_of_any_size_is_answered_alike_by_both_planes() {
    let lab = require!(Lab::with(&["nbdsh"]));
    for size_bytes in [MIB, 1_000_001] {
        alike(&lab, &format!("file-{size_bytes}"), size_bytes, "buffered", |file| ((), file.to_owned()));
    }
}

#[test]
fn any_request_to_a_device_of_any_sector_is_answered_alike_by_both_planes() {
    let lab = require!(Lab::with(&["nbdsh", "losetup"]));
    require!(requires::loop_devices());
    let cases = [(512, MIB + 512), (4096, MIB + 4096)];
    for (sector_bytes, size_bytes) in cases {
        for cache in ["buffered", "direct"] {
            let name = format!("loop-{sector_bytes}-{cache}");
            alike(&lab, &name, size_bytes, cache, |file| {
                let device = LoopDevice::new(file, sector_bytes);
                let path = device.path().to_owned();
                (device, path)
            });
        }
    }
}
