//! Seal, promote, unseal, fence: who may write when (D7, D8, D11).

use std::io::{BufRead, BufReader, Read, Write};
use std::net::Shutdown;
use std::os::unix::fs::FileExt;
use std::os::unix::net::UnixStream;

use blockd::control::{Command, Request, Sealed, Verify, parse_reply, request_line};
use tests::daemon::Daemon;
use tests::lab::Lab;
use tests::program::{Program, Tool};
use tests::require;
use tests::scratch::first_difference;
use tests::wait::{PATIENCE, wait_for, wait_until};

use super::{MIB, Pair};

fn qemu_io(disk: &Daemon, command: &str) {
    Tool::new("qemu-io").args(["-f", "raw", "-c", command, &disk.uri()]).run();
}

/// Begin a write that is going to be held.
fn held_write(lab: &Lab, disk: &Daemon, command: &str) -> Program {
    let log = lab.scratch.join("held.log");
    Program::start("qemu-io", ["-t", "writeback", "-f", "raw", "-c", command, &disk.uri()], &log)
}

/// The write is still held although reads that came later were answered.
fn assert_held(write: &mut Program, disk: &Daemon) {
    wait_for(PATIENCE, "the write to arrive", || {
        disk.status()["requests"]["in_flight"].as_u64().filter(|n| *n > 0)
    });
    for _ in 0..10 {
        qemu_io(disk, "read 0 64k");
    }
    assert_eq!(write.ended(), None, "{}", write.log());
}

fn assert_done(write: &mut Program) {
    let code = wait_for(PATIENCE, "the held write to be done", || write.ended());
    assert_eq!(code, 0, "{}", write.log());
}

/// A pair that was in step, until its stream was cut; the replica lacks a write of threes at the start.
fn cut_off(lab: &Lab, seed: u64) -> Pair {
    let pair = Pair::start(lab, lab.scratch.patterned("image", 4 * MIB, seed));
    pair.follow();
    pair.reach_barrier();
    pair.relay.set_down(true);
    qemu_io(&pair.source, "write -P 3 0 64k");
    pair
}

#[test]
fn a_sealed_source_holds_writes_answers_reads_and_goes_on_when_unsealed() {
    let lab = require!(Lab::with(&["qemu-io"]));
    let pair = Pair::start(&lab, lab.scratch.patterned("image", 8 * MIB, 31));
    pair.follow();
    pair.seal_and_compare(1);
    let mut write = held_write(&lab, &pair.source, "write -P 9 1M 64k");
    assert_held(&mut write, &pair.source);
    pair.source.ctl(&["unseal"]);
    assert_done(&mut write);
    qemu_io(&pair.source, "read -P 9 1M 64k");
    // And the replica follows again.
    pair.seal_and_compare(2);
}

#[test]
fn a_destination_answers_reads_and_holds_writes_until_it_is_promoted() {
    let lab = require!(Lab::with(&["qemu-io"]));
    let image = lab.scratch.sparse("image", 8 * MIB);
    let pair = Pair::start(&lab, image);
    pair.follow();
    qemu_io(&pair.source, "write -P 5 0 64k");
    pair.reach_barrier();
    qemu_io(&pair.destination, "read -P 5 0 64k");
    let mut write = held_write(&lab, &pair.destination, "write -P 6 1M 64k");
    assert_held(&mut write, &pair.destination);
    pair.seal_and_compare(1);
    assert_held(&mut write, &pair.destination);
    pair.destination.ctl(&["promote", "--generation", "1"]);
    assert_done(&mut write);
    qemu_io(&pair.destination, "read -P 6 1M 64k");
    qemu_io(&pair.destination, "write -P 7 2M 64k");
}

#[test]
fn promoting_before_the_seal_is_refused_and_so_is_another_generation() {
    let lab = require!(Lab::with(&[]));
    let pair = Pair::start(&lab, lab.scratch.patterned("image", 4 * MIB, 32));
    pair.follow();
    pair.reach_barrier();
    let said = pair.destination.ctl_refused(&["promote", "--generation", "1"]);
    assert!(said.contains("seal"), "{said}");
    pair.seal_and_compare(1);
    pair.destination.ctl_refused(&["promote", "--generation", "2"]);
    pair.destination.ctl(&["promote", "--generation", "1"]);
}

#[test]
fn one_byte_that_differs_at_the_destination_fails_the_seal_and_is_named_and_repaired() {
    const AT: u64 = 5 * MIB + 123;
    let lab = require!(Lab::with(&[]));
    let pair = Pair::start(&lab, lab.scratch.patterned("image", 16 * MIB, 33));
    pair.follow();
    pair.reach_barrier();
    let copy = std::fs::File::options().read(true).write(true).open(&pair.destination_image).expect("open");
    let mut byte = [0];
    copy.read_exact_at(&mut byte, AT).expect("read a byte");
    copy.write_all_at(&[byte[0] ^ 1], AT).expect("flip a bit");
    copy.sync_all().expect("write it through");
    let said = pair.source.ctl_refused(&["seal", "--generation", "1", "--verify", "all"]);
    // The leaf of 64 KiB in which it lies.
    assert!(said.contains(&(5 * MIB).to_string()), "{said}");
    pair.source.ctl(&["repair"]);
    pair.seal_and_compare(1);
}

