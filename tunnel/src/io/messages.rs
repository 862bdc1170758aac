//! A change as a message of rtnetlink, and what comes back as values.
//!
//! The only place, with its neighbour [`super::netlink`], that knows the netlink crates.

use std::net::Ipv4Addr;

use rtnetlink::packet_core::NetlinkSerializable;
use rtnetlink::packet_route::address::{AddressAttribute, AddressMessage};
use rtnetlink::packet_route::link::{LinkAttribute, LinkMessage};
use rtnetlink::packet_route::neighbour::{
    NeighbourAddress, NeighbourAttribute, NeighbourFlags, NeighbourMessage, NeighbourState,
};
use rtnetlink::packet_route::route::{RouteMessage, RouteProtocol, RouteScope, RouteType};
use rtnetlink::packet_route::rule::{RuleAction, RuleAttribute, RuleMessage};
use rtnetlink::packet_route::{AddressFamily, RouteNetlinkMessage};
use rtnetlink::{LinkUnspec, LinkVxlan, RouteMessageBuilder};

use super::netlink::{ACK, CREATE, DUMP, REPLACE, Request, attributes};
use crate::change::{Device, Route, Rule, Thing};
use crate::filter::VXLAN_PORT;

/// Who made a route or a rule: a number that no routing daemon uses.
const MADE_BY_US: u8 = 77;
/// Source of these: linux/if_link.h and if_addr.h.
const LINK_HEADER_BYTES: usize = 16;
const LINK_MAC: u16 = 1;
const LINK_NAME: u16 = 3;
const LINK_ALIAS: u16 = 20;
const ADDRESS_HEADER_BYTES: usize = 8;
const ADDRESS_LOCAL: u16 = 2;
const LOCAL_TABLE: u32 = 255;
/// This host itself.
const LOOPBACK_INDEX: u32 = 1;

/// A device as the kernel tells of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Link {
    /// Its number.
    pub index: u32,
    /// Its name.
    pub name: String,
    /// Its MAC, where it has one.
    pub mac: Option<[u8; 6]>,
    /// Its alias.
    pub alias: Option<String>,
}

/// The device whose number a thing's message needs.
pub fn device_needed(thing: &Thing) -> Option<&str> {
    match thing {
        Thing::Address { device, .. } | Thing::Neighbour { device, .. } | Thing::ProxyArp { device, .. } => {
            Some(device)
        }
        Thing::Route(route) => Some(&route.device),
        Thing::Port { port, .. } => Some(port),
        Thing::Device(_)
        | Thing::Record { .. }
        | Thing::LocalAddress { .. }
        | Thing::Rule(_)
        | Thing::Filter { .. }
        | Thing::Gate { .. } => None,
    }
}

/// The request that adds `thing`; `index` is its device's number. None for what is not rtnetlink's, and for the
/// removal of what goes with its device.
pub fn request(thing: &Thing, add: bool, index: u32) -> Option<Request> {
    use RouteNetlinkMessage as M;
    let message = match (thing, add) {
        (Thing::Device(device), true) => M::NewLink(vxlan(device)),
        (Thing::Device(device), false) => M::DelLink(LinkUnspec::new_with_name(&device.name).build()),
        (Thing::Record { device, text }, true) => M::SetLink(
            LinkUnspec::new_with_name(device)
                .append_extra_attribute(LinkAttribute::IfAlias(text.clone()))
                .build(),
        ),
        (Thing::Record { .. } | Thing::Filter { .. } | Thing::Gate { .. }, _) => return None,
        (Thing::Address { address, prefix_bits, .. }, true) => {
            M::NewAddress(local(*address, *prefix_bits, index))
        }
        (Thing::Address { address, prefix_bits, .. }, false) => {
            M::DelAddress(local(*address, *prefix_bits, index))
        }
        (Thing::Neighbour { .. } | Thing::ProxyArp { .. } | Thing::Port { .. }, true) => {
            M::NewNeighbour(neighbour(thing, index))
        }
        (Thing::Neighbour { .. } | Thing::ProxyArp { .. } | Thing::Port { .. }, false) => {
            M::DelNeighbour(neighbour(thing, index))
        }
        (Thing::Route(wanted), true) => M::NewRoute(route(wanted, index)),
        (Thing::Route(wanted), false) => M::DelRoute(route(wanted, index)),
        (Thing::LocalAddress { address }, true) => M::NewRoute(local_route(*address)),
        (Thing::LocalAddress { address }, false) => M::DelRoute(local_route(*address)),
        (Thing::Rule(wanted), true) => M::NewRule(rule(wanted)),
        (Thing::Rule(wanted), false) => M::DelRule(rule(wanted)),
    };
    let flags = match (thing, add) {
        (_, false) | (Thing::Record { .. }, _) => ACK,
        // The kernel takes the same rule twice unless told not to.
        (Thing::Device(_) | Thing::Rule(_), true) => CREATE,
        (_, true) => REPLACE,
    };
    Some(to_request(&message, flags))
}

/// Asks for one device.
pub fn ask_link(name: &str) -> Request {
    to_request(&RouteNetlinkMessage::GetLink(LinkUnspec::new_with_name(name).build()), ACK)
}

/// Asks for all devices.
pub fn ask_links() -> Request {
    to_request(&RouteNetlinkMessage::GetLink(LinkMessage::default()), DUMP)
}

/// Asks for all IPv4 addresses.
pub fn ask_addresses() -> Request {
    let mut message = AddressMessage::default();
    message.header.family = AddressFamily::Inet;
    to_request(&RouteNetlinkMessage::GetAddress(message), DUMP)
}

