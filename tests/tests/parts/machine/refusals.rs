//! What a host refuses, and that nothing is left of it.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};

use blockd::io::sidecar_file::SidecarFile;
use blockd::sidecar::{Header, Role};
use migrated::host::{Image, Refusal, Reservations, Wanted, check};
use migrated::io::host;
use migrated::io::machine::{DiskRoles, Machine, Start};
use migrated::peer::DiskSize;
use tests::require;

use super::ground::Ground;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_start_says_why_and_leaves_nothing() {
    let ground = require!(Ground::new());
    let outside = ground.scratch.sparse("outside.raw", 1 << 20);
    symlink(&outside, ground.config.images_dir.join("escape.raw")).unwrap();
    let mut cases = vec![(ground.description("absent"), "there is no image")];
    cases.push((ground.description("escape"), "leads out of"));
    let mut odd = ground.guest("cpu");
    odd.cpu = "Skylake-Server".into();
    cases.push((odd, "avx512f"));
    let mut odd = ground.guest("machine");
    odd.machine = "pc-i440fx-99.9".into();
    cases.push((odd, "machine type"));
    let mut odd = ground.guest("boot");
    odd.boot.as_mut().unwrap().kernel = "nothing".into();
    cases.push((odd, "no such file"));
    ground.scratch.sparse("images/odd.raw", (16 << 20) - 511);
    cases.push((ground.description("odd"), "truncate -s 16777216"));
    let qcow2 = ground.image("qcow2");
    fs::write(&qcow2, [b"QFI\xfb\0\0\0\x03".as_slice(), &[0; 4088]].concat()).unwrap();
    cases.push((ground.description("qcow2"), "a qcow2 image by its own word"));
    for (guest, reason) in cases {
        let refused =
            Machine::start(&ground.config, &guest, Start::Boot, DiskRoles::Primary).await.unwrap_err();
        assert!(refused.to_string().contains(reason), "{reason}: {refused}");
        ground.assert_clean(&guest.name);
    }
    // By the description's word these bytes are the disk's, and blockd takes them as such: QEMU is what refuses.
    let mut said = ground.description("qcow2");
    said.disks[0].format = Some("raw".into());
    said.cpu = "Skylake-Server".into();
    let refused = Machine::start(&ground.config, &said, Start::Boot, DiskRoles::Primary).await.unwrap_err();
    assert!(refused.to_string().contains("avx512f"), "{refused}");
    assert!(SidecarFile::peek(&qcow2.with_file_name("qcow2.raw.blockd")).unwrap().is_some());
}

/// S0-29 to S0-33: all reasons at once, from what the host really is.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_host_names_all_reasons_why_it_cannot_take_a_guest() {
    let ground = require!(Ground::new());
    let guest = ground.description("web");
    let digests: Vec<String> =
        host::boot_digests(&ground.config, &guest).into_iter().map(|(_, digest)| digest.unwrap()).collect();
    assert_eq!(digests.len(), 2);
    let disks = [DiskSize { id: "root".into(), size_bytes: 16 << 20, allocated_bytes: 0 }];
    let wanted = Wanted {
        guest: &guest,
        disks: &disks,
        boot_digests: &digests,
        architecture: "",
        qemu_version: "7.2.0",
        accel: "tcg",
        sender: None,
    };
    let facts = host::facts(&ground.config, &guest).await.unwrap();
    assert_eq!(check(&facts, &Reservations::default(), &wanted), []);

    // Now nothing fits.
    let mut guest = guest.clone();
    guest.memory_mib = 4 << 20;
    guest.cpu = "Skylake-Server,+amx-tile,+avx2,+avx513".into();
    guest.machine = "pc-i440fx-99.9".into();
    ground.image("web");
    fs::write(ground.config.boot_dir.join("initrd"), "another").unwrap();
    let disks = [DiskSize { id: "root".into(), size_bytes: 1 << 50, allocated_bytes: 0 }];
    let wanted = Wanted { guest: &guest, disks: &disks, ..wanted };
    let facts = host::facts(&ground.config, &guest).await.unwrap();
    let refusals = check(&facts, &Reservations::default(), &wanted);
    let [memory, disk, image, machine, flags, unknown, boot] = &refusals[..] else { panic!("{refusals:#?}") };
    assert!(matches!(memory, Refusal::Memory { needed_mib, .. } if *needed_mib == 4 << 20), "{memory}");
    assert!(matches!(disk, Refusal::Disk { needed_mib, .. } if *needed_mib > 1 << 30), "{disk}");
    assert!(matches!(image, Refusal::Image { .. }) && image.to_string().contains("no migration has made"));
    assert!(matches!(machine, Refusal::Machine { .. }) && machine.to_string().contains("QEMU 7.2.0"));
    let Refusal::CpuFlags { missing, .. } = flags else { panic!("{flags}") };
    let lacks = |flag: &str| missing.iter().any(|one| one == flag);
    assert!(lacks("avx512f") && lacks("amx-tile") && !lacks("avx2"), "{missing:?}");
    assert!(unknown.to_string().contains("does not know the flags avx513"), "{unknown}");
    assert!(boot.to_string().contains("another file than at the source"), "{boot}");
}

/// S0-47: what QEMU offers is not older than the QEMU that a guest would be started with.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_qemu_that_was_replaced_is_asked_again() {
    let mut ground = require!(Ground::new());
    let program = ground.scratch.join("qemu");
    let install = |script: &str| {
        let next = program.with_extension("next");
        fs::write(&next, format!("#!/bin/sh\n{script}\n")).unwrap();
        fs::set_permissions(&next, fs::Permissions::from_mode(0o755)).unwrap();
        fs::rename(&next, &program).unwrap();
    };
    ground.config.programs.qemu = program.clone();
    let guest = ground.description("web");
    let facts = async || host::facts(&ground.config, &guest).await;
    install("exec qemu-system-x86_64 \"$@\"");
    let before = facts().await.unwrap();
    assert!(before.machines.contains("pc-i440fx-7.2") && !before.flags.is_empty());
    install("echo it cannot be started >&2; exit 1");
    let broken = facts().await.unwrap_err().to_string();
    assert!(broken.contains("cannot ask"), "{broken}");
    install("exec qemu-system-x86_64 \"$@\" | sed 's/pc-i440fx-7.2/pc-i440fx-99.9/g'");
    let after = facts().await.unwrap();
    assert!(after.machines.contains("pc-i440fx-99.9") && !after.machines.contains("pc-i440fx-7.2"));
}

/// A shared image has no daemon that would keep two QEMUs apart: one that is some guest's disk is not to be shared.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_disk_of_a_guest_is_not_one_that_guests_share() {
    let ground = require!(Ground::new());
    let mut guest = ground.guest("thief");
    guest.disks[0].shared = true;
    let image = async |guest| host::facts(&ground.config, guest).await.unwrap().images["root"].clone();
    assert!(matches!(image(&guest).await, Image::Ours { .. }));
    let sidecar = ground.config.images_dir.join("thief.raw.blockd");
    let header = Header::new("db-root", 16 << 20, Role::Primary, [1; 16]).unwrap();
    drop(SidecarFile::create(&sidecar, header).unwrap());
    assert!(matches!(image(&guest).await, Image::Taken(reason) if reason.contains("db-root")));
    fs::remove_file(ground.config.images_dir.join("thief.raw")).unwrap();
    fs::create_dir(ground.config.images_dir.join("thief.raw")).unwrap();
    assert!(matches!(image(&guest).await, Image::Taken(reason) if reason.contains("neither a file")));
}
