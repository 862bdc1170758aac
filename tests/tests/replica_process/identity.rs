//! What is served as what: a fenced image, an unpromoted replica, somebody else's image (D11, D13).

use tests::lab::Lab;
use tests::require;
use tests::scratch::first_difference;

use crate::{DISK_ID, MIB, Pair, destination};

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
