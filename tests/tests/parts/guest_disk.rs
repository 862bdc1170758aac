//! A real guest whose disk is ours: it boots from it, writes to it, and does not notice when the daemon is
//! killed under it (S4-10, S4-31).

use tests::daemon::Daemon;
use tests::guest::{Guest, Kit, Target};
use tests::initramfs;
use tests::lab::Lab;
use tests::require;

const MIB: u64 = 1 << 20;

/// Blocks that the guest's writer goes round.
const SLOTS: u64 = 512;

/// Kill the serving process under the writing guest, several times, each after some progress.
fn kill_under(guest: &mut Guest, disk: &mut Daemon, times: u32) {
    for _ in 0..times {
        guest.wait_for_writes(40);
        disk.kill_child();
    }
    guest.wait_for_writes(40);
    // The guest has seen a stall and no error: with one, QEMU would have stopped it.
    assert_eq!(guest.qmp.status(), "running");
    assert_eq!((guest.qmp.count("BLOCK_IO_ERROR"), guest.qmp.count("STOP")), (0, 0));
}

/// S4-05, S4-10, S4-30, S4-31: interception is all in the process that is killed.
#[test]
fn a_guest_writes_through_the_death_of_its_disk_server_and_nothing_is_lost() {
    let lab = require!(Lab::with(&[]));
    let kit = require!(Kit::find());
    let image = lab.scratch.sparse("image", 16 * MIB);
    let mut disk = lab.serve("disk", &image).start();
    let mut guest = kit.boot(&lab.scratch, "guest", disk.nbd(), Target::Raw, SLOTS);
    kill_under(&mut guest, &mut disk, 5);
    let acknowledged = guest.switch_off();
    drop(disk);
    assert!(acknowledged >= 6 * 40, "{acknowledged}");
    kit.verify(&image, SLOTS, acknowledged);
}

#[test]
fn a_guest_runs_with_its_root_on_the_disk_and_the_file_system_is_whole_after_a_power_cut() {
    let lab = require!(Lab::with(&[]));
    let kit = require!(Kit::find());
    let image = lab.scratch.join("image");
    initramfs::build_root(&image, 64 * MIB, &kit.writer);
    let mut disk = lab.serve("disk", &image).flags(["--data-plane", "pool"]).start();
    let mut guest = kit.boot(&lab.scratch, "guest", disk.nbd(), Target::Root, SLOTS);
    kill_under(&mut guest, &mut disk, 1);
    let acknowledged = guest.switch_off();
    drop(disk);
    kit.verify_root(&lab.scratch, &image, SLOTS, acknowledged);
}
