//! What is made at each side, at each stage: a list of values for each, undone by its inverses in reverse.
//!
//! ```text
//!            prepare: nothing of today's paths       switch: one batch
//! source       device, record, transit, its            bridge settings · rule to OLD ► T · proxy ARP for OLD
//!              neighbour, guard, T: OLD via transit,   · key: frames to the guest's MAC go to the router
//!              filter (closed)
//! destination  device, record, transit, its            bridge settings · rules to OLD ► T, from OLD ► T
//!              neighbour, guard, T: OLD on the bridge, · the guest as a neighbour, its port
//!              rest via transit, rule in through       · new address: rule by mark ► main, address, key
//!              the device ► T, filters (closed)
//! ```
//!
//! `T: OLD on the bridge` has two readers. What comes out of the tunnel finds the guest by it; and proxy ARP, which
//! answers for all that lies elsewhere, finds that OLD itself does not: or it would answer the guest's own question
//! whether anybody else has its address.

use std::net::Ipv4Addr;

use crate::change::{Change, Device, Family, Route, Rule, Setting, Thing};
use crate::filter;
use crate::record::Record;
use crate::transfer::{Move, Side};

/// The largest packet on a way of which nothing is known.
pub const USUAL_PATH_BYTES: u32 = 1500;

/// What the tunnel puts around a packet: IPv4, UDP, VXLAN and an inner Ethernet header.
const AROUND_BYTES: u32 = 50;
/// The largest packet inside the tunnel.
const MTU_BYTES_MAX: u32 = USUAL_PATH_BYTES - AROUND_BYTES;
/// The smallest: every host of IPv4 takes that much. On a way for even less the kernel makes fragments.
const MTU_BYTES_MIN: u32 = 576;

/// The largest packet inside a tunnel over a way that carries packets of `path_bytes`. A larger one is answered by "too
/// big", which ends what a TCP session tries.
pub fn mtu_bytes(path_bytes: u32) -> u32 {
    path_bytes.saturating_sub(AROUND_BYTES).clamp(MTU_BYTES_MIN, MTU_BYTES_MAX)
}

/// Where the rules stand: before the main table (32766) and whatever a VPN puts before it. Each has a place of its own,
/// because the kernel removes the first rule of a place that has all that the request names, and maybe more.
const OUT_OF_TUNNEL: u32 = 20_000;
/// Everybody here finds the guest by it.
const TO_GUEST: u32 = 20_001;
/// Connections that use the new address leave as any other of this site. They go to the guest by the rule before,
/// and their answers must not fall into the rule after.
const BY_MARK: u32 = 20_002;
/// Everything else from the guest goes back through the tunnel.
const FROM_GUEST: u32 = 20_003;

/// The table that everybody uses.
const MAIN_TABLE: u32 = 254;

/// What of this host the changes depend on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Host {
    /// The bridge's MAC: this host's router, as the bridge's ports see it.
    pub bridge_mac: [u8; 6],
    /// The address that this host has in the guest's network, or any of the bridge.
    pub bridge_address: Option<Ipv4Addr>,
    /// The bridge's settings as they were before any move.
    pub earlier: Vec<(Setting, u32)>,
    /// The largest packet on the way to the other end, as far as this host knows.
    pub path_bytes: u32,
}

/// The bridge's settings that `side` changes at the switch, and what they become.
pub fn settings(side: Side) -> &'static [(Setting, u32)] {
    match side {
        // Proxy ARP is given for the one address only.
        Side::Source => &[(Setting::Forwarding, 1), (Setting::ProxyDelay, 0), (Setting::SendRedirects, 0)],
        // The guest asks for anybody in its old network.
        Side::Destination => &[
            (Setting::Forwarding, 1),
            (Setting::ProxyArp, 1),
            (Setting::ProxyDelay, 0),
            (Setting::SendRedirects, 0),
        ],
    }
}

/// Made before the pause.
pub fn prepare(side: Side, moved: &Move, host: &Host) -> Vec<Change> {
    let device = moved.device();
    let peer = moved.transit(side.other());
    let mut changes = vec![
        Change::Add(Thing::Device(Device {
            name: device.clone(),
            vni: moved.id,
            local: moved.local,
            remote: moved.remote,
            mac: moved.transit_mac(side),
            mtu_bytes: mtu_bytes(host.path_bytes),
        })),
        // Second, so that whatever else exists is written down.
        Change::Add(Thing::Record { device: device.clone(), text: record(side, moved, host).to_text() }),
        // Before anything that comes out of the device is sent on.
        filter(Family::Inet, moved, filter::guard(moved, side)),
        Change::Set { device: device.clone(), setting: Setting::Forwarding, value: 1, earlier: 0 },
        Change::Add(Thing::Address { device: device.clone(), address: moved.transit(side), prefix_bits: 30 }),
        Change::Add(Thing::Neighbour {
            device: device.clone(),
            address: peer,
            mac: moved.transit_mac(side.other()),
        }),
    ];
    match side {
        Side::Source => changes.extend(prepare_source(moved, host, peer)),
        Side::Destination => changes.extend(prepare_destination(moved, host, peer)),
    }
    changes
}

