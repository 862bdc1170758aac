//! What is served as what: a fenced image, an unpromoted replica, somebody else's image (D11, D13).

use tests::lab::Lab;
use tests::program::Tool;
use tests::require;
use tests::scratch::first_difference;

use super::{DISK_ID, MIB, Pair, destination};

#[test]
fn a_fenced_image_is_refused_by_the_running_and_by_every_later_daemon() {
    let lab = require!(Lab::with(&[]));
    let image = lab.scratch.patterned("image", 4 * MIB, 41);
    let mut pair = Pair::start(&lab, image.clone());
    pair.follow();
    pair.seal_and_compare(1);
    pair.destination.ctl(&["promote", "--generation", "1"]);
    pair.source.ctl(&["fence", "--generation", "1", "--moved-to", "the-other-site"]);
    pair.source.ctl_refused(&["unseal"]);
    pair.source.shut_down();
    let said = lab.serve("again", &image).flags(DISK_ID).refused();
    assert!(said.contains("the-other-site"), "the message says where the disk is: {said}");
}

#[test]
fn an_unpromoted_replica_is_not_served_as_a_disk() {
    let lab = require!(Lab::with(&[]));
    let mut pair = Pair::start(&lab, lab.scratch.patterned("image", 4 * MIB, 42));
    pair.follow();
    pair.reach_barrier();
    pair.destination.shut_down();
    let said = lab.serve("disk", &pair.destination_image).flags(DISK_ID).refused();
    assert!(said.contains("replica"), "{said}");
}

#[test]
fn a_strangers_image_is_never_overwritten() {
    let lab = require!(Lab::with(&[]));
    let [theirs, before] = ["theirs", "before"].map(|name| lab.scratch.patterned(name, 4 * MIB, 43));
    let said = destination(&lab, "destination", &theirs, 4 * MIB).refused();
    assert!(said.contains("theirs"), "{said}");
    assert_eq!(first_difference(&theirs, &before), None);
}

#[test]
fn an_image_that_is_claimed_becomes_a_replica_whatever_it_held() {
    let lab = require!(Lab::with(&[]));
    let mut pair = Pair::start(&lab, lab.scratch.patterned("image", 4 * MIB, 49));
    pair.destination.shut_down();
    std::fs::remove_file(pair.destination_image.with_file_name("copy.blockd")).expect("remove a sidecar");
    lab.scratch.patterned("copy", 4 * MIB, 50);
    pair.destination =
        destination(&lab, "destination", &pair.destination_image, 4 * MIB).flags(["--claim"]).start();
    pair.follow();
    pair.seal_and_compare(1);
}

#[test]
fn a_replica_of_another_disk_is_not_overwritten() {
    let lab = require!(Lab::with(&[]));
    let mut pair = Pair::start(&lab, lab.scratch.patterned("image", 4 * MIB, 44));
    pair.follow();
    pair.seal_and_compare(1);
    // Another guest's disk comes to the same destination.
    let other = lab.scratch.patterned("other", 4 * MIB, 45);
    let stranger = lab.serve("other", &other).flags(["--disk-id", "mail"]).start();
    stranger.ctl(&["record", "on"]);
    // Refused at once or by its session: in no case does anything arrive.
    let _ = stranger.try_ctl(&["replicate", &pair.relay.path().to_string_lossy()]);
    stranger.ctl_refused(&["barrier", "--timeout-ms", "1000"]);
    pair.destination.shut_down();
    assert_eq!(first_difference(&pair.source_image, &pair.destination_image), None);
}

#[test]
fn a_replica_that_was_thrown_away_is_made_anew() {
    let lab = require!(Lab::with(&[]));
    let mut pair = Pair::start(&lab, lab.scratch.patterned("image", 4 * MIB, 46));
    pair.follow();
    pair.reach_barrier();
    pair.destination.shut_down();
    let sidecar = pair.destination_image.with_file_name("copy.blockd");
    for path in [&pair.destination_image, &sidecar] {
        std::fs::remove_file(path).expect("throw the replica away");
    }
    pair.destination = destination(&lab, "destination", &pair.destination_image, 4 * MIB).start();
    pair.seal_and_compare(1);
}

#[test]
fn an_older_copy_of_the_replica_is_brought_up_to_date() {
    let lab = require!(Lab::with(&["qemu-io"]));
    let mut pair = Pair::start(&lab, lab.scratch.patterned("image", 4 * MIB, 47));
    pair.follow();
    pair.reach_barrier();
    pair.destination.shut_down();
    let sidecar = pair.destination_image.with_file_name("copy.blockd");
    let kept = [pair.destination_image.clone(), sidecar]
        .map(|path| (std::fs::read(&path).expect("keep a copy"), path));
    let image = pair.destination_image.clone();
    let restart = || destination(&lab, "destination", &image, 4 * MIB).start();
    pair.destination = restart();
    let socket = pair.source.uri();
    Tool::new("qemu-io").args(["-f", "raw", "-c", "write -P 9 1M 1M", &socket]).run();
    pair.reach_barrier();
    pair.destination.shut_down();
    for (bytes, path) in kept {
        std::fs::write(path, bytes).expect("put the old copy back");
    }
    pair.destination = restart();
    pair.seal_and_compare(1);
}
