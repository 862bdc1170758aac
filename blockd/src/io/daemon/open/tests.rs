//! Opening disks in every role, against real files.

use std::time::Duration;

use super::*;
use crate::config::{DataPlaneFlag, Deltas, FormatFlag, ReplicaTarget, Throttle};
use crate::io::scratch::Scratch;
use crate::sidecar::Refusal;

const SIZE: u64 = 1 << 20;
const FIRST: Start = Start { supervised: false, restarted: false };

fn serve(scratch: &Scratch) -> Serve {
    let deltas = Deltas { budget_bytes: 0, window_bytes: 0, batch_bytes: 0, batch_age: Duration::ZERO };
    Serve {
        image: scratch.path("disk.raw"),
        nbd: scratch.path("nbd"),
        control: scratch.path("control"),
        export: String::new(),
        read_only: false,
        format: None,
        cache: CacheFlag::Buffered,
        data_plane: DataPlaneFlag::Auto,
        confine: crate::config::ConfineFlag::Off,
        replica: None,
        disk_id: None,
        sidecar: None,
        deltas,
        throttle: Throttle::None,
    }
}

fn as_replica(serve: Serve, size: Option<u64>) -> Serve {
    let target = ReplicaTarget { socket: serve.image.with_extension("replica"), size, claim: false };
    Serve { replica: Some(target), ..serve }
}

fn refusal(serve: &Serve) -> Refusal {
    let error = open(serve, FIRST).err().expect("a refusal");
    error.downcast_ref::<Refusal>().unwrap_or_else(|| panic!("{error:#}")).clone()
}

fn remember(serve: &Serve, change: impl FnOnce(&mut Header)) {
    let mut sidecar = SidecarFile::open(&sidecar_path(serve)).unwrap().unwrap();
    sidecar.update(change).unwrap();
}

#[test]
fn a_disk_is_a_primary_from_its_first_start_and_locked() {
    let scratch = Scratch::new();
    let serve = serve(&scratch);
    create_sparse(&serve.image, SIZE).unwrap();
    let disk = open(&serve, FIRST).unwrap();
    assert_eq!((disk.header.role, disk.header.disk_id.as_str()), (Role::Primary, "disk"));
    assert!(
        FileStore::open(&serve.image, Options { read_only: false, cache: Cache::Buffered })
            .unwrap()
            .lock(Duration::ZERO)
            .is_err()
    );
    drop(disk);
    assert!(scratch.path("disk.raw.blockd").exists());
    let again = Serve { disk_id: Some("other".into()), ..serve };
    assert!(matches!(refusal(&again), Refusal::OtherDisk { .. }));
}

#[test]
fn a_replica_is_made_once_and_found_again_and_never_served_as_a_disk() {
    let scratch = Scratch::new();
    let disk = serve(&scratch);
    let replica = as_replica(disk.clone(), Some(SIZE));
    let made = open(&replica, FIRST).unwrap();
    assert_eq!((made.header.role, made.store.geometry().size), (Role::Replica, SIZE));
    drop(made);
    assert_eq!(open(&as_replica(disk.clone(), None), FIRST).unwrap().header.role, Role::Replica);
    assert_eq!(refusal(&disk), Refusal::NotPromoted);
    remember(&disk, |header| header.role = Role::Promoted);
    assert_eq!(open(&replica, FIRST).unwrap().header.role, Role::Promoted);
    assert_eq!(open(&disk, FIRST).unwrap().header.role, Role::Promoted);
}

#[test]
fn a_strangers_image_is_left_as_it_is() {
    let scratch = Scratch::new();
    let disk = serve(&scratch);
    std::fs::write(&disk.image, "precious").unwrap();
    assert_eq!(refusal(&as_replica(disk.clone(), Some(SIZE))), Refusal::Stranger);
    assert_eq!(std::fs::read(&disk.image).unwrap(), b"precious");
    assert!(!sidecar_path(&disk).exists());
}

