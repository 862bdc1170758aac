//! Tests of clashes and of ways that end.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::time::Duration;

use tunnel::surroundings::{Address, Bridge, Surroundings};
use tunnel::transfer::Mac;

use super::{Findings, Led, Network, Occasion, findings};
use crate::guest::{Guest, Nic};
use crate::host::{Refusal, Reservation, Reservations};

const MAC: Mac = Mac([0x52, 0x54, 0, 0, 0, 1]);
const OTHER: Mac = Mac([0x52, 0x54, 0, 0, 0, 2]);
const ADDRESS: Ipv4Addr = Ipv4Addr::new(10, 1, 0, 10);
const ARRIVES: Occasion = Occasion::Arrive { wan: true, runs: true, is_home: false };
const ARRIVES_NEAR: Occasion = Occasion::Arrive { wan: false, runs: true, is_home: false };
const LEAVES: Occasion = Occasion::Leave { wan: true, runs: true };

fn nic(mac: Mac, bridge: &str, address: Option<Ipv4Addr>) -> Nic {
    Nic { id: "net0".into(), mac: mac.to_string(), bridge: bridge.into(), address, dns_name: None }
}

fn guest() -> Guest {
    let text = "name = \"web\"\nmemory_mib = 64\n[[disk]]\nid = \"root\"\nimage = \"w.raw\"\n";
    Guest { nics: vec![nic(MAC, "lan", Some(ADDRESS))], ..Guest::parse(text).unwrap() }
}

/// A host in another network than the guest's, with two bridges.
fn network() -> Network {
    let own = |device: &str, address| Address { device: device.into(), address, prefix_bits: 24 };
    let bridge = Bridge { own: vec![(Mac([2, 0, 0, 0, 0, 1]), "br0".into())], ..Bridge::default() };
    Network {
        here: Surroundings {
            addresses: vec![own("br0", Ipv4Addr::new(10, 2, 0, 1))],
            bridges: BTreeMap::from([("br0".into(), bridge), ("br1".into(), Bridge::default())]),
            ..Surroundings::default()
        },
        bridges: [("lan", "br0"), ("same", "br0"), ("far", "br1")].map(|(a, b)| (a.into(), b.into())).into(),
        ..Network::default()
    }
}

fn promised(nic: Nic) -> Reservations {
    let mut promised = Reservations::default();
    let reservation = Reservation {
        holder: "it runs here".into(),
        memory_mib: 1,
        memory_used_mib: 1,
        disk_bytes: 0,
        disk_size_bytes: 0,
        vcpus: 1,
        from: None,
        is_arriving: false,
        nics: vec![nic],
    };
    promised.reserve("db", reservation).unwrap();
    promised
}

fn found(network: &Network, occasion: Occasion) -> Findings {
    findings(network, &Reservations::default(), &guest(), occasion)
}

type Change = fn(&mut Network);

fn heard(network: &mut Network, answers: &[Mac]) {
    network.answers.insert(("br0".into(), ADDRESS), answers.iter().copied().collect());
}

#[test]
fn a_guest_that_clashes_with_nobody_is_told_nothing() {
    for occasion in [Occasion::Run, ARRIVES] {
        assert_eq!(found(&network(), occasion), Findings::default());
    }
    let mut at_home = network();
    heard(&mut at_home, &[MAC]);
    assert_eq!(found(&at_home, LEAVES), Findings::default());
}

#[test]
fn a_mac_or_an_address_of_another_guest_here_is_refused_on_the_same_bridge() {
    let refusals = |nic, occasion| findings(&network(), &promised(nic), &guest(), occasion).refusals;
    for occasion in [Occasion::Run, ARRIVES, ARRIVES_NEAR] {
        // By whatever name the bridge goes.
        let mac = refusals(nic(MAC, "same", None), occasion);
        let [Refusal::Mac { holder, .. }] = &mac[..] else { panic!("{occasion:?}: {mac:?}") };
        assert_eq!(holder, "guest db here (it runs here)");
        let address = refusals(nic(OTHER, "lan", Some(ADDRESS)), occasion);
        let [Refusal::Address { address, .. }] = &address[..] else { panic!("{occasion:?}: {address:?}") };
        assert_eq!(*address, ADDRESS);
        assert_eq!(refusals(nic(MAC, "far", None), occasion), []);
        assert_eq!(refusals(nic(OTHER, "lan", Some(Ipv4Addr::new(10, 1, 0, 11))), occasion), []);
    }
    // A tunnel's rules are the whole host's.
    let far = || nic(OTHER, "far", Some(ADDRESS));
    assert_eq!((refusals(far(), ARRIVES).len(), refusals(far(), Occasion::Run).len()), (1, 0));
}

