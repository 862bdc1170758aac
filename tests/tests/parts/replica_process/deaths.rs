//! Either end dies, the stream is cut: the replica converges, and nobody who writes has seen an error.

use std::fs::File;
use std::path::PathBuf;

use tests::disk::SmallDisk;
use tests::guest::{Kit, Target};
use tests::lab::Lab;
use tests::program::Tool;
use tests::require;
use tests::requires;
use tests::scratch::fill;
use tests::wait::{PATIENCE, wait_until};

use super::writes::Writes;
use super::{MIB, Pair};

/// A sparse image with some data in it.
fn image(lab: &Lab) -> PathBuf {
    let image = lab.scratch.sparse("image", 64 * MIB);
    fill(&image, 2 * MIB, 9 * MIB, 21);
    fill(&image, 60 * MIB + 4096, MIB, 22);
    image
}

/// S4-12 (made with the same size), S4-75.
#[test]
fn a_sparse_image_arrives_whole_and_as_sparse() {
    let lab = require!(Lab::with(&["qemu-io"]));
    let pair = Pair::start(&lab, image(&lab));
    pair.follow();
    pair.reach_barrier();
    // S4-15, S4-75: data, zeroes and holes that come later.
    let commands =
        ["write -P 1 20M 1M", "write -z 4M 64k", "discard 5M 2M", "write -z -u 8M 1M", "write -P 2 21M 512"];
    let commands = commands.iter().flat_map(|command| ["-c", command]);
    Tool::new("qemu-io").args(["-f", "raw", "-d", "unmap"]).args(commands).arg(pair.source.uri()).run();
    pair.seal_and_compare(1);
}

/// Five times something dies under writes; then nothing is missing at the replica.
fn converges_whatever_dies(dies: impl Fn(&mut Pair)) {
    let lab = require!(Lab::with(&[]));
    let mut pair = Pair::start(&lab, image(&lab));
    pair.follow();
    let writes = Writes::begin(pair.source.nbd());
    for _ in 0..5 {
        writes.wait_for(500);
        dies(&mut pair);
    }
    writes.wait_for(500);
    writes.end();
    pair.seal_and_compare(1);
}

/// S4-13 (the bulk copy goes on where it was).
#[test]
fn the_replica_converges_when_the_destination_is_killed_under_writes() {
    converges_whatever_dies(|pair| {
        pair.destination.kill_child();
    });
}

/// S4-13, S4-31, D10.
#[test]
fn the_replica_converges_when_the_source_is_killed_under_writes() {
    converges_whatever_dies(|pair| {
        pair.source.kill_child();
        // Whoever asked for the replica asks again; what it lacks is in the sidecar (D10).
        pair.follow();
    });
}

/// S4-17, D4, D13.
#[test]
fn the_replica_converges_over_a_stream_that_is_cut_at_any_byte() {
    let lab = require!(Lab::with(&[]));
    let pair = Pair::start(&lab, image(&lab));
    let seed = u64::from(std::process::id());
    pair.relay.cut_at_random(seed, 400 << 10);
    pair.follow();
    let writes = Writes::begin(pair.source.nbd());
    wait_until(PATIENCE, "eight connections to be made and cut", || pair.relay.connections() >= 8);
    // D5: the guest's writes go on while the link is down altogether.
    pair.relay.set_down(true);
    writes.wait_for(2000);
    pair.relay.set_down(false);
    writes.wait_for(500);
    pair.relay.stop_cutting();
    writes.end();
    pair.seal_and_compare(1);
}

