//! What a tunnel refuses, in words, and a link that is cut.

use std::time::Duration;

use tests::tunnel_world::World;
use tests::{require, requires};
use tunnel::{Move, Side, Tunnel, TunnelError};

use super::ends::{prepare, prepare_both, remove, site_b};

#[test]
fn a_refused_step_says_which_change_and_why_and_leaves_nothing() {
    require!(requires::root());
    require!(requires::program("nft"));
    let world = World::new();
    let site = &world.site_b;
    let before = World::held(site);
    let refused = |moved: Move| {
        let result = site.block_on(move || Tunnel::prepare(Side::Destination, moved));
        result.map(|_| ()).unwrap_err()
    };
    let error = refused(Move { bridge: "br9".to_owned(), ..site_b() });
    assert!(matches!(&error, TunnelError::NoBridge { bridge } if bridge == "br9"), "{error}");
    // The number is taken by another device of the administrator's.
    site.ip("link add office type vxlan id 7 remote 192.0.2.2 dstport 4789");
    let with_office = World::held(site);
    let error = refused(site_b()).to_string();
    assert_eq!(
        error,
        "add vxlan device move7 (number 7, 192.0.2.6 to 192.0.2.2): somebody else's device has this name or this \
         network number (kernel: A VXLAN device with the specified VNI already exists)"
    );
    assert_eq!(with_office.differences(&World::held(site)), [""; 0]);
    // Or the name.
    site.ip("link set office name move7");
    let error = refused(site_b()).to_string();
    assert!(error.contains("somebody else's device has the name"), "{error}");
    site.ip("link del move7");
    // The guest's port is gone at the switch.
    let tunnel = prepare(site, Side::Destination, Move { tap: Some("tap9".to_owned()), ..site_b() });
    let prepared = World::held(site);
    let end = tunnel.clone();
    let error = site.block_on(move || async move { end.switch().await }).unwrap_err().to_string();
    assert_eq!(error, "add 52:54:00:12:34:56 behind port tap9: there is no such device");
    assert_eq!(prepared.differences(&World::held(site)), [""; 0]);
    remove(site, &tunnel);
    assert_eq!(before.differences(&World::held(site)), [""; 0]);
}

#[test]
fn a_cut_link_is_a_silent_other_end() {
    require!(requires::root());
    require!(requires::program("nft"));
    let world = World::new();
    let (at_a, _at_b) = prepare_both(&world);
    world.wan.ip("link set to-b down");
    let error = world.site_a.block_on(move || async move { at_a.probe(Duration::from_millis(300)).await });
    let error = error.unwrap_err().to_string();
    assert!(error.starts_with("the tunnel's other end: "), "{error}");
    assert!(error.contains("240.0.0.30"), "{error}");
}