/// Made at once, while the guest is paused.
pub fn switch(side: Side, moved: &Move, host: &Host) -> Vec<Change> {
    let mut changes: Vec<Change> = settings(side)
        .iter()
        .map(|(setting, value)| {
            let earlier =
                host.earlier.iter().find(|(known, _)| known == setting).map_or(*value, |(_, was)| *was);
            Change::Set { device: moved.bridge.clone(), setting: *setting, value: *value, earlier }
        })
        .collect();
    match side {
        Side::Source => changes.extend(switch_source(moved)),
        Side::Destination => changes.extend(switch_destination(moved)),
    }
    changes
}

fn record(side: Side, moved: &Move, host: &Host) -> Record {
    Record { side, moved: moved.clone(), earlier: host.earlier.clone() }
}

fn prepare_source(moved: &Move, host: &Host, peer: Ipv4Addr) -> Vec<Change> {
    vec![
        // This host's own programs speak as the bridge's address, to which the guest's answers find their way.
        Change::Add(Thing::Route(Route {
            source: host.bridge_address,
            via: Some(peer),
            ..route(moved, moved.guest_address, 32, moved.device())
        })),
        filter(Family::Bridge, moved, filter::source_bridge(moved, host.bridge_mac)),
    ]
}

fn prepare_destination(moved: &Move, host: &Host, peer: Ipv4Addr) -> Vec<Change> {
    let mut changes = vec![
        Change::Add(Thing::Route(route(moved, moved.guest_address, 32, moved.bridge.clone()))),
        Change::Add(Thing::Route(Route {
            via: Some(peer),
            ..route(moved, Ipv4Addr::UNSPECIFIED, 0, moved.device())
        })),
        Change::Add(Thing::Rule(Rule {
            priority: OUT_OF_TUNNEL,
            input: Some(moved.device()),
            ..to_guest(moved)
        })),
        filter(Family::Bridge, moved, filter::destination_bridge(moved, host.bridge_mac)),
    ];
    changes.extend(moved.new_address.map(|new| filter(Family::Ip, moved, filter::new_address(moved, new))));
    changes
}

fn switch_source(moved: &Move) -> Vec<Change> {
    vec![
        Change::Add(Thing::Rule(to_guest(moved))),
        Change::Add(Thing::ProxyArp { device: moved.bridge.clone(), address: moved.guest_address }),
        Change::Add(Thing::Gate {
            family: Family::Bridge,
            table: moved.device(),
            key: moved.guest_mac.to_vec(),
        }),
    ]
}

fn switch_destination(moved: &Move) -> Vec<Change> {
    let (device, address, mac) = (moved.bridge.clone(), moved.guest_address, moved.guest_mac);
    let from_guest = Rule { priority: FROM_GUEST, from: Some(address), ..Rule::default() };
    // The neighbour first: nobody shall ask a guest that still sleeps.
    let mut changes = vec![Change::Add(Thing::Neighbour { device, address, mac })];
    changes.extend(moved.tap.clone().map(|port| Change::Add(Thing::Port { port, mac })));
    changes.push(Change::Add(Thing::Rule(to_guest(moved))));
    changes.push(Change::Add(Thing::Rule(Rule { table: moved.table(), ..from_guest })));
    if let Some(new) = moved.new_address {
        let by_mark =
            Rule { priority: BY_MARK, mark: Some(moved.mark()), table: MAIN_TABLE, ..Rule::default() };
        let key = new.octets().to_vec();
        changes.extend([
            Change::Add(Thing::Rule(by_mark)),
            Change::Add(Thing::LocalAddress { address: new }),
            Change::Add(Thing::Gate { family: Family::Ip, table: moved.device(), key }),
        ]);
    }
    changes
}

fn to_guest(moved: &Move) -> Rule {
    Rule { priority: TO_GUEST, to: Some(moved.guest_address), table: moved.table(), ..Rule::default() }
}

fn route(moved: &Move, to: Ipv4Addr, to_bits: u8, device: String) -> Route {
    Route { table: moved.table(), to, to_bits, via: None, device, source: None }
}

