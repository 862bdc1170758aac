//! A replica's disk fails for a while: what it could not take is sent again, also to who seems to have it.

use std::time::{Duration, Instant};

use tests::disk::{FaultyDisk, SmallDisk};
use tests::lab::Lab;
use tests::program::Tool;
use tests::require;
use tests::requires;
use tests::scratch::first_difference;
use tests::wait::{PATIENCE, wait_until};

use super::{MIB, Pair};
use crate::foreign_clients::nbdsh;

/// What could not be written is still in the page cache, and counts as written there: it must not pass for the disk when
/// the next attempt compares.
#[test]
fn what_a_failing_disk_did_not_take_is_on_it_after_the_next_attempt() {
    let lab = require!(Lab::with(&["nbdkit", "nbdfuse", "qemu-io"]));
    require!(requires::root());
    let faulty = FaultyDisk::new(&lab.scratch, 128 * MIB, 0);
    let image = lab.scratch.patterned("image", 24 * MIB, 61);
    let pair = Pair::start_at(&lab, image, &faulty.path().join("copy"), &[]);
    pair.follow();
    pair.reach_barrier();
    faulty.fail_writes(true);
    Tool::new("qemu-io").args(["-f", "raw", "-c", "write -P 7 8M 4M", &pair.source.uri()]).run();
    wait_until(PATIENCE, "the replica to fail", || pair.destination.log().contains("cannot make it durable"));
    // There is a pause before each attempt, and it grows.
    let (before, since) = (pair.relay.connections(), Instant::now());
    wait_until(PATIENCE, "further attempts", || pair.relay.connections() >= before + 8);
    assert!(since.elapsed() >= Duration::from_secs(1), "eight attempts within {:?}", since.elapsed());

    // As after a move that was given up for that: all that is known of the copy is what it holds.
    pair.source.ctl(&["record", "off"]);
    faulty.fail_writes(false);
    pair.follow();
    pair.seal_and_compare(1);
    faulty.drop_cache(&pair.destination_image);
    assert_eq!(first_difference(&pair.source_image, &pair.destination_image), None, "on the disk itself");
}

/// Every other attempt ends by a broken pipe, which says nothing.
#[test]
fn the_reason_of_a_replica_that_is_full_stays_until_there_is_room() {
    let lab = require!(Lab::with(&[]));
    require!(requires::root());
    let small = SmallDisk::new(&lab.scratch, 8 * MIB);
    let image = lab.scratch.patterned("image", 24 * MIB, 62);
    let pair = Pair::start_at(&lab, image, &small.path().join("copy"), &[]);
    pair.follow();
    let reason = || pair.source.status()["replication"]["last_error"].as_str().unwrap_or_default().to_owned();
    wait_until(PATIENCE, "the replica to be full", || reason().contains("No space left"));
    let before = pair.relay.connections();
    wait_until(PATIENCE, "further attempts", || {
        let said = reason();
        assert!(said.is_empty() || said.contains("No space left"), "{said}");
        pair.relay.connections() >= before + 3
    });
    let said = pair.source.ctl_refused(&["seal", "--generation", "1", "--timeout-ms", "300"]);
    assert!(said.contains("No space left"), "{said}");
}

/// One delta for each piece, and each of them in its place (D1 to D3).
#[test]
fn writes_longer_than_any_buffer_reach_the_replica_while_they_overlap() {
    let lab = require!(Lab::with(&["nbdsh"]));
    let image = lab.scratch.patterned("image", 40 * MIB, 63);
    let pair = Pair::start_with(&lab, image, &["--delta-budget", "4M"]);
    pair.follow();
    nbdsh(&pair.source, include_str!("long_writes.py"));
    pair.reach_barrier();
    pair.source.ctl(&["seal", "--generation", "1", "--verify", "all"]);
    assert_eq!(first_difference(&pair.source_image, &pair.destination_image), None);
}
