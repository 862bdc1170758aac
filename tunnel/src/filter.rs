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

use crate::transfer::{Mac, Move};

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