fn filter(family: Family, moved: &Move, body: String) -> Change {
    Change::Add(Thing::Filter { family, table: moved.device(), body })
}

#[cfg(test)]
mod tests {
    use super::{Host, USUAL_PATH_BYTES, mtu_bytes, prepare, settings, switch};
    use crate::change::{Change, Family, Setting, Thing, undo};
    use crate::transfer::tests::example;
    use crate::transfer::{Move, Side};
    use std::collections::{BTreeMap, BTreeSet};
    use std::net::Ipv4Addr;

    const SIDES: [Side; 2] = [Side::Source, Side::Destination];

    fn host(side: Side) -> Host {
        Host {
            bridge_mac: [2, 0, 0, 0, 0, 0xb0],
            bridge_address: Some(Ipv4Addr::new(10, 1, 0, 1)),
            earlier: settings(side).iter().map(|(setting, value)| (*setting, value + 77)).collect(),
            path_bytes: USUAL_PATH_BYTES,
        }
    }

    #[test]
    fn a_tunnel_leaves_room_for_what_is_put_around_its_packets() {
        // The usual, WireGuard over PPPoE, more than a guest sends, and a way that nothing fits.
        assert_eq!([1500, 1412, 9000, 300].map(mtu_bytes), [1450, 1362, 1450, 576]);
    }

    fn told(changes: &[Change]) -> Vec<String> {
        changes.iter().map(Change::to_string).collect()
    }

    /// A kernel as simple as can be: what is there, and the settings.
    #[derive(Clone, Debug, Default, PartialEq)]
    struct Kernel {
        things: BTreeSet<Thing>,
        settings: BTreeMap<(String, Setting), u32>,
    }

    impl Kernel {
        fn of(side: Side) -> Self {
            let settings = host(side)
                .earlier
                .into_iter()
                .map(|(setting, value)| (("br0".to_owned(), setting), value))
                .collect();
            Self { things: BTreeSet::new(), settings }
        }

        fn apply(&mut self, change: &Change) {
            match change {
                Change::Add(thing) => assert!(self.things.insert(thing.clone()), "twice: {change}"),
                Change::Remove(thing) => assert!(self.things.remove(thing), "not there: {change}"),
                Change::Set { device, setting, value, earlier } => {
                    let was = self.settings.insert((device.clone(), *setting), *value);
                    assert_eq!(was.unwrap_or(0), *earlier, "{change}");
                }
            }
        }
    }

    #[test]
    fn every_prefix_of_both_stages_is_undone_without_a_trace() {
        for side in SIDES {
            for moved in [example(), Move { tap: None, new_address: None, ..example() }] {
                let all = [prepare(side, &moved, &host(side)), switch(side, &moved, &host(side))].concat();
                for made in 0..=all.len() {
                    let mut kernel = Kernel::of(side);
                    for change in all[..made].iter().chain(&undo(&all[..made])) {
                        kernel.apply(change);
                    }
                    // The tunnel device's own setting goes with the device.
                    kernel.settings.retain(|(device, _), _| device == "br0");
                    assert_eq!(kernel, Kernel::of(side), "{side:?}, {made} made");
                }
            }
        }
    }

    #[test]
    fn an_inverse_of_an_inverse_is_the_change_itself() {
        for side in SIDES {
            for change in switch(side, &example(), &host(side)) {
                assert_eq!(change.clone().inverse().inverse(), change);
                assert_ne!(change.clone().inverse(), change);
            }
        }
    }

    #[test]
    fn the_source_prepares_a_tunnel_that_no_rule_leads_to() {
        let moved = example();
        assert_eq!(
            told(&prepare(Side::Source, &moved, &host(Side::Source))),
            [
                "add vxlan device move7 (number 7, 192.0.2.6 to 192.0.2.2)",
                "add the record on move7",
                "add nft table inet move7",
                "set forwarding of move7 to 1",
                "add address 240.0.0.29/30 on move7",
                "add neighbour 240.0.0.30 at 02:4d:02:00:00:07 on move7",
                "add route to 10.1.0.100/32 via 240.0.0.30 through move7 in table 1291845639",
                "add nft table bridge move7",
            ]
        );
    }

    #[test]
    fn the_source_switches_by_rule_proxy_arp_and_key() {
        assert_eq!(
            told(&switch(Side::Source, &example(), &host(Side::Source))),
            [
                "set forwarding of br0 to 1",
                "set proxy_delay of br0 to 0",
                "set send_redirects of br0 to 0",
                "add rule 20001: to 10.1.0.100 looks into table 1291845639",
                "add proxy ARP for 10.1.0.100 on br0",
                "add the key of nft table bridge move7",
            ]
        );
    }

