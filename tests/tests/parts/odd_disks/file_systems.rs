//! Images and sidecars on file systems that lack what others have.

use std::fs;

use tests::disk::{Lacking, PlainDisk, SmallDisk};
use tests::lab::Lab;
use tests::require;
use tests::requires;
use tests::scratch::{fill, first_difference};

use super::MIB;
use crate::foreign_clients::{PLANES, nbdsh};

#[test]
fn a_disk_is_served_recorded_and_copied_on_a_file_system_that_has_next_to_nothing() {
    let lab = require!(Lab::with(&Lacking::PROGRAMS));
    require!(requires::loop_devices());
    for (kind, plane) in Lacking::ALL.into_iter().zip([PLANES[0], PLANES[1], PLANES[0]]) {
        let plain = PlainDisk::new(&lab.scratch, kind, 24 * MIB);
        let (image, copy) = (plain.path().join("a.raw"), plain.path().join("copy"));
        fs::File::create(&image).and_then(|file| file.set_len(4 * MIB)).expect("make an image");
        fill(&image, 0, 4 * MIB, 16);
        let name = format!("{kind:?}");
        let replica = lab.scratch.join(&format!("{name}.replica"));
        let id = ["--disk-id", "web"];
        let target = lab.serve(&format!("{name}.copy"), &copy).flags(id).replica(&replica, 4 * MIB).start();
        let mut disk = lab.serve(&name, &image).plane(plane).flags(id).start();
        disk.ctl(&["record", "on"]);
        disk.ctl(&["replicate", &replica.to_string_lossy()]);
        nbdsh(&disk, include_str!("any_requests.py"));
        disk.kill_child();
        let status = disk.status();
        assert_eq!(status["replication"]["recording"], true, "{kind:?}: its sidecar was taken up again");
        disk.ctl(&["seal", "--generation", "1", "--verify", "all"]);
        assert_eq!(first_difference(&image, &copy), None, "{kind:?}");
        disk.ctl(&["fence", "--generation", "1"]);
        target.ctl(&["promote", "--generation", "1"]);
        // What came can leave again.
        target.ctl(&["record", "on"]);
        drop((disk, target));
        let said = lab.serve(&name, &image).refused();
        assert!(said.contains("moved"), "{kind:?}: {said}");
        assert!(!plain.path().join("a.raw.blockd.new").exists(), "{kind:?}");
    }
}

#[test]
fn a_replica_without_the_room_to_leave_again_does_not_begin() {
    let lab = require!(Lab::with(&[]));
    require!(requires::root());
    let small = SmallDisk::new(&lab.scratch, MIB);
    // Its bitmap takes 2 MiB.
    let size_bytes = 64 << 30;
    let replica = lab.scratch.join("replica");
    let said = lab.serve("copy", &small.path().join("copy")).replica(&replica, size_bytes).refused();
    assert!(said.contains("could not leave again") && said.contains("No space left"), "{said}");
}

#[test]
fn an_image_with_two_names_is_refused_where_nothing_leads_from_both_to_one_sidecar() {
    let lab = require!(Lab::with(&[]));
    require!(requires::root());
    let memory = PlainDisk::new(&lab.scratch, Lacking::Memory, MIB);
    let [image, other] = ["a.raw", "b.raw"].map(|name| memory.path().join(name));
    fs::write(&image, vec![1; 4096]).expect("make an image");
    fs::hard_link(&image, &other).expect("give it another name");
    let said = lab.serve("disk", &image).refused();
    assert!(said.contains("2 names") && said.contains("--sidecar"), "{said}");
    drop(lab.serve("named", &image).flags(["--sidecar".into(), memory.path().join("s")]).start());
    fs::remove_file(&other).expect("take the name away");
    drop(lab.serve("disk", &image).start());
}
