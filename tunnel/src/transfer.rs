//! What moves and between where, and every name and number that follows from it.
//!
//! ```text
//! id (24 bits) ─┬─► VNI                 the same at both sides
//!               ├─► device, nft table   move<id>, at most 12 characters
//!               ├─► routing table, mark 0x4d000000 | id
//!               └─► transit network     240.0.0.0/6 holds exactly 2^24 networks of four addresses
//! ```
//!
//! The transit addresses never leave the two hosts. They are of the reserved class E, which Linux routes and which
//! nobody's network uses; a link-local network would hold only 2^14 moves and the metadata address of clouds.

use std::fmt;
use std::net::Ipv4Addr;

/// A device's name has at most so many bytes.
const NAME_BYTES_MAX: usize = 15;

/// Above everything that fits into a move's id: "M".
const NUMBER_SPACE: u32 = 0x4d00_0000;

/// A guest's move, as one of the two sites sees it: the other site's value differs in `local`, `remote`, `bridge`
/// and `tap`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Move {
    /// Names the move at both sites: 1 to 2^24 - 1.
    pub id: u32,
    /// The guest's MAC.
    pub guest_mac: [u8; 6],
    /// The guest's address, which it keeps.
    pub guest_address: Ipv4Addr,
    /// This end of the tunnel: an address of this host that the other one reaches.
    pub local: Ipv4Addr,
    /// The other end of the tunnel.
    pub remote: Ipv4Addr,
    /// The bridge that the guest is attached to at this site.
    pub bridge: String,
    /// The guest's port on the bridge, where it is known.
    pub tap: Option<String>,
    /// At the destination: an address of this site that leads to the guest too.
    pub new_address: Option<Ipv4Addr>,
}

/// Which end of the move this host is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Side {
    /// The guest comes from here.
    Source,
    /// The guest goes here.
    Destination,
}

/// A [`Move`] that cannot be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct BadMove(pub String);

impl Move {
    /// Whether every field is usable. Names end up in paths and in rules, so only harmless letters pass.
    pub fn check(&self) -> Result<(), BadMove> {
        let bad = |what: String| Err(BadMove(what));
        check_id(self.id)?;
        for name in std::iter::once(&self.bridge).chain(&self.tap) {
            if !is_device_name(name) {
                return bad(format!(
                    "\"{name}\" is no name of a network device: 1 to {NAME_BYTES_MAX} letters, digits, '-', '_', '.'"
                ));
            }
        }
        if self.guest_mac[0] & 1 != 0 || self.guest_mac == [0; 6] {
            return bad(format!("{} is not the MAC of one machine", Mac(self.guest_mac)));
        }
        let addresses = [self.guest_address, self.local, self.remote];
        for address in addresses.into_iter().chain(self.new_address) {
            if address.is_unspecified() || address.is_multicast() || address.is_broadcast() {
                return bad(format!("{address} is not the address of one machine"));
            }
        }
        if self.local == self.remote {
            return bad(format!("both ends of the tunnel are {}", self.local));
        }
        if addresses[1..].contains(&self.guest_address) {
            return bad(format!("the guest's address {} is an end of its own tunnel", self.guest_address));
        }
        if self.new_address == Some(self.guest_address) {
            return bad(format!("the new address is the old one, {}", self.guest_address));
        }
        Ok(())
    }

    /// The same move, only to be tried: its guest is behind no port of the bridge, so none of its rules meets a frame.
    pub fn trial(self) -> Self {
        Self { tap: Some(self.no_port()), ..self }
    }

    /// Whether this is one that is only tried.
    pub fn is_trial(&self) -> bool {
        self.tap.as_deref() == Some(&self.no_port())
    }

    /// The name of a port that there never is.
    fn no_port(&self) -> String {
        format!("try{}", self.id)
    }

    /// The tunnel's device, and the table of packet rules, at either side.
    pub fn device(&self) -> String {
        device_of(self.id)
    }

    /// The routing table of this move.
    pub fn table(&self) -> u32 {
        NUMBER_SPACE | self.id
    }

    /// The mark of connections that use the new address.
    pub fn mark(&self) -> u32 {
        NUMBER_SPACE | self.id
    }

    /// The address of `side`'s end inside the tunnel.
    pub fn transit(&self, side: Side) -> Ipv4Addr {
        let host = match side {
            Side::Source => 1,
            Side::Destination => 2,
        };
        Ipv4Addr::from_bits(0xf000_0000 | self.id << 2 | host)
    }

    /// The MAC of `side`'s end inside the tunnel: known to both beforehand, so that nobody asks across the WAN.
    pub fn transit_mac(&self, side: Side) -> [u8; 6] {
        transit_mac(self.id, side)
    }
}

fn transit_mac(id: u32, side: Side) -> [u8; 6] {
    let [_, a, b, c] = id.to_be_bytes();
    let host = match side {
        Side::Source => 1,
        Side::Destination => 2,
    };
    // The second lowest bit of the first byte: given out locally.
    [0x02, b'M', host, a, b, c]
}