    #[test]
    fn the_destination_prepares_only_for_what_comes_out_of_the_tunnel() {
        assert_eq!(
            told(&prepare(Side::Destination, &example(), &host(Side::Destination))[4..]),
            [
                "add address 240.0.0.30/30 on move7",
                "add neighbour 240.0.0.29 at 02:4d:01:00:00:07 on move7",
                "add route to 10.1.0.100/32 through br0 in table 1291845639",
                "add route to 0.0.0.0/0 via 240.0.0.29 through move7 in table 1291845639",
                "add rule 20000: to 10.1.0.100 in through move7 looks into table 1291845639",
                "add nft table bridge move7",
                "add nft table ip move7",
            ]
        );
    }

    #[test]
    fn the_destination_switches_neighbour_port_rules_and_the_new_address() {
        assert_eq!(
            told(&switch(Side::Destination, &example(), &host(Side::Destination))),
            [
                "set forwarding of br0 to 1",
                "set proxy_arp of br0 to 1",
                "set proxy_delay of br0 to 0",
                "set send_redirects of br0 to 0",
                "add neighbour 10.1.0.100 at 52:54:00:12:34:56 on br0",
                "add 52:54:00:12:34:56 behind port tap0",
                "add rule 20001: to 10.1.0.100 looks into table 1291845639",
                "add rule 20003: from 10.1.0.100 looks into table 1291845639",
                "add rule 20002: with mark 0x4d000007 looks into table 254",
                "add local address 198.51.100.7",
                "add the key of nft table ip move7",
            ]
        );
    }

    #[test]
    fn before_the_switch_nothing_touches_what_others_use() {
        for side in SIDES {
            for change in prepare(side, &example(), &host(side)) {
                let own = match &change {
                    Change::Set { device, .. } => device == "move7",
                    Change::Add(Thing::Device(device)) => device.name == "move7",
                    Change::Add(
                        Thing::Record { device, .. }
                        | Thing::Address { device, .. }
                        | Thing::Neighbour { device, .. },
                    ) => device == "move7",
                    Change::Add(Thing::Route(route)) => route.table == example().table(),
                    Change::Add(Thing::Rule(rule)) => rule.input.as_deref() == Some("move7"),
                    // At the source closed by its key; at the destination only the guest itself is meant.
                    Change::Add(Thing::Filter { family: Family::Bridge, body, .. }) => match side {
                        Side::Source => body.contains("ether daddr @open"),
                        Side::Destination => body.contains("ether saddr 52:54:00:12:34:56"),
                    },
                    Change::Add(Thing::Filter { family: Family::Ip, body, .. }) => {
                        body.matches("daddr").count() == body.matches("daddr @open").count()
                    }
                    // Only what comes out of this tunnel, and what is sent into it.
                    Change::Add(Thing::Filter { family: Family::Inet, body, .. }) => body
                        .lines()
                        .filter(|line| line.ends_with("drop") || line.ends_with("accept"))
                        .all(|line| line.contains("iifname \"move7\"") || line.contains("@th,96,24 7 ")),
                    _ => false,
                };
                assert!(own, "{side:?}: {change}");
            }
        }
    }

    #[test]
    fn no_two_rules_of_a_move_stand_at_one_place() {
        for side in SIDES {
            let all =
                [prepare(side, &example(), &host(side)), switch(side, &example(), &host(side))].concat();
            let mut places = BTreeSet::new();
            for change in &all {
                if let Change::Add(Thing::Rule(rule)) = change {
                    assert!(places.insert(rule.priority), "removing one would remove another: {change}");
                }
            }
        }
    }

    #[test]
    fn two_moves_at_one_host_share_nothing() {
        let other = Move {
            id: 8,
            guest_mac: [0x52, 0x54, 0, 0x12, 0x34, 0x57],
            guest_address: Ipv4Addr::new(10, 1, 0, 101),
            tap: Some("tap1".to_owned()),
            new_address: Some(Ipv4Addr::new(198, 51, 100, 8)),
            ..example()
        };
        let things = |side, moved: &Move| -> BTreeSet<Thing> {
            let all = [prepare(side, moved, &host(side)), switch(side, moved, &host(side))].concat();
            all.into_iter()
                .filter_map(|change| if let Change::Add(thing) = change { Some(thing) } else { None })
                .collect()
        };
        // Also where one guest comes and another one goes.
        for (one, another) in [(SIDES[0], SIDES[0]), (SIDES[1], SIDES[1]), (SIDES[0], SIDES[1])] {
            assert!(things(one, &example()).is_disjoint(&things(another, &other)));
        }
    }
}
