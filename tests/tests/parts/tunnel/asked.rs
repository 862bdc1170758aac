//! Who answers for an address on a real bridge, and who does not.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;
use std::time::Duration;

use tests::tunnel_world::World;
use tests::wait::PATIENCE;
use tests::{require, requires};
use tunnel::io::who_has;
use tunnel::transfer::Mac;

const NEIGHBOUR: Ipv4Addr = Ipv4Addr::new(10, 1, 0, 50);
const GUEST: Ipv4Addr = Ipv4Addr::new(10, 1, 0, 100);
const NOBODY: Ipv4Addr = Ipv4Addr::new(10, 1, 0, 77);

/// Long enough for three questions.
const LIMIT: Duration = Duration::from_millis(250);

#[test]
fn who_has_an_address_says_so_and_who_answers_for_others_is_silent() {
    require!(requires::root());
    let world = World::new();
    let mac_of = |space: &tests::tunnel_world::Space, device: &'static str| {
        let shown: serde_json::Value =
            serde_json::from_str(&space.ip(&format!("-j link show {device}"))).unwrap();
        shown[0]["address"].as_str().unwrap().to_owned()
    };
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
