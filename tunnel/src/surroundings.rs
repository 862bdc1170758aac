//! A host's network as its kernel tells of it at one moment: addresses, routes, bridges, and who was heard at which port.
//!
//! Values only, and those questions that they answer by themselves. What a clash is, and what follows from it, is for
//! others to say.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::time::Duration;

use crate::transfer::Mac;

/// What there is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Surroundings {
    /// Every address of this host.
    pub addresses: Vec<Address>,
    /// Where its routes lead, but for the default one and those of moves: first address and bits of each network.
    pub routes: Vec<(Ipv4Addr, u8)>,
    /// Its bridges, by name.
    pub bridges: BTreeMap<String, Bridge>,
}

/// An address of this host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Address {
    /// The device that has it.
    pub device: String,
    /// The address.
    pub address: Ipv4Addr,
    /// Bits of its network.
    pub prefix_bits: u8,
}

/// A bridge.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Bridge {
    /// For how long a new port passes nothing, because the bridge runs a spanning tree (IEEE 802.1D: listening and
    /// learning, a forward delay each); zero: it passes everything at once.
    pub port_delay: Duration,
    /// Its own MAC, and those of its ports, each with its device.
    pub own: Vec<(Mac, String)>,
    /// MACs of others, each with the port behind which it is, as far as the bridge has heard.
    pub behind: Vec<(Mac, String)>,
}

/// Whether a bridge's port passes frames.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PortState {
    /// It passes them.
    Forwarding,
    /// Not yet: the spanning tree listens, or learns.
    Soon,
    /// Switched off, without a carrier, or blocked by the spanning tree.
    Blocked,
}

impl PortState {
    /// As the kernel numbers it (linux/if_bridge.h, `BR_STATE_…`).
    pub fn of(number: u8) -> Self {
        match number {
            3 => PortState::Forwarding,
            1 | 2 => PortState::Soon,
            _ => PortState::Blocked,
        }
    }
}

impl Surroundings {
    /// The device of this host that has `address` itself.
    pub fn owner(&self, address: Ipv4Addr) -> Option<&str> {
        self.addresses.iter().find(|own| own.address == address).map(|own| own.device.as_str())
    }

    /// The device in whose network `address` lies, the narrowest first.
    pub fn device_towards(&self, address: Ipv4Addr) -> Option<&str> {
        let near = self.addresses.iter().filter(|own| lies_in(address, own.address, own.prefix_bits));
        near.max_by_key(|own| own.prefix_bits).map(|own| own.device.as_str())
    }

    /// Whether a route leads to `address` that is not the default one.
    pub fn is_routed(&self, address: Ipv4Addr) -> bool {
        self.routes.iter().any(|(first, bits)| lies_in(address, *first, *bits))
    }

    /// Addresses and networks of one device.
    pub fn of_device<'a>(&'a self, device: &'a str) -> impl Iterator<Item = &'a Address> {
        self.addresses.iter().filter(move |own| own.device == device)
    }
}

impl Address {
    /// Whether `other` lies in the same network.
    pub fn is_near(&self, other: Ipv4Addr) -> bool {
        lies_in(other, self.address, self.prefix_bits)
    }
}

/// Whether `address` lies in the network of `one` that has so many bits.
fn lies_in(address: Ipv4Addr, one: Ipv4Addr, bits: u8) -> bool {
    (address.to_bits() ^ one.to_bits()).leading_zeros() >= u32::from(bits)
}

#[cfg(test)]
mod tests {
    use super::{Address, PortState, Surroundings};
    use std::net::Ipv4Addr;

    fn at(text: &str) -> Ipv4Addr {
        text.parse().unwrap()
    }

    #[test]
    fn an_address_is_owned_near_routed_or_nowhere() {
        let own = |device: &str, address: &str, prefix_bits| Address {
            device: device.to_owned(),
            address: at(address),
            prefix_bits,
        };
        let here = Surroundings {
            addresses: vec![
                own("wan0", "10.0.0.1", 8),
                own("br0", "10.2.0.1", 24),
                own("lo", "127.0.0.1", 8),
            ],
            routes: vec![(at("198.51.100.0"), 28)],
            ..Surroundings::default()
        };
        assert_eq!((here.owner(at("10.2.0.1")), here.owner(at("10.2.0.2"))), (Some("br0"), None));
        assert_eq!(here.device_towards(at("10.2.0.255")), Some("br0"));
        assert_eq!(here.device_towards(at("10.3.0.1")), Some("wan0"));
        assert_eq!(here.device_towards(at("192.0.2.1")), None);
        assert!(here.is_routed(at("198.51.100.15")) && !here.is_routed(at("198.51.100.16")));
        assert_eq!(here.of_device("br0").count(), 1);
    }

    #[test]
    fn a_port_passes_frames_in_one_state_only() {
        let states = [0, 1, 2, 3, 4, 5].map(PortState::of);
        assert_eq!(states.iter().filter(|state| **state == PortState::Forwarding).count(), 1);
        assert_eq!(
            (states[1], states[2], states[3]),
            (PortState::Soon, PortState::Soon, PortState::Forwarding)
        );
    }
}
