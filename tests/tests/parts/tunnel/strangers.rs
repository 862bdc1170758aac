//! Who may send what through a tunnel, and whose number it is.

use std::net::{Ipv4Addr, UdpSocket};
use std::time::Duration;

use tests::tunnel_world::{Space, World};
use tests::{require, requires};
use tunnel::{Move, Side, Tunnel, TunnelError};

use super::ends::{OLD, prepare, prepare_both, site_a, site_b, switch};

/// A machine of site B's network that has nothing to do with the guest.
const LAN_OF_B: Ipv4Addr = Ipv4Addr::new(10, 2, 0, 60);
/// The same at site A.
const LAN_OF_A: Ipv4Addr = Ipv4Addr::new(10, 1, 0, 50);

/// A datagram in an Ethernet frame in a packet of tunnel 7, as its end at `side` takes it.
fn wrapped(side: Side, from: Ipv4Addr, to: Ipv4Addr, word: &[u8]) -> Vec<u8> {
    let mut packet = vec![0x08, 0, 0, 0, 0, 0, 7, 0];
    packet.extend(site_a().transit_mac(side));
    packet.extend(site_a().transit_mac(side.other()));
    packet.extend([0x08, 0x00]);
    let udp_bytes = (8 + word.len()) as u16;
    let mut ip = vec![0x45, 0];
    ip.extend((20 + udp_bytes).to_be_bytes());
    ip.extend([0, 1, 0, 0, 64, 17, 0, 0]);
    ip.extend(from.octets());
    ip.extend(to.octets());
    let sum: u32 = ip.chunks(2).map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]]))).sum();
    let folded = (sum & 0xffff) + (sum >> 16);
    ip[10..12].copy_from_slice(&(!(folded as u16)).to_be_bytes());
    packet.extend(ip);
    packet.extend([9999u16, 9, udp_bytes, 0].map(u16::to_be_bytes).concat());
    packet.extend(word);
    packet
}

/// Send a packet to a tunnel's end at `host`.
fn send(space: &Space, host: Ipv4Addr, packet: Vec<u8>) {
    space.run(move || UdpSocket::bind("0.0.0.0:0")?.send_to(&packet, (host, 4789))).unwrap();
}

/// What listens at a machine.
fn listen(space: &Space) -> UdpSocket {
    let socket = space.run(|| UdpSocket::bind("0.0.0.0:9")).unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    socket
}

fn heard(socket: &UdpSocket) -> String {
    let mut word = [0; 64];
    let len = socket.recv(&mut word).expect("a datagram comes");
    String::from_utf8_lossy(&word[..len]).into_owned()
}

#[test]
fn a_tunnel_takes_packets_of_its_other_end_only_and_lets_out_those_of_its_guest_only() {
    require!(requires::root());
    require!(requires::program("nft"));
    let world = World::new();
    let (at_a, at_b) = prepare_both(&world);
    switch(&world.site_a, &at_a);
    switch(&world.site_b, &at_b);
    world.move_guest(true);
    let (host_a, host_b) = (site_a().local, site_b().local);
    let somebody = Ipv4Addr::new(10, 1, 0, 77);

    // At the destination. What is heard first is what was sent last.
    let (guest, stranger, host) = (listen(&world.guest), listen(&world.stranger), listen(&world.site_b));
    let to_b = |to, word: &str| wrapped(Side::Destination, somebody, to, word.as_bytes());
    send(&world.client, host_b, to_b(OLD, "from a stranger"));
    send(&world.site_a, host_b, to_b(LAN_OF_B, "to another machine"));
    send(&world.site_a, host_b, to_b(Ipv4Addr::new(10, 2, 0, 1), "to the host"));
    send(&world.site_a, host_b, to_b(site_b().transit(Side::Destination), "to the end itself"));
    send(&world.site_a, host_b, to_b(OLD, "from the other end"));
    assert_eq!(heard(&guest), "from the other end");
    for (socket, address) in [(&stranger, LAN_OF_B), (&host, Ipv4Addr::new(10, 2, 0, 1))] {
        world.site_b.run(move || UdpSocket::bind("0.0.0.0:0")?.send_to(b"by itself", (address, 9))).unwrap();
        assert_eq!(heard(socket), "by itself");
    }

    // At the source.
    let neighbour = listen(&world.neighbour);
    let to_a = |from, word: &str| wrapped(Side::Source, from, LAN_OF_A, word.as_bytes());
    send(&world.client, host_a, to_a(OLD, "from a stranger"));
    send(&world.site_b, host_a, to_a(Ipv4Addr::new(10, 2, 0, 60), "from another machine"));
    send(&world.site_b, host_a, to_a(OLD, "from the guest"));
    assert_eq!(heard(&neighbour), "from the guest");
}

#[test]
fn a_number_that_another_guests_path_has_is_refused_and_that_path_stays() {
    require!(requires::root());
    require!(requires::program("nft"));
    let world = World::new();
    let site = &world.site_b;
    let _good = prepare(site, Side::Destination, site_b());
    let before = World::held(site);
    let refused = |moved: Move| {
        let result = site.block_on(move || Tunnel::prepare(Side::Destination, moved));
        result.map(|_| ()).unwrap_err()
    };
    let others = [
        Move { guest_mac: [0x52, 0x54, 0, 0x12, 0x34, 0x57], ..site_b() },
        Move { guest_address: Ipv4Addr::new(10, 1, 0, 101), ..site_b() },
        Move { remote: Ipv4Addr::new(192, 0, 2, 9), ..site_b() },
    ];
    for other in others {
        let error = refused(other);
        assert!(matches!(error, TunnelError::Taken { id: 7 }), "{error}");
        assert_eq!(before.differences(&World::held(site)), [""; 0]);
    }
    // Numbers without end for one card.
    let attempts = (20..40u32).map(|id| {
        let moved = Move { id, ..site_b() };
        site.block_on(move || Tunnel::prepare(Side::Destination, moved)).map(|_| ())
    });
    let made = attempts.filter(Result::is_ok).count();
    assert_eq!(made, 2);
    // The same move again is no other's.
    prepare(site, Side::Destination, Move { tap: None, ..site_b() });
}