/// Reads one answer to [`ask_link`] or [`ask_links`]. By hand: one attribute of a newer kernel that the crate cannot
/// read would make it drop the device.
pub fn read_link(payload: &[u8]) -> Option<Link> {
    let index = u32::from_ne_bytes(payload.get(4..8)?.try_into().ok()?);
    let mut link = Link { index, ..Link::default() };
    let text = |value: &[u8]| String::from_utf8_lossy(value).trim_end_matches('\0').to_owned();
    for (kind, value) in attributes(payload.get(LINK_HEADER_BYTES..)?) {
        match kind {
            LINK_MAC => link.mac = value.try_into().ok(),
            LINK_NAME => link.name = text(value),
            LINK_ALIAS => link.alias = Some(text(value)),
            _ => {}
        }
    }
    Some(link)
}

/// Reads one answer to [`ask_addresses`]: the device's number, the address and the bits of its network.
pub fn read_address(payload: &[u8]) -> Option<(u32, Ipv4Addr, u8)> {
    let prefix_bits = *payload.get(1)?;
    let index = u32::from_ne_bytes(payload.get(4..8)?.try_into().ok()?);
    let (_, value) =
        attributes(payload.get(ADDRESS_HEADER_BYTES..)?).find(|(kind, _)| *kind == ADDRESS_LOCAL)?;
    let octets: [u8; 4] = value.try_into().ok()?;
    Some((index, octets.into(), prefix_bits))
}

/// Whether a route is one of a move, by the number of who made it.
pub fn is_ours(protocol: u8) -> bool {
    protocol == MADE_BY_US
}

fn to_request(message: &RouteNetlinkMessage, flags: u16) -> Request {
    let mut payload = vec![0; message.buffer_len()];
    message.serialize(&mut payload);
    Request { kind: message.message_type(), flags, payload }
}

fn vxlan(device: &Device) -> LinkMessage {
    LinkVxlan::new(&device.name, device.vni)
        .local(device.local)
        .remote(device.remote)
        .port(VXLAN_PORT)
        .learning(false)
        .address(device.mac.to_vec())
        .mtu(device.mtu_bytes)
        .up()
        .build()
}

fn local(address: Ipv4Addr, prefix_bits: u8, index: u32) -> AddressMessage {
    let mut message = AddressMessage::default();
    message.header.family = AddressFamily::Inet;
    message.header.prefix_len = prefix_bits;
    message.header.index = index;
    message.attributes =
        vec![AddressAttribute::Local(address.into()), AddressAttribute::Address(address.into())];
    message
}

fn neighbour(thing: &Thing, index: u32) -> NeighbourMessage {
    let mut message = NeighbourMessage::default();
    message.header.ifindex = index;
    message.header.family = AddressFamily::Inet;
    message.header.state = NeighbourState::Permanent;
    let at = |address: Ipv4Addr| NeighbourAttribute::Destination(NeighbourAddress::Inet(address));
    let mac_of = |mac: &[u8; 6]| NeighbourAttribute::LinkLayerAddress(mac.to_vec());
    match thing {
        Thing::Neighbour { address, mac, .. } => message.attributes = vec![at(*address), mac_of(mac)],
        Thing::ProxyArp { address, .. } => {
            message.header.flags = NeighbourFlags::Proxy;
            message.attributes = vec![at(*address)];
        }
        Thing::Port { mac, .. } => {
            message.header.family = AddressFamily::Bridge;
            message.header.flags = NeighbourFlags::Controller;
            // A permanent entry is the bridge's own; this one is static: behind the port, and not to be relearned.
            message.header.state = NeighbourState::Noarp;
            message.attributes = vec![mac_of(mac)];
        }
        _ => {}
    }
    message
}

fn route(wanted: &Route, index: u32) -> RouteMessage {
    let scope = if wanted.via.is_some() { RouteScope::Universe } else { RouteScope::Link };
    let mut builder = RouteMessageBuilder::<Ipv4Addr>::new()
        .destination_prefix(wanted.to, wanted.to_bits)
        .output_interface(index)
        .table_id(wanted.table)
        .scope(scope)
        .protocol(RouteProtocol::Other(MADE_BY_US));
    if let Some(via) = wanted.via {
        builder = builder.gateway(via);
    }
    if let Some(source) = wanted.source {
        builder = builder.pref_source(source);
    }
    builder.build()
}

fn local_route(address: Ipv4Addr) -> RouteMessage {
    RouteMessageBuilder::<Ipv4Addr>::new()
        .destination_prefix(address, 32)
        .output_interface(LOOPBACK_INDEX)
        .table_id(LOCAL_TABLE)
        .scope(RouteScope::Host)
        .kind(RouteType::Local)
        .protocol(RouteProtocol::Other(MADE_BY_US))
        .build()
}

fn rule(wanted: &Rule) -> RuleMessage {
    let mut message = RuleMessage::default();
    message.header.family = AddressFamily::Inet;
    message.header.action = RuleAction::ToTable;
    message.attributes = vec![
        RuleAttribute::Priority(wanted.priority),
        RuleAttribute::Table(wanted.table),
        RuleAttribute::Protocol(RouteProtocol::Other(MADE_BY_US)),
    ];
    if let Some(from) = wanted.from {
        message.header.src_len = 32;
        message.attributes.push(RuleAttribute::Source(from.into()));
    }
    if let Some(to) = wanted.to {
        message.header.dst_len = 32;
        message.attributes.push(RuleAttribute::Destination(to.into()));
    }
    message.attributes.extend(wanted.input.clone().map(RuleAttribute::Iifname));
    message.attributes.extend(wanted.mark.map(RuleAttribute::FwMark));
    message
}
