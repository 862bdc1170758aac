//! What goes through a tunnel once the guest has moved: old sessions, new ones, and questions for neighbours.

use std::net::{TcpListener, TcpStream};
use std::process::{Command, Stdio};

use tests::tunnel_world::World;
use tests::wait::PATIENCE;
use tests::{require, requires};

use super::ends::{NEW, OLD, Session, prepare_both, serve_echo, switch};

#[test]
fn sessions_of_a_client_and_of_a_lan_neighbour_survive_and_new_ones_find_the_guest() {
    require!(requires::root());
    require!(requires::program("nft"));
    let world = World::new();
    serve_echo(&world.guest);
    let mut from_client = Session::open(&world.client, OLD);
    let mut from_lan = Session::open(&world.neighbour, OLD);
    assert_eq!(
        (from_client.say("before").as_str(), from_lan.say("before").as_str()),
        ("192.0.2.9", "10.1.0.50")
    );

    let (at_a, at_b) = prepare_both(&world);
    for (site, end) in [(&world.site_a, &at_a), (&world.site_b, &at_b)] {
        let end = end.clone();
        site.block_on(move || async move { end.probe(PATIENCE).await }).unwrap();
    }
    // Prepared: all is as it was, also for who connects anew.
    assert_eq!(from_client.say("prepared"), "192.0.2.9");
    assert_eq!(Session::open(&world.neighbour, OLD).say("prepared"), "10.1.0.50");

    let at_source = switch(&world.site_a, &at_a);
    let at_destination = switch(&world.site_b, &at_b);
    println!("switched in {:?} at the source, {:?} at the destination", at_source.took, at_destination.took);
    assert!(at_source.announced && at_destination.announced);
    world.move_guest(true);

    // The guest still sends to the MACs of A's router and of its old neighbour.
    assert_eq!(from_client.say("moved"), "192.0.2.9");
    assert_eq!(from_lan.say("moved"), "10.1.0.50");
    assert_eq!(Session::open(&world.client, OLD).say("new"), "192.0.2.9");
    assert_eq!(Session::open(&world.neighbour, OLD).say("new"), "10.1.0.50");
    // A neighbour that knows nothing yet, and the hosts themselves.
    world.neighbour.ip("neigh flush all");
    assert_eq!(Session::open(&world.neighbour, OLD).say("asked"), "10.1.0.50");
    assert_eq!(Session::open(&world.site_a, OLD).say("router"), "10.1.0.1");
    assert_eq!(Session::open(&world.site_b, OLD).say("router"), "10.2.0.1");

    // The new address leads there too, on the short way, and the old sessions go on beside it.
    assert_eq!(Session::open(&world.client, NEW).say("by the new address"), "192.0.2.9");
    assert_eq!(Session::open(&world.stranger, NEW).say("from B's own network"), "10.2.0.60");
    assert_eq!(Session::open(&world.site_b, NEW).say("from B itself"), NEW.to_string());
    assert_eq!(
        (from_client.say("after").as_str(), from_lan.say("after").as_str()),
        ("192.0.2.9", "10.1.0.50")
    );
    let reached = world.site_b.block_on(|| tunnel::io::probe::reachable(NEW, PATIENCE));
    reached.unwrap();
}

#[test]
fn a_new_connection_of_the_guest_comes_from_its_new_address() {
    require!(requires::root());
    require!(requires::program("nft"));
    let world = World::new();
    let (at_a, at_b) = prepare_both(&world);
    switch(&world.site_a, &at_a);
    switch(&world.site_b, &at_b);
    world.move_guest(true);
    let listener = world.client.run(|| TcpListener::bind("192.0.2.9:80")).unwrap();
    let _out = world.guest.run(|| TcpStream::connect("192.0.2.9:80")).unwrap();
    assert_eq!(listener.accept().unwrap().1.ip(), NEW);
}

#[test]
fn the_guest_asks_who_has_its_own_address_and_nobody_says_me() {
    require!(requires::root());
    require!(requires::program("busybox"));
    require!(requires::program("nft"));
    let world = World::new();
    let (at_a, at_b) = prepare_both(&world);
    switch(&world.site_a, &at_a);
    switch(&world.site_b, &at_b);
    world.move_guest(true);
    world.guest.ip("neigh flush all");
    // Its old neighbours it finds at B's router.
    world.guest.program("ping", "-c 1 -W 20 10.1.0.50");
    let known = world.guest.ip("neigh show 10.1.0.50");
    assert!(known.contains("02:00:00:00:00:b2"), "{known}");
    // "Who has my address?", as a guest announces itself: an answer would be another owner.
    let asks = |address: &'static str| {
        world.guest.run(move || {
            let arguments = ["arping", "-q", "-c", "1", "-w", "1", "-I", "atB", "-s", "10.1.0.100", address];
            Command::new("busybox").args(arguments).stdout(Stdio::null()).status().unwrap().success()
        })
    };
    assert!(asks("10.1.0.50"));
    assert!(!asks("10.1.0.100"));
}