/// Whether a device with this MAC was made for move `id`.
pub fn is_transit_mac(mac: [u8; 6], id: u32) -> bool {
    [Side::Source, Side::Destination].into_iter().any(|side| transit_mac(id, side) == mac)
}

/// Whether `id` fits into a VNI.
pub fn check_id(id: u32) -> Result<(), BadMove> {
    if (1..1 << 24).contains(&id) {
        return Ok(());
    }
    Err(BadMove(format!("{id} cannot number a move: 1 to {}", (1 << 24) - 1)))
}

/// The name of the device of move `id`.
pub fn device_of(id: u32) -> String {
    format!("move{id}")
}

impl Side {
    /// The other end.
    pub fn other(self) -> Self {
        match self {
            Side::Source => Side::Destination,
            Side::Destination => Side::Source,
        }
    }
}

fn is_device_name(name: &str) -> bool {
    // The last two are folders of the kernel's settings, and not devices.
    (1..=NAME_BYTES_MAX).contains(&name.len())
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte))
        && !name.starts_with('.')
        && name != "all"
        && name != "default"
}

/// A MAC, in the usual notation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Mac(pub [u8; 6]);

impl fmt::Display for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::{Move, Side};
    use std::collections::BTreeSet;
    use std::net::Ipv4Addr;

    /// A move with everything in it.
    pub(crate) fn example() -> Move {
        Move {
            id: 7,
            guest_mac: [0x52, 0x54, 0, 0x12, 0x34, 0x56],
            guest_address: Ipv4Addr::new(10, 1, 0, 100),
            local: Ipv4Addr::new(192, 0, 2, 6),
            remote: Ipv4Addr::new(192, 0, 2, 2),
            bridge: "br0".to_owned(),
            tap: Some("tap0".to_owned()),
            new_address: Some(Ipv4Addr::new(198, 51, 100, 7)),
        }
    }

    #[test]
    fn names_and_numbers_of_any_two_moves_differ_and_fit() {
        let (mut devices, mut tables, mut transits) = (BTreeSet::new(), BTreeSet::new(), BTreeSet::new());
        // Ids that differ in one bit, the lowest and the highest.
        let ids: BTreeSet<u32> = (0..24).map(|bit| 1 << bit).chain([3, 5, 0xff_fffe, 0xff_ffff]).collect();
        for id in &ids {
            let one = Move { id: *id, ..example() };
            one.check().unwrap();
            assert!(one.device().len() <= 15);
            devices.insert(one.device());
            tables.insert(one.table());
            for side in [Side::Source, Side::Destination] {
                assert!(transits.insert(one.transit(side)), "{id}");
                assert!(one.transit(side).octets()[0] >> 2 == 0xf0 >> 2, "{}", one.transit(side));
            }
        }
        assert_eq!((devices.len(), tables.len()), (ids.len(), ids.len()));
        let last = Move { id: 0xff_ffff, ..example() };
        assert_eq!(last.transit(Side::Destination), Ipv4Addr::new(243, 255, 255, 254));
    }

    #[test]
    fn both_sides_agree_on_the_transit_network() {
        let ours = example();
        assert_eq!(ours.transit(Side::Source), Ipv4Addr::new(240, 0, 0, 29));
        assert_eq!(ours.transit(Side::Source.other()), Ipv4Addr::new(240, 0, 0, 30));
        assert_ne!(ours.transit_mac(Side::Source), ours.transit_mac(Side::Destination));
    }

    #[test]
    fn what_cannot_be_a_move_is_refused_with_the_reason() {
        let refused = |bad: Move| bad.check().unwrap_err().0;
        assert_eq!(
            refused(Move { id: 1 << 24, ..example() }),
            "16777216 cannot number a move: 1 to 16777215"
        );
        assert!(Move { id: 0, ..example() }.check().is_err());
        for name in ["", "a-name-too-long-", "br0;reboot", "../x", "br 0", "all", "default", "br0\""] {
            let reason = refused(Move { bridge: name.to_owned(), ..example() });
            assert!(reason.starts_with(&format!("\"{name}\" is no name")), "{reason}");
            assert!(Move { tap: Some(name.to_owned()), ..example() }.check().is_err());
        }
        assert!(refused(Move { guest_mac: [0xff; 6], ..example() }).contains("ff:ff:ff:ff:ff:ff"));
        assert!(refused(Move { guest_mac: [0; 6], ..example() }).contains("MAC"));
        assert!(refused(Move { guest_address: Ipv4Addr::UNSPECIFIED, ..example() }).contains("0.0.0.0"));
        assert!(refused(Move { remote: example().local, ..example() }).contains("both ends"));
        assert!(refused(Move { guest_address: example().local, ..example() }).contains("own tunnel"));
        assert!(
            refused(Move { new_address: Some(example().guest_address), ..example() }).contains("old one")
        );
    }

    #[test]
    fn a_move_that_is_only_tried_is_told_from_a_real_one() {
        let tried = Move { id: (1 << 24) - 1, ..example() }.trial();
        assert!(tried.check().is_ok() && tried.is_trial());
        assert!(!example().is_trial() && !Move { tap: None, ..example() }.is_trial());
    }
}
