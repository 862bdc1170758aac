//! A guest moves between two hosts of the same machine by hand, with nothing but what `Machine` gives: memory goes
//! from QEMU to QEMU, the disk from daemon to daemon.

use std::collections::BTreeMap;
use std::time::Duration;

use blockd::control::{Command, Verify};
use blockd::replica::encoding::Compression;
use migrated::io::machine::{DiskRoles, Machine, Start};
use migrated::io::qmp::{Qmp, QmpError};
use migrated::qmp::RunState;
use serde_json::json;
use tests::require;
use tests::wait::PATIENCE;

use super::ground::{Ground, Held};

const SEAL_TIMEOUT_MS: u64 = 30_000;
const LOOKED_EVERY: Duration = Duration::from_millis(10);

/// A destination whose disk is a copy of `source`'s.
async fn destination(there: &Ground, source: &Held) -> Held {
    let sizes = BTreeMap::from([("root".to_owned(), 16 << 20)]);
    let guest = source.machine.guest();
    let machine = Machine::start(&there.config, guest, Start::Incoming, DiskRoles::Replica(sizes)).await;
    let held = Held::new(machine.expect("a destination starts"));
    assert_eq!(held.machine.state().await.unwrap(), RunState::InMigrate);
    let to = held.machine.disks()[0].places().replica.clone();
    source.machine.disks()[0].call(Command::Replicate { to, compression: Compression::Auto }).await.unwrap();
    held
}

/// Sends the memory; comes back when QEMU waits for the last disk delta.
async fn send_memory(source: &Qmp, destination: &Held) {
    let stream = destination.machine.layout().runtime().join("ram");
    let capabilities = [("events", true), ("pause-before-switchover", true)];
    source.set_capabilities(&capabilities).await.unwrap();
    destination
        .machine
        .qmp()
        .set_capabilities(&[("events", true), ("late-block-activate", true)])
        .await
        .unwrap();
    destination.machine.qmp().migrate_incoming(&stream).await.unwrap();
    source.set_parameters(json!({ "max-bandwidth": 1_000_000_000, "downtime-limit": 300 })).await.unwrap();
    let events = source.events();
    source.migrate(&stream).await.unwrap();
    wait_for(source, events, "pre-switchover").await;
}

async fn wait_for(
    qmp: &Qmp,
    mut events: tokio::sync::broadcast::Receiver<migrated::qmp::Event>,
    status: &str,
) {
    let waiting = async {
        loop {
            let event = events.recv().await.expect("QEMU lives");
            if event.name == "MIGRATION" && event.word("status") == status {
                return;
            }
        }
    };
    let waited = tokio::time::timeout(PATIENCE, waiting).await;
    assert!(waited.is_ok(), "no {status}; it is {:?}", qmp.query_migrate().await);
}

/// S2-02, S2-11, S2-20, S2-42: whoever was paused is paused there, and has lost nothing.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_guest_moves_with_its_disk_and_its_memory() {
    let here = require!(Ground::new());
    let there = here.neighbour();
    let guest = here.guest("mover");
    let source = here.start(&guest, Start::Boot).await;
    source.wait_for_writes(20);
    let destination = destination(&there, &source).await;
    send_memory(source.machine.qmp(), &destination).await;
    let sealed = Command::Seal { generation: 1, verify: Verify::All, timeout_ms: SEAL_TIMEOUT_MS };
    source.machine.disks()[0].call(sealed).await.unwrap();
    let events = source.machine.qmp().events();
    source.machine.qmp().migrate_continue("pre-switchover").await.unwrap();
    wait_for(source.machine.qmp(), events, "completed").await;
    let progress = source.machine.qmp().query_migrate().await.unwrap();
    assert!(progress.ram.total > 128 << 20 && progress.ram.transferred > 0, "{progress:?}");
    assert!(progress.ram.dirty_sync_count >= 2, "{progress:?}");
    // The source is through first.
    let arriving =
        destination.machine.qmp().migration_until(LOOKED_EVERY, |found| found.status == "completed");
    tokio::time::timeout(PATIENCE, arriving).await.expect("it arrives").unwrap();
    assert_eq!(destination.machine.state().await.unwrap(), RunState::Paused);

    let fence = Command::Fence { generation: 1, moved_to: "there".into() };
    source.machine.disks()[0].call(fence).await.unwrap();
    destination.machine.disks()[0].call(Command::Promote { generation: 1 }).await.unwrap();
    let acknowledged = source.acknowledged();
    source.quit().await;
    here.assert_clean("mover");
    destination.machine.cont().await.unwrap();
    // Its console is a new file, and the first number on it is the next one.
    destination.wait_for_writes(acknowledged + 20);
    destination.machine.pause().await.unwrap();
    let later = destination.acknowledged();
    destination.quit().await;
    there.verify("mover", later);

    // What moved away does not start here again, and blockd's reason is handed on.
    let again = Machine::start(&here.config, &guest, Start::Boot, DiskRoles::Primary).await.unwrap_err();
    assert!(again.to_string().contains("moved to there"), "{again}");
    here.assert_clean("mover");
}

/// A device that was plugged in or out meanwhile would be missing at the destination, or be there alone.
async fn insist_that_nothing_is_plugged(source: &Qmp) {
    let plugs = [
        ("device_add", json!({ "driver": "virtio-balloon-pci", "id": "late" })),
        ("device_del", json!({ "id": "root" })),
    ];
    for (command, arguments) in plugs {
        let refused = source.call(command, arguments).await.unwrap_err().to_string();
        assert!(refused.contains("migrating"), "{refused}");
    }
}

/// The guest goes on at the source when the destination dies, and both ends can be told.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_destination_that_dies_is_noticed_at_once_and_the_source_goes_on() {
    let here = require!(Ground::new());
    let there = here.neighbour();
    let source = here.start(&here.guest("stays"), Start::Boot).await;
    source.wait_for_writes(5);
    let destination = destination(&there, &source).await;
    send_memory(source.machine.qmp(), &destination).await;
    insist_that_nothing_is_plugged(source.machine.qmp()).await;
    tests::program::signal(destination.machine.pid(), nix::sys::signal::Signal::SIGKILL);
    destination.machine.ended().await;
    let asked = destination.machine.state().await;
    assert!(matches!(asked, Err(QmpError::Closed { .. })), "{asked:?}");
    source.machine.qmp().migrate_cancel().await.unwrap();
    source.wait_for_writes(5);
    assert_eq!(source.machine.state().await.unwrap(), RunState::Running);
    destination.quit().await;
    there.assert_clean("stays");
    source.quit().await;
}