#[test]
fn a_seal_answers_how_many_leaves_it_compared_also_when_it_is_asked_for_again() {
    let lab = require!(Lab::with(&["qemu-io"]));
    let pair = Pair::start(&lab, lab.scratch.patterned("image", 4 * MIB, 37));
    pair.follow();
    pair.reach_barrier();
    wait_until(PATIENCE, "every leaf to be compared", || {
        pair.source.status()["replication"]["stale_leaves"] == 0
    });
    // Nothing that is written now can be compared before the seal.
    pair.relay.set_down(true);
    qemu_io(&pair.source, "write -P 3 0 64k");
    qemu_io(&pair.source, "write -P 4 1M 128k");
    let mut asker = BufReader::new(begin_seal(&pair.source));
    pair.relay.set_down(false);
    let mut line = Vec::new();
    asker.read_until(b'\n', &mut line).expect("hear that it is sealed");
    let (_, said) = parse_reply(&line).expect("a reply");
    let sealed: Sealed = serde_json::from_value(said.expect("it is sealed")).expect("what a seal answers");
    let compared = (sealed.compared_leaves, sealed.compared_before_leaves);
    assert_eq!((sealed.sealed, compared), (1, (Some(3), Some(61))));
    assert!(sealed.took_ms.is_some());
    assert_eq!(first_difference(&pair.source_image, &pair.destination_image), None);

    let again: Sealed =
        serde_json::from_value(pair.source.ctl(&["seal", "--generation", "1"])).expect("the same");
    assert_eq!(again, Sealed { took_ms: None, ..sealed });
    pair.source.ctl(&["unseal"]);
    let all = pair.source.ctl(&["seal", "--generation", "2", "--verify", "all"]);
    assert_eq!((&all["compared_leaves"], &all["compared_before_leaves"]), (&64.into(), &0.into()));
}

#[test]
fn a_seal_without_its_replica_is_refused_in_its_time_and_writes_go_on() {
    let lab = require!(Lab::with(&["qemu-io"]));
    let pair = cut_off(&lab, 34);
    pair.source.ctl_refused(&["seal", "--generation", "1", "--timeout-ms", "300"]);
    qemu_io(&pair.source, "write -P 4 0 64k");
    pair.relay.set_down(false);
    pair.seal_and_compare(1);
}

/// Ask for a seal that takes until somebody ends it, and wait until the disk's writes are held for it.
fn begin_seal(disk: &Daemon) -> UnixStream {
    let mut asker = UnixStream::connect(disk.control()).expect("connect to a daemon");
    let command = Command::Seal { generation: 1, verify: Verify::Stale, timeout_ms: 3_600_000 };
    asker.write_all(&request_line(&Request { id: 1, command })).expect("ask for a seal");
    wait_until(PATIENCE, "the seal to be under way", || disk.status()["replication"]["sealing"] == true);
    asker
}

/// What is answered to somebody who asks for nothing more.
fn last_word(mut asker: UnixStream) -> String {
    asker.shutdown(Shutdown::Write).expect("say no more");
    let mut said = String::new();
    asker.read_to_string(&mut said).expect("hear what became of it");
    said
}

/// The guest does not wait for a handover that was given up, by a word or by the end of who wanted it.
#[test]
fn a_seal_under_way_ends_by_an_unseal_and_with_whoever_asked_for_it_and_writes_go_on() {
    let lab = require!(Lab::with(&["qemu-io"]));
    let pair = cut_off(&lab, 35);

    let asker = begin_seal(&pair.source);
    let mut write = held_write(&lab, &pair.source, "write -P 4 0 64k");
    assert_held(&mut write, &pair.source);
    pair.source.ctl_refused(&["record", "off"]);
    pair.source.ctl_refused(&["seal", "--generation", "1"]);
    pair.source.ctl(&["unseal"]);
    assert_done(&mut write);
    let said = last_word(asker);
    assert!(said.contains("the disk was unsealed before the seal was complete"), "{said}");

    let asker = begin_seal(&pair.source);
    let mut write = held_write(&lab, &pair.source, "write -P 5 0 64k");
    assert_held(&mut write, &pair.source);
    asker.shutdown(Shutdown::Write).expect("say no more");
    assert_held(&mut write, &pair.source);
    drop(asker);
    assert_done(&mut write);
    assert_eq!(pair.source.status()["replication"]["sealing"], false);
    pair.relay.set_down(false);
    pair.seal_and_compare(1);
}

/// D11: neither does the end of its seal let writes through to a disk that was given up meanwhile.
#[test]
fn a_disk_that_is_given_up_while_it_is_being_sealed_takes_no_write_afterwards() {
    let lab = require!(Lab::with(&["qemu-io"]));
    let pair = cut_off(&lab, 36);
    let asker = begin_seal(&pair.source);
    let mut write = held_write(&lab, &pair.source, "write -P 4 0 64k");
    assert_held(&mut write, &pair.source);
    pair.source.ctl(&["revoke", "--generation", "1", "--moved-to", "there"]);
    let said = last_word(asker);
    assert!(said.contains("error"), "{said}");
    assert_held(&mut write, &pair.source);
    qemu_io(&pair.source, "read -P 3 0 64k");
}