#[test]
fn what_is_the_hosts_own_or_led_by_a_tunnel_or_given_from_the_pool_is_refused() {
    let led = |guest: &str, mac, address| Led { guest: guest.into(), mac, address };
    let change: [(&str, Change); 3] = [
        ("br0 of this host", |network| network.here.addresses[0].address = ADDRESS),
        ("guest mail, which has it from [network] pool", |network| {
            network.given.insert(ADDRESS, "mail".into());
        }),
        ("br0 of this host", |network| {
            network.here.bridges.get_mut("br0").unwrap().own.push((MAC, "br0".into()));
        }),
    ];
    for (holder, change) in change {
        let mut network = network();
        change(&mut network);
        let refusals = found(&network, Occasion::Run).refusals;
        assert!(refusals.len() == 1 && refusals[0].to_string().contains(holder), "{holder}: {refusals:?}");
    }
    let mut network = network();
    network.led = vec![led("db", MAC, ADDRESS)];
    assert_eq!(found(&network, ARRIVES).refusals.len(), 2, "MAC and address");
    // Its own tunnel, and its own address of the pool.
    network.led = vec![led("web", MAC, ADDRESS)];
    network.given = BTreeMap::from([(ADDRESS, "web".into())]);
    assert_eq!(found(&network, ARRIVES), Findings::default());
    // What the host makes of a MAC for its own end.
    let mut guest = guest();
    guest.nics[0].mac = "fe:54:00:00:00:01".into();
    let refusals = findings(&network, &Reservations::default(), &guest, Occasion::Run).refusals;
    assert!(refusals[0].to_string().contains("fe in front"), "{refusals:?}");
}

#[test]
fn who_answers_for_the_guests_address_or_is_heard_with_its_mac_is_named() {
    let mut network = network();
    heard(&mut network, &[MAC, OTHER]);
    for occasion in [Occasion::Run, LEAVES, ARRIVES, ARRIVES_NEAR] {
        let Findings { refusals, warnings } = found(&network, occasion);
        assert!(refusals.is_empty() && warnings.len() == 1, "{occasion:?}: {warnings:?}");
        assert!(
            warnings[0].contains(&OTHER.to_string()) && warnings[0].contains("10.1.0.10"),
            "{warnings:?}"
        );
    }
    heard(&mut network, &[MAC]);
    let warned = |network: &Network, occasion| found(network, occasion).warnings.join("\n");
    assert!(warned(&network, Occasion::Run).contains("runs elsewhere"));
    network.answers.clear();
    assert!(warned(&network, LEAVES).contains("correct `address`"));
    assert_eq!(warned(&network, Occasion::Leave { wan: true, runs: false }), "", "it cannot answer");
    network.here.bridges.get_mut("br0").unwrap().behind.push((MAC, "uplink".into()));
    for occasion in [Occasion::Run, ARRIVES] {
        assert!(warned(&network, occasion).contains("behind uplink"), "{occasion:?}");
    }
    network.here.bridges.get_mut("br0").unwrap().behind.clear();
    network.gone = vec![("db".into(), "site-c".into(), vec![nic(MAC, "lan", None)])];
    assert!(warned(&network, Occasion::Run).contains("guest db, which moved to site-c"));
    network.led = vec![Led { guest: "db".into(), mac: OTHER, address: Ipv4Addr::new(10, 1, 0, 9) }];
    assert_eq!(warned(&network, Occasion::Run), "", "it is elsewhere, as its tunnel tells");
}

/// S4-47.
#[test]
fn a_guest_that_comes_without_a_tunnel_into_another_network_is_told_that_its_connections_break() {
    let warned = |network: &Network, occasion| found(network, occasion).warnings.join("\n");
    let cut_off = warned(&network(), ARRIVES_NEAR);
    for words in ["connections break", "no network of br0 (10.2.0.1/24)", "--wan"] {
        assert!(cut_off.contains(words), "{cut_off}");
    }
    let paused = Occasion::Arrive { wan: false, runs: false, is_home: false };
    assert_eq!(warned(&network(), paused), cut_off);
    // A bridge of which the host itself has no address, and one of another network with the same numbers.
    let mut bare = network();
    bare.here.addresses.clear();
    assert!(warned(&bare, ARRIVES_NEAR).contains("is not heard on br0"));
    let mut same = network();
    same.here.addresses[0].address = Ipv4Addr::new(10, 1, 0, 1);
    assert!(warned(&same, ARRIVES_NEAR).contains("does not answer on br0"));
    assert_eq!(warned(&same, paused), "", "it cannot answer");
    // Within one network it answers from where it is, or was heard.
    let mut near = network();
    heard(&mut near, &[MAC]);
    assert_eq!(warned(&near, ARRIVES_NEAR), "");
    near.answers.clear();
    near.here.bridges.get_mut("br0").unwrap().behind.push((MAC, "uplink".into()));
    assert_eq!(warned(&near, ARRIVES_NEAR), "");
    // At home its address is everybody's, and without one there is nothing to break.
    assert_eq!(warned(&network(), Occasion::Arrive { wan: false, runs: true, is_home: true }), "");
    let mut guest = guest();
    guest.nics[0].address = None;
    assert_eq!(findings(&network(), &Reservations::default(), &guest, ARRIVES_NEAR), Findings::default());
}

#[test]
fn a_port_that_waits_and_a_firewall_that_drops_are_told_beforehand() {
    let mut network = network();
    heard(&mut network, &[MAC]);
    network.obstacles = vec!["the firewall drops".into()];
    let warned = |network: &Network, occasion| found(network, occasion).warnings;
    for (occasion, obstacles) in [(LEAVES, 1), (ARRIVES, 1), (ARRIVES_NEAR, 0)] {
        assert_eq!(warned(&network, occasion).len(), obstacles, "{occasion:?}");
    }
    network.obstacles.clear();
    network.here.bridges.get_mut("br0").unwrap().port_delay = Duration::from_secs(30);
    for (occasion, words) in
        [(LEAVES, "when it goes on here"), (ARRIVES, "the memory waits"), (ARRIVES_NEAR, "for 30 s")]
    {
        let warnings = warned(&network, occasion);
        assert!(warnings.len() == 1 && warnings[0].contains(words), "{occasion:?}: {warnings:?}");
    }
}
