//! The packet rules of a move, in the language of nft.
//!
//! Every table has a set `open`, which is empty when the table is loaded: rules that would change a path of today
//! ask for a key in it. Loading takes milliseconds and happens before the pause; putting the key in is one short
//! message, and is the switch.
//!
//! Frames are told by the guest's MAC and port and not by the bridge's name: that takes a kernel module which small
//! kernels do not have (nft_meta_bridge).
//!
//! Syntax worth knowing: a chain may not be called `mark`, and a rule ends by a newline or `;`, also before `}`.

use crate::transfer::{Mac, Move, Side};

/// Where every tunnel's packets arrive.
pub const VXLAN_PORT: u16 = 4789;

/// At the source's bridge: frames for the guest that is no longer there go to this host's router.
///
/// Neighbours still have the guest's MAC in their tables. The second chain keeps our own announcement of the
/// guest's address away from the paused guest, which would take it for another owner of its address.
pub fn source_bridge(moved: &Move, bridge_mac: [u8; 6]) -> String {
    let (mac, address) = (Mac(bridge_mac), moved.guest_address);
    let mut text = format!(
        "set open {{ type ether_addr; }}
chain stale {{
    type filter hook prerouting priority -300;
    ether daddr @open ether type {{ ip, arp }} ether daddr set {mac} meta pkttype set host
}}
"
    );
    if let Some(tap) = &moved.tap {
        text += &format!(
            "chain own {{
    type filter hook output priority 0;
    oifname \"{tap}\" arp saddr ip {address} drop
}}
"
        );
    }
    text
}

/// At the destination's bridge: what the guest still sends to the MACs of its old router and neighbours goes to this
/// host's router. Nothing comes from the guest before it runs here, so no key is needed.
pub fn destination_bridge(moved: &Move, bridge_mac: [u8; 6]) -> String {
    let (guest, mac) = (Mac(moved.guest_mac), Mac(bridge_mac));
    let port = moved.tap.as_ref().map_or(String::new(), |tap| format!("iifname \"{tap}\" "));
    // The lowest bit of the first byte: broadcast and multicast, which stay as they are.
    let from = format!("{port}ether saddr {guest} ether daddr & 01:00:00:00:00:00 == 00:00:00:00:00:00");
    let handed_over = format!("ether daddr set {mac} meta pkttype set host");
    format!(
        "set open {{ type ether_addr; }}
chain stale {{
    type filter hook prerouting priority -300;
    {from} ether type ip {handed_over}
    {from} ether type arp arp operation request {handed_over}
}}
"
    )
}

/// At the destination: the new address leads to the guest, and what the guest begins from now on leaves with it.
///
/// Answers are routed before they are translated back, when they still look like old connections: hence the mark.
/// Only a first packet is given the new address; one from the middle of an old connection looks new to the
/// connection tracking of this host, which never saw it begin.
pub fn new_address(moved: &Move, new: std::net::Ipv4Addr) -> String {
    let Move { guest_address: old, bridge, .. } = moved;
    let (device, mark) = (moved.device(), moved.mark());
    format!(
        "set open {{ type ipv4_addr; }}
chain sort {{
    type filter hook prerouting priority -150;
    ct original ip daddr @open ct mark set {mark:#x}
    iifname \"{bridge}\" ip saddr {old} ct state new tcp flags & (syn|ack|rst|fin) == syn ct mark set {mark:#x}
    ct mark {mark:#x} meta mark set {mark:#x}
}}
chain inwards {{
    type nat hook prerouting priority -100;
    ip daddr @open dnat to {old}
}}
chain from_here {{
    type nat hook output priority -100;
    ip daddr @open dnat to {old}
}}
chain outwards {{
    type nat hook postrouting priority 100;
    ip saddr {old} oifname != {{ \"{device}\", \"{bridge}\" }} ct mark {mark:#x} snat to {new}
}}
"
    )
}

/// At either side: what may come into the tunnel's device, and what may come out of it.
///
/// The kernel takes packets of a tunnel's number from everybody who sends them to the port, and routes what is in them.
/// So those that are not of the other end are dropped, after fragments are put together again: a first fragment can be
/// too short to show the number. The number is in the UDP payload, behind four bytes of flags.
///
/// Out of the device come packets for the guest where it is now, and from the guest where it was. The source's own programs
/// are reached too, as the guest has reached them before: it may have its resolver there. The other packets are questions
/// whether the tunnel works, and their answers. All else is dropped, IPv6 as well.
pub fn guard(moved: &Move, side: Side) -> String {
    let Move { id, guest_address: guest, remote, .. } = moved;
    let (device, here, there) = (moved.device(), moved.transit(side), moved.transit(side.other()));
    let whose = match side {
        Side::Source => "saddr",
        Side::Destination => "daddr",
    };
    format!(
        "chain outer {{
    type filter hook input priority -300;
    udp dport {VXLAN_PORT} @th,96,24 {id} ip saddr != {remote} drop
}}
chain inner {{
    type filter hook prerouting priority -300;
    iifname \"{device}\" ip {whose} {guest} accept
    iifname \"{device}\" ip saddr {there} ip daddr {here} ip protocol icmp accept
    iifname \"{device}\" drop
}}
"
    )
}

/// The whole input of nft that puts a table in place of whatever has its name.
pub fn load(family: &str, table: &str, body: &str) -> String {
    format!(
        "table {family} {table} {{}}\ndelete table {family} {table}\ntable {family} {table} {{\n{body}}}\n"
    )
}

/// The whole input of nft that removes a table, whether it is there or not.
pub fn remove(family: &str, table: &str) -> String {
    format!("table {family} {table} {{}}\ndelete table {family} {table}\n")
}
