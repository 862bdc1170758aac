//! What shows that a guest is at its new place: real pings and ARP, of a guest that answers both, one, or none.

use std::time::Duration;

use tests::tunnel_world::{GUEST_MAC, World};
use tests::wait::PATIENCE;
use tests::{require, requires};
use tunnel::io::presence::{Patience, Seen, seen};
use tunnel::transfer::Mac;

use super::ends::{NEW, OLD, prepare_both, switch};

/// The first answer comes in time on any machine; what does not come is not waited for.
fn patience(is_answered: bool) -> Patience {
    let silent = Duration::from_millis(200);
    Patience { new: if is_answered { PATIENCE } else { silent }, own: silent, arp: PATIENCE }
}

#[test]
fn a_guest_is_seen_where_its_users_look_for_it_or_at_least_by_its_card() {
    require!(requires::root());
    require!(requires::program("nft"));
    let world = World::new();
    let (at_a, at_b) = prepare_both(&world);
    switch(&world.site_a, &at_a);
    switch(&world.site_b, &at_b);
    world.move_guest(true);
    let look =
        |mac: [u8; 6], patience| world.site_b.block_on(move || seen("br0", Mac(mac), OLD, NEW, patience));
    // At the new address, as users reach it (S4-42).
    assert!(matches!(look(GUEST_MAC, patience(true)), Seen::Answers(_)));

    // A guest that answers no ping, as Windows does, or one behind a firewall of its own.
    world.guest.set("icmp_echo_ignore_all", 1);
    assert!(matches!(look(GUEST_MAC, patience(false)), Seen::HasAddress(_)));
    // Another card that answers for the address is no proof.
    assert_eq!(look([0x52, 0x54, 0, 0, 0, 9], patience(false)), Seen::Nothing);

    // Its users would not reach it, although it is there.
    world.guest.set("icmp_echo_ignore_all", 0);
    world.site_b.program("nft", "delete table ip move7");
    assert_eq!(look(GUEST_MAC, Patience { own: PATIENCE, ..patience(false) }), Seen::OnlyAtOwnAddress);

    world.guest.ip("link set atB down");
    let short = Duration::from_millis(200);
    assert_eq!(look(GUEST_MAC, Patience { arp: short, ..patience(false) }), Seen::Nothing);
}
