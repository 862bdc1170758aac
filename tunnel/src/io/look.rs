//! Looks up this host's network: rtnetlink's devices, addresses, routes and what bridges have heard. Changes nothing.
//!
//! Read by hand, like a device: one attribute of a newer kernel must not hide an address.

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::net::Ipv4Addr;
use std::time::Duration;

use super::messages::{ask_addresses, ask_link, ask_links, is_ours, read_address, read_link};
use super::netlink::{DUMP, Netlink, Request, attributes};
use crate::surroundings::{Address, Bridge, PortState, Surroundings};
use crate::transfer::Mac;

const ROUTE: isize = 0;
/// Source of these: linux/rtnetlink.h, neighbour.h, if_link.h.
const GET_ROUTE: u16 = 26;
const GET_NEIGHBOUR: u16 = 30;
const FAMILY_BRIDGE: u8 = 7;
const FAMILY_IPV4: u8 = 2;
/// Of a route and of a neighbour alike.
const HEADER_BYTES: usize = 12;
const LINK_HEADER_BYTES: usize = 16;
const LINK_INFO: u16 = 18;
const INFO_KIND: u16 = 1;
const INFO_DATA: u16 = 2;
const INFO_PORT_DATA: u16 = 5;
const BRIDGE_FORWARD_DELAY: u16 = 1;
const BRIDGE_STP: u16 = 5;
const PORT_STATE: u16 = 1;
const ROUTE_TO: u16 = 1;
const ROUTE_UNICAST: u8 = 1;
/// A blackhole, an unreachable and a prohibited network: whoever writes one down knows of it.
const ROUTES_TO_NOWHERE: [u8; 3] = [6, 7, 8];
const NEIGHBOUR_MAC: u16 = 2;
const NEIGHBOUR_BRIDGE: u16 = 9;
/// A MAC of the bridge's own, or of one of its ports.
const NEIGHBOUR_PERMANENT: u16 = 0x80;
/// A hundredth of a second.
const TICK: Duration = Duration::from_millis(10);

/// What there is, in the network namespace of this thread.
pub async fn look() -> io::Result<Surroundings> {
    tokio::task::spawn_blocking(now).await.map_err(io::Error::other)?
}

/// Whether a bridge's port passes frames; none: there is no such device, or it is no port of a bridge.
pub async fn port_state(port: &str) -> io::Result<Option<PortState>> {
    let request = ask_link(port);
    let asked = tokio::task::spawn_blocking(move || Netlink::open(ROUTE)?.ask(&request));
    let found = asked.await.map_err(io::Error::other)??.unwrap_or_default();
    let data = found.first().and_then(|payload| info(payload, INFO_PORT_DATA));
    let state = data.and_then(|data| value(data, PORT_STATE)?.first().copied());
    Ok(state.map(PortState::of))
}

/// The same, for who may wait.
pub fn now() -> io::Result<Surroundings> {
    let mut netlink = Netlink::open(ROUTE)?;
    let mut dump = |request: &Request| {
        let found = netlink.ask(request)?;
        found.map_err(|refused| io::Error::from_raw_os_error(refused.errno))
    };
    let links = dump(&ask_links())?;
    let mut here = Surroundings::default();
    let mut names: HashMap<u32, String> = HashMap::new();
    for payload in &links {
        let Some(link) = read_link(payload) else { continue };
        here.bridges.extend(bridge(payload).map(|bridge| (link.name.clone(), bridge)));
        names.insert(link.index, link.name);
    }
    for (index, address, prefix_bits) in dump(&ask_addresses())?.iter().filter_map(|one| read_address(one)) {
        let device = names.get(&index).cloned().unwrap_or_default();
        here.addresses.push(Address { device, address, prefix_bits });
    }
    here.routes = dump(&all_of(GET_ROUTE, FAMILY_IPV4))?.iter().filter_map(|one| route(one)).collect();
    let heard = dump(&all_of(GET_NEIGHBOUR, FAMILY_BRIDGE))?;
    fill(&mut here.bridges, &names, &heard);
    Ok(here)
}

fn all_of(kind: u16, family: u8) -> Request {
    let mut payload = vec![0; HEADER_BYTES];
    payload[0] = family;
    Request { kind, flags: DUMP, payload }
}

fn fill(bridges: &mut BTreeMap<String, Bridge>, names: &HashMap<u32, String>, heard: &[Vec<u8>]) {
    for Heard { port, bridge, mac, is_own } in heard.iter().filter_map(|one| neighbour(one)) {
        let bridge = names.get(&bridge).and_then(|name| bridges.get_mut(name));
        if let (Some(bridge), Some(port)) = (bridge, names.get(&port)) {
            let list = if is_own { &mut bridge.own } else { &mut bridge.behind };
            // Once for each VLAN.
            if !list.iter().any(|(known, at)| (known, at) == (&mac, port)) {
                list.push((mac, port.clone()));
            }
        }
    }
}

/// A part of what a device says of its kind.
fn info(link: &[u8], wanted: u16) -> Option<&[u8]> {
    value(value(link.get(LINK_HEADER_BYTES..)?, LINK_INFO)?, wanted)
}

fn value(row: &[u8], wanted: u16) -> Option<&[u8]> {
    attributes(row).find(|(kind, _)| *kind == wanted).map(|(_, value)| value)
}

fn number(row: &[u8], wanted: u16) -> Option<u32> {
    Some(u32::from_ne_bytes(value(row, wanted)?.try_into().ok()?))
}

/// A device that is a bridge.
fn bridge(link: &[u8]) -> Option<Bridge> {
    (info(link, INFO_KIND)?.strip_suffix(b"\0") == Some(b"bridge")).then_some(())?;
    let data = info(link, INFO_DATA).unwrap_or_default();
    let runs_stp = number(data, BRIDGE_STP).unwrap_or_default() != 0;
    let delay = if runs_stp { number(data, BRIDGE_FORWARD_DELAY).unwrap_or_default() } else { 0 };
    Some(Bridge { port_delay: 2 * TICK * delay, ..Bridge::default() })
}

/// The network that a route leads to.
fn route(payload: &[u8]) -> Option<(Ipv4Addr, u8)> {
    let (bits, protocol, kind) = (*payload.get(1)?, *payload.get(5)?, *payload.get(7)?);
    let is_meant = kind == ROUTE_UNICAST || ROUTES_TO_NOWHERE.contains(&kind);
    let to: [u8; 4] = value(payload.get(HEADER_BYTES..)?, ROUTE_TO)?.try_into().ok()?;
    (is_meant && bits > 0 && !is_ours(protocol)).then(|| (to.into(), bits))
}

/// A MAC that a bridge knows.
struct Heard {
    port: u32,
    bridge: u32,
    mac: Mac,
    is_own: bool,
}

fn neighbour(payload: &[u8]) -> Option<Heard> {
    let port = u32::from_ne_bytes(payload.get(4..8)?.try_into().ok()?);
    let state = u16::from_ne_bytes(payload.get(8..10)?.try_into().ok()?);
    let row = payload.get(HEADER_BYTES..)?;
    let mac: [u8; 6] = value(row, NEIGHBOUR_MAC)?.try_into().ok()?;
    let bridge = number(row, NEIGHBOUR_BRIDGE)?;
    Some(Heard { port, bridge, mac: Mac(mac), is_own: state & NEIGHBOUR_PERMANENT != 0 })
}