/// S4-05, S4-31.
#[test]
fn a_guest_does_not_notice_the_deaths_of_both_ends_and_both_disks_hold_what_it_wrote() {
    const SLOTS: u64 = 512;
    let lab = require!(Lab::with(&[]));
    let kit = require!(Kit::find());
    let blank = lab.scratch.sparse("image", 16 * MIB);
    let mut pair = Pair::start(&lab, blank);
    pair.follow();
    let mut guest = kit.boot(&lab.scratch, "guest", pair.source.nbd(), Target::Raw, SLOTS);
    for _ in 0..2 {
        guest.wait_for_writes(40);
        pair.source.kill_child();
        pair.follow();
        guest.wait_for_writes(40);
        pair.destination.kill_child();
    }
    guest.wait_for_writes(40);
    assert_eq!((guest.qmp.status().as_str(), guest.qmp.count("BLOCK_IO_ERROR")), ("running", 0));
    let acknowledged = guest.switch_off();
    pair.seal_and_compare(1);
    kit.verify(&pair.source_image, SLOTS, acknowledged);
    kit.verify(&pair.destination_image, SLOTS, acknowledged);
}

/// S4-22 (writes race the switch), S4-23.
#[test]
fn recording_goes_on_and_off_under_fio_without_an_error() {
    let lab = require!(Lab::with(&["fio"]));
    let pair = Pair::start(&lab, image(&lab));
    // S4-23.
    let uri = format!("--uri={}", pair.source.uri());
    let words =
        ["--name=switched", "--ioengine=nbd", "--rw=randrw", "--iodepth=16", "--bssplit=4k/70:64k/30"];
    let verify = ["--size=64m", "--loops=2", "--verify=crc32c", "--verify_fatal=1", "--verify_backlog=128"];
    let fio = std::thread::scope(|scope| {
        let directory = lab.scratch.path();
        let run = move || Tool::new("fio").current_dir(directory).args(words).args(verify).arg(uri).run();
        let fio = scope.spawn(run);
        let mut switches = 0;
        while !fio.is_finished() {
            pair.source.ctl(&["record", if switches % 2 == 0 { "on" } else { "off" }]);
            switches += 1;
        }
        assert!(switches > 4, "fio was gone after {switches} switches");
        fio.join()
    });
    fio.expect("fio saw no error");
    pair.follow();
    pair.seal_and_compare(1);
}

#[test]
fn a_full_disk_under_recording_fails_the_write_and_kills_nobody() {
    let lab = require!(Lab::with(&["qemu-io"]));
    require!(requires::root());
    let small = SmallDisk::new(&lab.scratch, 8 * MIB);
    let image = small.path().join("image");
    File::create(&image).and_then(|file| file.set_len(512 * MIB)).expect("make an image");
    let source = lab.serve("source", &image).start();
    source.ctl(&["record", "on"]);
    let before = source.serving_pid();
    // The sidecar lies on the same full disk: where it is mapped, it must have its space already (D10).
    let write =
        |at: &str| Tool::new("qemu-io").args(["-f", "raw", "-c", &format!("write {at} 32M"), &source.uri()]);
    for at in ["0", "256M", "480M"] {
        let said = write(at).refused();
        assert!(said.contains("No space left"), "{said}");
    }
    assert_eq!(source.serving_pid(), before, "{}", source.log());
}

/// S4-17, D5: nothing waits for a link that is down, and what piles up stays within its budget.
#[test]
fn a_link_that_is_down_stalls_no_write_and_the_queue_stays_within_its_budget() {
    let lab = require!(Lab::with(&["qemu-img"]));
    let budget_bytes = 1 << 20;
    let pair =
        Pair::start_with(&lab, lab.scratch.patterned("image", 32 * MIB, 48), &["--delta-budget", "1M"]);
    pair.follow();
    pair.reach_barrier();
    pair.relay.set_down(true);
    let writes = ["bench", "-w", "-f", "raw", "-t", "none", "-s", "4096", "-d", "16", "-c", "4000"];
    Tool::new("qemu-img").args(writes).arg(pair.source.uri()).run();
    let replication = &pair.source.status()["replication"];
    let number = |name: &str| replication[name].as_u64().unwrap_or_else(|| panic!("no {name}"));
    assert!(number("queued_bytes") <= budget_bytes, "{replication}");
    assert!(
        number("queued_deltas") > 0 && number("dirty_blocks") > 0,
        "both places are in use: {replication}"
    );
    assert_eq!(number("deltas_total"), 4000);
    pair.relay.set_down(false);
    pair.seal_and_compare(1);
}
