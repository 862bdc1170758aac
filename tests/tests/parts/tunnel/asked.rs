//! Who answers for an address on a real bridge, and who does not.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;
use std::time::Duration;

use migrated::host::network::firewall::obstacles;
use migrated::io::destination::ports::Ports;
use tests::tunnel_world::{Space, World};
use tests::wait::PATIENCE;
use tests::{require, requires};
use tokio::time::timeout;
use tunnel::io::look::{self, port_state};
use tunnel::io::{nft, who_has};
use tunnel::surroundings::PortState;
use tunnel::transfer::Mac;

const NEIGHBOUR: Ipv4Addr = Ipv4Addr::new(10, 1, 0, 50);
const GUEST: Ipv4Addr = Ipv4Addr::new(10, 1, 0, 100);
const NOBODY: Ipv4Addr = Ipv4Addr::new(10, 1, 0, 77);

/// Long enough for three questions.
const LIMIT: Duration = Duration::from_millis(250);

fn mac_of(space: &Space, device: &'static str) -> String {
    let text = space.ip(&format!("-j link show {device}"));
    let shown: serde_json::Value = serde_json::from_str(&text).unwrap();
    shown[0]["address"].as_str().unwrap().to_owned()
}

#[test]
fn who_has_an_address_says_so_and_who_answers_for_others_is_silent() {
    require!(requires::root());
    let world = World::new();
    let neighbour = mac_of(&world.neighbour, "eth0");
    let first = |address| world.site_a.block_on(move || who_has::first("br0", address, PATIENCE)).unwrap();
    assert_eq!(first(NEIGHBOUR).map(|mac| mac.to_string()), Some(neighbour.clone()));

    // A machine that routes for NOBODY by proxy ARP is found by who looks for the way, and is not its owner.
    world.neighbour.set("ip_forward", 1);
    world.neighbour.ip(&format!("neigh add proxy {NOBODY} dev eth0"));
    // A second owner of an address; and the host's own address, for which it does not ask itself.
    world.neighbour.ip(&format!("addr add {GUEST}/32 dev eth0"));
    let addresses = [NEIGHBOUR, GUEST, NOBODY, Ipv4Addr::new(10, 1, 0, 1)];
    let all =
        world.site_a.block_on(move || async move { who_has::all("br0", &addresses, LIMIT).await }).unwrap();
    let words = |macs: Option<&BTreeSet<Mac>>| -> BTreeSet<String> {
        macs.into_iter().flatten().map(Mac::to_string).collect()
    };
    assert_eq!(words(all.get(&NEIGHBOUR)), BTreeSet::from([neighbour.clone()]));
    assert_eq!(words(all.get(&GUEST)), BTreeSet::from([neighbour, mac_of(&world.guest, "atA")]));
    assert_eq!(all.keys().copied().collect::<Vec<_>>(), [NEIGHBOUR, GUEST]);

    let error = world.site_a.block_on(|| who_has::first("br9", NOBODY, LIMIT)).unwrap_err();
    assert!(error.to_string().contains("no device br9"), "{error}");
}

#[test]
fn a_hosts_addresses_routes_and_whom_its_bridge_has_heard_are_found() {
    require!(requires::root());
    let world = World::new();
    let site = &world.site_a;
    site.ip("route add blackhole 198.51.100.0/28");
    site.block_on(|| who_has::first("br0", NEIGHBOUR, PATIENCE)).unwrap().expect("the neighbour is there");
    let here = site.block_on(look::look).unwrap();
    assert_eq!(here.owner(Ipv4Addr::new(10, 1, 0, 1)), Some("br0"));
    assert_eq!(here.device_towards(NOBODY), Some("br0"));
    assert!(here.is_routed(Ipv4Addr::new(198, 51, 100, 7)) && !here.is_routed(Ipv4Addr::new(203, 0, 113, 7)));
    let bridge = &here.bridges["br0"];
    let known = |list: &[(Mac, String)], mac: &str, port: &str| {
        list.iter().any(|(known, at)| known.to_string() == mac && at == port)
    };
    assert!(known(&bridge.behind, &mac_of(&world.neighbour, "eth0"), "lan0"), "{bridge:?}");
    assert!(known(&bridge.own, &mac_of(site, "br0"), "br0"), "{bridge:?}");
    assert!(known(&bridge.own, &mac_of(site, "lan0"), "lan0"), "{bridge:?}");
    assert!(bridge.port_delay.is_zero() && !here.bridges.contains_key("lan0"));
}

#[test]
fn a_port_that_a_spanning_tree_lets_wait_is_waited_for() {
    require!(requires::root());
    require!(requires::program("bridge"));
    let world = World::new();
    let site = &world.site_a;
    site.ip("link set br0 type bridge stp_state 1");
    assert_eq!(site.block_on(look::look).unwrap().bridges["br0"].port_delay, Duration::from_secs(30));
    site.ip("link add new0 type veth peer name new1");
    site.ip("link set new1 up");
    site.ip("link set new0 master br0 up");
    let state = |port: &'static str| site.block_on(move || port_state(port)).unwrap();
    assert_eq!((state("new0"), state("new1"), state("none0")), (Some(PortState::Soon), None, None));
    let named = || Ports::named(["new0".to_owned()].into_iter());
    let passed = site.block_on(move || async move { timeout(LIMIT, named().pass()).await.is_ok() });
    assert!(!passed, "it passes nothing yet");
    // As it is half a minute later.
    site.ip("link set br0 type bridge stp_state 0");
    site.program("bridge", "link set dev new0 state 3");
    assert_eq!(state("new0"), Some(PortState::Forwarding));
    site.block_on(move || async move { named().pass().await }).unwrap();
}

#[test]
fn a_firewall_that_drops_what_it_does_not_know_is_read_from_nft_itself() {
    require!(requires::root());
    require!(requires::program("nft"));
    let world = World::new();
    let site = &world.site_b;
    let found = || obstacles(&site.run(|| nft::ruleset().unwrap()), &["br0"]);
    assert_eq!(found(), [""; 0]);
    site.program("nft", "add table ip guard");
    site.program("nft", "add chain ip guard ward { type filter hook forward priority 0 ; policy drop ; }");
    assert!(matches!(&found()[..], [one] if one.contains("`ip guard ward`")), "{:?}", found());
    site.program("nft", "insert rule ip guard ward iifname { br0, \"move*\" } accept");
    assert_eq!(found(), [""; 0]);
}