#[test]
fn a_disk_that_moved_away_is_not_served_but_may_come_back() {
    let scratch = Scratch::new();
    let disk = serve(&scratch);
    create_sparse(&disk.image, SIZE).unwrap();
    drop(open(&disk, FIRST).unwrap());
    remember(&disk, |header| (header.role, header.recording) = (Role::Fenced, true));
    for read_only in [false, true] {
        let asked = Serve { read_only, ..disk.clone() };
        assert!(matches!(refusal(&asked), Refusal::Moved { .. }));
    }
    let back = open(&as_replica(disk, None), FIRST).unwrap();
    assert_eq!((back.header.role, back.header.recording), (Role::Replica, false));
}

#[test]
fn bits_are_kept_within_a_boot_and_all_set_after_another_while_recording() {
    let scratch = Scratch::new();
    let serve = serve(&scratch);
    create_sparse(&serve.image, SIZE).unwrap();
    let mut disk = open(&serve, FIRST).unwrap();
    let (sidecar, bits) = disk.sidecar.as_mut().unwrap();
    sidecar.update(|header| header.recording = true).unwrap();
    bits.set(3..5);
    drop(disk);
    let count = |disk: &Disk| disk.sidecar.as_ref().unwrap().1.count();
    assert_eq!(count(&open(&serve, FIRST).unwrap()), 2);
    remember(&serve, |header| header.boot_id = [0; 16]);
    let after = open(&serve, FIRST).unwrap();
    assert_eq!((count(&after), after.header.boot_id), (SIZE / 4096, boot_id().unwrap()));
}

#[test]
fn an_image_of_another_format_becomes_no_disk_unless_its_bytes_are_said_to_be_the_disks() {
    let scratch = Scratch::new();
    let disk = serve(&scratch);
    create_sparse(&disk.image, SIZE).unwrap();
    let write = |bytes: &[u8]| {
        FileStore::open(&disk.image, Options { read_only: false, cache: Cache::Buffered })
            .unwrap()
            .write_at(bytes, 0, true)
            .unwrap();
    };
    write(b"QFI\xfb\0\0\0\x03");
    for read_only in [false, true] {
        let asked = Serve { read_only, ..disk.clone() };
        let refused = format!("{:#}", open(&asked, FIRST).err().expect("a refusal"));
        assert!(refused.contains("qcow2") && refused.contains("--format raw"), "{refused}");
        assert!(!sidecar_path(&disk).exists(), "it has not become a disk");
    }
    drop(open(&Serve { format: Some(FormatFlag::Raw), ..disk.clone() }, FIRST).unwrap());
    // It is a disk now, and what is in it is the guest's business.
    drop(open(&disk, FIRST).unwrap());
    write(b"KDMV");
    drop(open(&disk, FIRST).unwrap());
}

#[test]
fn a_copy_may_begin_with_whatever_the_guest_has_written() {
    let scratch = Scratch::new();
    let disk = serve(&scratch);
    let replica = as_replica(disk.clone(), Some(SIZE));
    drop(open(&replica, FIRST).unwrap());
    std::fs::write(&disk.image, [b"QFI\xfb\0\0\0\x03".to_vec(), vec![0; SIZE as usize - 8]].concat())
        .unwrap();
    remember(&disk, |header| header.role = Role::Promoted);
    assert_eq!(open(&disk, FIRST).unwrap().header.role, Role::Promoted);
}

#[test]
fn a_disk_of_any_size_is_served_in_its_own_size() {
    for size in [1, 511, 512, 513, 4095, 1_000_001] {
        let scratch = Scratch::new();
        let disk = serve(&scratch);
        create_sparse(&disk.image, size).unwrap();
        assert_eq!(open(&disk, FIRST).unwrap().store.geometry().size, size);
    }
}

#[test]
fn a_read_only_disk_leaves_no_sidecar_behind() {
    let scratch = Scratch::new();
    let serve = Serve { read_only: true, ..serve(&scratch) };
    create_sparse(&serve.image, SIZE).unwrap();
    assert!(open(&serve, FIRST).unwrap().sidecar.is_none());
    assert!(!sidecar_path(&serve).exists());
}
