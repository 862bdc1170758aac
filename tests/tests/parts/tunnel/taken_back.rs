//! What is switched back or removed leaves nothing, also after a crash, and beside another tunnel.

use std::net::Ipv4Addr;

use tests::tunnel_world::World;
use tests::{require, requires};
use tunnel::{Move, Side};

use super::ends::{
    OLD, Session, both, changed, prepare, prepare_both, remove, serve_echo, site_b, switch, switch_back,
};

#[test]
fn switched_back_and_removed_everything_is_as_it_was() {
    require!(requires::root());
    require!(requires::program("nft"));
    let world = World::new();
    serve_echo(&world.guest);
    let mut from_client = Session::open(&world.client, OLD);
    let mut from_lan = Session::open(&world.neighbour, OLD);
    // Numbers that are nobody's defaults.
    world.site_a.set("neigh/br0/proxy_delay", 36);
    world.site_b.set("neigh/br0/proxy_delay", 44);
    let before = both(&world);

    let (at_a, at_b) = prepare_both(&world);
    // Never switched: nothing happens.
    switch_back(&world.site_a, &at_a);
    for _ in 0..2 {
        let prepared = both(&world);
        switch(&world.site_a, &at_a);
        switch(&world.site_b, &at_b);
        assert_ne!(changed(&prepared, &both(&world)), [""; 0]);
        switch_back(&world.site_b, &at_b);
        switch_back(&world.site_a, &at_a);
        assert_eq!(changed(&prepared, &both(&world)), [""; 0]);
        // The neighbour was told twice where the guest is.
        assert_eq!(
            (from_client.say("back").as_str(), from_lan.say("back").as_str()),
            ("192.0.2.9", "10.1.0.50")
        );
        assert_eq!(Session::open(&world.neighbour, OLD).say("new"), "10.1.0.50");
    }
    // Removed in the middle of it, and once more.
    switch(&world.site_a, &at_a);
    switch(&world.site_b, &at_b);
    for _ in 0..2 {
        remove(&world.site_a, &at_a);
        remove(&world.site_b, &at_b);
        assert_eq!(changed(&before, &both(&world)), [""; 0]);
    }
    assert_eq!(from_client.say("removed"), "192.0.2.9");
}

#[test]
fn after_a_crash_the_id_is_enough() {
    require!(requires::root());
    require!(requires::program("nft"));
    let world = World::new();
    let before = both(&world);
    for _ in 0..2 {
        // The second time over what the first has left.
        let (at_a, at_b) = prepare_both(&world);
        switch(&world.site_a, &at_a);
        switch(&world.site_b, &at_b);
    }
    let found = world.site_b.block_on(tunnel::io::tunnel::existing).unwrap();
    assert_eq!(found, [(Side::Destination, site_b())]);
    for site in [&world.site_a, &world.site_b] {
        site.block_on(|| tunnel::remove_leftovers(7)).unwrap();
        site.block_on(|| tunnel::remove_leftovers(7)).unwrap();
    }
    assert_eq!(changed(&before, &both(&world)), [""; 0]);
}

#[test]
fn two_guests_of_one_bridge_move_at_once_and_the_last_restores_the_settings() {
    require!(requires::root());
    require!(requires::program("nft"));
    let world = World::new();
    let before = World::held(&world.site_b);
    let other = Move {
        id: 8,
        guest_mac: [0x52, 0x54, 0, 0x12, 0x34, 0x57],
        guest_address: Ipv4Addr::new(10, 1, 0, 101),
        tap: None,
        new_address: Some(Ipv4Addr::new(198, 51, 100, 8)),
        ..site_b()
    };
    let first = prepare(&world.site_b, Side::Destination, site_b());
    switch(&world.site_b, &first);
    let second = prepare(&world.site_b, Side::Destination, other);
    switch(&world.site_b, &second);
    let proxy_arp = || world.site_b.program("sysctl", "-n net.ipv4.conf.br0.proxy_arp");
    remove(&world.site_b, &first);
    assert_eq!(proxy_arp().trim(), "1");
    remove(&world.site_b, &second);
    assert_eq!(before.differences(&World::held(&world.site_b)), [""; 0]);
}

#[test]
fn tunnels_that_were_only_tried_are_removed_and_no_others() {
    require!(requires::root());
    require!(requires::program("nft"));
    let world = World::new();
    let site = &world.site_b;
    let _moving = prepare(site, Side::Destination, site_b());
    let before = World::held(site);
    let tried = Move { id: 8, guest_address: Ipv4Addr::new(10, 1, 0, 101), new_address: None, ..site_b() };
    let _tried = prepare(site, Side::Destination, tried.trial());
    assert!(!before.differences(&World::held(site)).is_empty());
    site.block_on(tunnel::io::tunnel::remove_trials).unwrap();
    assert_eq!(before.differences(&World::held(site)), [""; 0]);
}
