//! Start, death of parts, a new life of the keeper, save and restore, end.

use std::time::Duration;

use migrated::guest::Accel;
use migrated::io::host::{self, kvm};
use migrated::io::machine::{DiskRoles, ExitReason, Machine, MachineError, Start, known_guests};
use migrated::qemu::Accelerator;
use migrated::qmp::RunState;
use nix::sys::signal::Signal;
use serde_json::json;
use tests::boot_sector;
use tests::program::{children, signal};
use tests::require;
use tests::requires;
use tests::wait::{PATIENCE, wait_until};

use super::ground::{Ground, Held};

/// The keeper goes, the guest stays; a new keeper finds it, pauses it, ends it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_guest_outlives_its_keeper_and_is_found_again() {
    let ground = require!(Ground::new());
    let guest = ground.guest("web");
    let first = ground.start(&guest, Start::Boot).await;
    assert_eq!(first.machine.state().await.unwrap(), RunState::Running);
    let again = Machine::start(&ground.config, &guest, Start::Boot, DiskRoles::Primary).await;
    assert!(matches!(again, Err(MachineError::Running(_))), "{again:?}");
    assert!(host::resident_mib(first.machine.pid()) > 0);
    first.wait_for_writes(20);
    let pid = first.machine.pid();
    drop(first);

    assert_eq!(known_guests(&ground.config), std::slice::from_ref(&guest));
    let found = Machine::adopt(&ground.config, &guest).await.unwrap().expect("the guest runs");
    let found = Held::new(found);
    assert_eq!(found.machine.pid(), pid);
    found.wait_for_writes(20);
    found.machine.pause().await.unwrap();
    assert_eq!(found.machine.state().await.unwrap(), RunState::Paused);
    let acknowledged = found.acknowledged();
    let machine = found.machine.clone();
    found.quit().await;
    assert_eq!(machine.ended().await, ExitReason::Told("host-qmp-quit".into()));
    ground.verify("web", acknowledged);
    ground.assert_clean("web");
    assert!(Machine::adopt(&ground.config, &guest).await.unwrap().is_none());
}

/// What stalls a guest does not hang its keeper: a killed daemon comes back and is noticed before the pause.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pause_after_the_death_of_an_idle_disk_does_not_wait_for_it() {
    let ground = require!(Ground::new());
    let guest = ground.guest("idle");
    let held = ground.start(&guest, Start::Boot).await;
    // Paused, so that it asks nothing of its disk.
    held.machine.pause().await.unwrap();
    let supervisor = held.machine.disks()[0].pid().unwrap();
    let daemon = children(supervisor)[0];
    signal(daemon, Signal::SIGKILL);
    wait_until(PATIENCE, "another daemon", || {
        children(supervisor).first().is_some_and(|next| *next != daemon)
    });
    held.machine.cont().await.unwrap();
    held.machine.pause().await.unwrap();
    assert!(held.machine.disks()[0].status().await.unwrap().requests.connections > 0);
    held.quit().await;
    ground.assert_clean("idle");
}

/// The daemon of a disk is dead for good: QEMU would wait minutes for it, and is ended all the same.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_guest_whose_disk_is_dead_can_be_ended() {
    let ground = require!(Ground::new());
    let guest = ground.guest("dead");
    let held = ground.start(&guest, Start::Boot).await;
    let supervisor = held.machine.disks()[0].pid().unwrap();
    let daemon = children(supervisor)[0];
    signal(supervisor, Signal::SIGKILL);
    signal(daemon, Signal::SIGKILL);
    held.quit().await;
    ground.assert_clean("dead");
}

/// S2-36, S2-37: as it is, and packed in both ways; and read as what it is when it has lost its name.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_saved_guest_goes_on_where_it_was() {
    let ground = require!(Ground::new());
    let guest = ground.guest("saved");
    let mut held = ground.start(&guest, Start::Boot).await;
    let (state, mut sizes) = (ground.scratch.join("any.state"), Vec::new());
    for name in ["saved.state", "saved.zst", "saved.gz"] {
        held.wait_for_writes(20);
        let saved = ground.scratch.join(name);
        held.machine.save(&saved).await.unwrap();
        sizes.push(std::fs::metadata(&saved).unwrap().len());
        let acknowledged = held.acknowledged();
        drop(held);
        ground.assert_clean("saved");

        std::fs::rename(saved, &state).unwrap();
        held = ground.start(&guest, Start::Restore(state.clone())).await;
        held.wait_for_writes(20);
        assert_eq!(held.console().matches("guest: ready").count(), 1, "it did not boot again");
        assert!(held.acknowledged() >= acknowledged + 20);
    }
    assert!(sizes[1..].iter().all(|packed| packed * 2 < sizes[0]), "{sizes:?}");
    held.machine.pause().await.unwrap();
    let later = held.acknowledged();
    held.quit().await;
    ground.verify("saved", later);

    // A file that is no state: refused, and nothing is left.
    std::fs::write(&state, b"this is no state of a guest").unwrap();
    let refused =
        Machine::start(&ground.config, &guest, Start::Restore(state), DiskRoles::Primary).await.unwrap_err();
    assert!(matches!(refused, MachineError::Saved(_)), "{refused}");
    ground.assert_clean("saved");
}

/// S0-13: who asks for KVM by name gets it wherever it is there, also where a Linux guest would only crawl; who does
/// not, gets it only where guests run on it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_boot_sector_runs_under_kvm_that_was_asked_for_by_name() {
    let ground = require!(Ground::new());
    require!(boot_sector::kvm());
    let mut guest = ground.description("sector");
    guest.boot = None;
    guest.accel = Accel::Kvm;
    // The software that stands in for a processor on some hosts lacks this flag.
    guest.cpu = "qemu64,-pni".into();
    boot_sector::install(&ground.image("sector"), boot_sector::HALTING);
    let held = ground.start(&guest, Start::Boot).await;
    assert_eq!(held.machine.accelerator(), Accelerator::Kvm);
    assert!(has_kvm(&held.machine).await);
    assert_eq!(held.machine.state().await.unwrap(), RunState::Running);
    held.quit().await;
    ground.assert_clean("sector");

    // Whichever is chosen where none is named, QEMU says that it is that one.
    guest.accel = Accel::Auto;
    guest.cpu = "qemu64".into();
    let held = ground.start(&guest, Start::Boot).await;
    assert_eq!(has_kvm(&held.machine).await, held.machine.accelerator() == Accelerator::Kvm);
    held.quit().await;
}

/// Whether a machine runs on KVM, in QEMU's own words.
async fn has_kvm(machine: &Machine) -> bool {
    let said = machine.qmp().call("query-kvm", json!({})).await.unwrap();
    said["enabled"].as_bool().expect("QEMU knows")
}

/// S0-13: what tries KVM is right: where nothing is in doubt its guest comes through.
#[tokio::test]
async fn the_tiny_guest_that_tries_kvm_comes_through_where_it_is_emulated() {
    let qemu = require!(requires::program("qemu-system-x86_64"));
    kvm::run(&qemu, "tcg", Duration::from_secs(60)).await.unwrap();
}
