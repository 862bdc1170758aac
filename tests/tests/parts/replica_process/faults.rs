//! A replica's disk fails for a while: what it could not take is sent again, also to who seems to have it.

use std::time::{Duration, Instant};

use tests::disk::FaultyDisk;
use tests::lab::Lab;
use tests::program::Tool;
use tests::require;
use tests::requires;
use tests::scratch::first_difference;
use tests::wait::{PATIENCE, wait_until};

use super::{MIB, Pair};

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
