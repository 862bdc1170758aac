//! Opening disks in every role, against real files.

use std::path::PathBuf;
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

fn sidecar_path(serve: &Serve) -> PathBuf {
    look(&serve.image, None, None, None).unwrap().0.path().into()
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

#[test]
fn a_fenced_image_is_served_by_none_of_its_names() {
    let scratch = Scratch::new();
    let disk = serve(&scratch);
    create_sparse(&disk.image, SIZE).unwrap();
    drop(open(&disk, FIRST).unwrap());
    remember(&disk, |header| header.role = Role::Fenced);
    let [link, hard, renamed] = ["link.raw", "hard.raw", "renamed.raw"].map(|name| scratch.path(name));
    std::os::unix::fs::symlink(&disk.image, &link).unwrap();
    let by = |image: &Path| Serve { image: image.into(), ..disk.clone() };
    assert!(matches!(refusal(&by(&link)), Refusal::Moved { .. }));
    std::fs::remove_file(&link).unwrap();
    if !mark_image(&disk.image, &sidecar_path(&disk)) {
        return; // names of a file are not known to be of one here
    }
    std::fs::hard_link(&disk.image, &hard).unwrap();
    assert!(matches!(refusal(&by(&hard)), Refusal::Moved { .. }));
    std::fs::remove_file(&hard).unwrap();
    std::fs::rename(&disk.image, &renamed).unwrap();
    assert!(matches!(refusal(&by(&renamed)), Refusal::Moved { .. }));
    // It comes back under its new name, and its sidecar with it.
    drop(open(&as_replica(by(&renamed), None), FIRST).unwrap());
    assert!(scratch.path("renamed.raw.blockd").exists() && !scratch.path("disk.raw.blockd").exists());
}

#[test]
fn what_0_1_0_put_beside_a_link_is_obeyed_and_moved_beside_the_file() {
    let scratch = Scratch::new();
    let disk = serve(&scratch);
    create_sparse(&disk.image, SIZE).unwrap();
    let link = scratch.path("link.raw");
    std::os::unix::fs::symlink(&disk.image, &link).unwrap();
    let by_link = Serve { image: link, ..disk.clone() };
    let old = scratch.path("link.raw.blockd");
    let header = Header::new("link", SIZE, Role::Fenced, [7; 16]).unwrap();
    drop(SidecarFile::create(&old, Header { generation: 4, ..header }).unwrap());
    assert!(matches!(refusal(&by_link), Refusal::Moved { generation: 4, .. }));
    assert!(old.exists(), "what is refused changes nothing");
    let back = open(&as_replica(by_link, None), FIRST).unwrap();
    assert_eq!((back.header.role, back.header.generation), (Role::Replica, 4));
    assert!(!old.exists() && scratch.path("disk.raw.blockd").exists());
}

#[test]
fn a_replica_has_the_room_to_leave_again_before_it_takes_anything() {
    let scratch = Scratch::new();
    let size = 64 << 30;
    drop(open(&as_replica(serve(&scratch), Some(size)), FIRST).unwrap());
    let taken = std::fs::metadata(scratch.path("disk.raw.blockd")).unwrap().blocks() * 512;
    assert!(taken >= size / 4096 / 8, "{taken} bytes");
}
