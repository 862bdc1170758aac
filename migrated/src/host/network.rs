//! A guest's cards against a host's network: what is refused because it clashes, and what is only said.
//!
//! ```text
//! Network (looked up) ───┐
//! Reservations ──────────┼── findings ──► refusals: a MAC or an address that is another's for certain
//! guest, Occasion ───────┘          └──► warnings: what was heard, and what would leave the guest without its network
//! ```
//!
//! For certain are this host's own guests, addresses and MACs. Whoever answers on a network may be gone in a minute, and a
//! firewall's rules are not read to their end: of those it warns. The guest itself is no clash: within one layer 2 it
//! answers at the destination from where it runs.

pub mod firewall;
pub mod pool;

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;

use tunnel::surroundings::{Bridge, Surroundings};
use tunnel::transfer::Mac;

use super::{Refusal, Reservations};
use crate::guest::{Guest, Nic, parse_mac};

/// What is known of a host's network, at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Network {
    /// What its kernel tells.
    pub here: Surroundings,
    /// The bridges of this host behind the names of descriptions.
    pub bridges: BTreeMap<String, String>,
    /// Who answered for an address, by the device on whose network it was asked.
    pub answers: BTreeMap<(String, Ipv4Addr), BTreeSet<Mac>>,
    /// Guests that tunnels of moves lead from here or to here.
    pub led: Vec<Led>,
    /// Addresses of the pool that guests have, each with its guest.
    pub given: BTreeMap<Ipv4Addr, String>,
    /// Guests that have moved away, each with where to, and its cards as they were then.
    pub gone: Vec<(String, String, Vec<Nic>)>,
    /// What keeps packets from being forwarded, in words; looked for only where a tunnel is wanted.
    pub obstacles: Vec<String>,
}

/// A guest that a tunnel leads to or from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Led {
    /// Its name.
    pub guest: String,
    /// Its MAC.
    pub mac: Mac,
    /// Its address.
    pub address: Ipv4Addr,
}

/// What is to be done with a guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Occasion {
    /// It starts here.
    Run,
    /// It leaves.
    Leave {
        /// By a tunnel.
        wan: bool,
        /// It runs, so it can answer.
        runs: bool,
    },
    /// It comes.
    Arrive {
        /// By a tunnel.
        wan: bool,
        /// It runs, so it can answer.
        runs: bool,
        /// Its address is one of this site.
        is_home: bool,
    },
}

impl Occasion {
    /// Whether a tunnel is wanted.
    pub fn wants_tunnel(self) -> bool {
        matches!(self, Occasion::Leave { wan: true, .. } | Occasion::Arrive { wan: true, .. })
    }

    /// Whether the guest should answer for its address: then it is worth waiting for.
    pub fn awaits_guest(self) -> bool {
        matches!(
            self,
            Occasion::Leave { wan: true, runs: true }
                | Occasion::Arrive { wan: false, runs: true, is_home: false }
        )
    }
}

/// What was found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Findings {
    /// Why it is not done.
    pub refusals: Vec<Refusal>,
    /// What is worth knowing, with what to do.
    pub warnings: Vec<String>,
}

/// Everything that stands in the way of a guest's cards here.
pub fn findings(network: &Network, promised: &Reservations, guest: &Guest, occasion: Occasion) -> Findings {
    let mut found = Findings::default();
    for nic in &guest.nics {
        let (Some(mac), Some(bridge)) = (parse_mac(&nic.mac).map(Mac), network.bridges.get(&nic.bridge))
        else {
            // Refused by others, in their own words.
            continue;
        };
        let card = Card { network, guest, nic, mac, bridge, occasion };
        if !matches!(occasion, Occasion::Leave { .. }) {
            found.refusals.extend(card.mac_holder(promised).map(|holder| card.mac_taken(holder)));
            found.refusals.extend(card.address_holder(promised).map(|holder| card.address_taken(holder)));
            found.warnings.extend(card.gone());
            found.warnings.extend(card.heard_elsewhere());
        }
        found.warnings.extend(card.answered());
        found.warnings.extend(card.without_way());
        found.warnings.extend(card.late_port());
    }
    let has_address = guest.nics.iter().any(|nic| nic.address.is_some());
    if has_address && occasion.wants_tunnel() {
        found.warnings.extend(network.obstacles.iter().cloned());
    }
    found
}

/// One card of the guest.
struct Card<'a> {
    network: &'a Network,
    guest: &'a Guest,
    nic: &'a Nic,
    mac: Mac,
    /// The host's bridge.
    bridge: &'a str,
    occasion: Occasion,
}

impl Card<'_> {
    fn mac_taken(&self, holder: String) -> Refusal {
        Refusal::Mac { nic: self.nic.id.clone(), mac: self.mac.to_string(), holder }
    }

    fn address_taken(&self, holder: String) -> Refusal {
        let address = self.nic.address.expect("only an address that there is has a holder");
        Refusal::Address { nic: self.nic.id.clone(), address, holder }
    }

    fn is_on_this_bridge(&self, other: &Nic) -> bool {
        self.network.bridges.get(&other.bridge).is_some_and(|bridge| bridge == self.bridge)
    }

    fn known_bridge(&self) -> Option<&Bridge> {
        self.network.here.bridges.get(self.bridge)
    }

    /// Who has the card's MAC for certain. The same MAC on another bridge is another network's business.
    fn mac_holder(&self, promised: &Reservations) -> Option<String> {
        if self.mac.0[0] == 0xfe {
            return Some("its own tap, which gets the guest's MAC with fe in front".to_owned());
        }
        let has_it =
            |nic: &Nic| self.is_on_this_bridge(nic) && parse_mac(&nic.mac).map(Mac) == Some(self.mac);
        let guests = promised.others(&self.guest.name).filter(|(_, one)| one.nics.iter().any(has_it));
        let guest = guests.map(|(name, one)| format!("guest {name} here ({})", one.holder)).next();
        let own = self.known_bridge().into_iter().flat_map(|bridge| &bridge.own);
        let own = own
            .filter(|(mac, _)| *mac == self.mac)
            .map(|(_, device)| format!("{device} of this host"))
            .next();
        guest.or_else(|| self.led(|led| led.mac == self.mac)).or(own)
    }

    /// Who has the card's address for certain. Behind another bridge it may be another network's, but for a tunnel,
    /// whose rules are the whole host's.
    fn address_holder(&self, promised: &Reservations) -> Option<String> {
        let address = self.nic.address?;
        let by_tunnel = matches!(self.occasion, Occasion::Arrive { wan: true, .. });
        let has_it = |nic: &Nic| nic.address == Some(address) && (by_tunnel || self.is_on_this_bridge(nic));
        let guests = promised.others(&self.guest.name).filter(|(_, one)| one.nics.iter().any(has_it));
        let guest = guests.map(|(name, one)| format!("guest {name} here ({})", one.holder)).next();
        let given = self.network.given.get(&address).filter(|name| **name != self.guest.name);
        let given = given.map(|name| format!("guest {name}, which has it from [network] pool"));
        let own = self.network.here.owner(address).map(|device| format!("{device} of this host"));
        guest.or_else(|| self.led(|led| led.address == address)).or(given).or(own)
    }

    fn led(&self, is_it: impl Fn(&Led) -> bool) -> Option<String> {
        let led = self.network.led.iter().find(|led| led.guest != self.guest.name && is_it(led))?;
        Some(format!("guest {}, to which a tunnel of this host leads", led.guest))
    }

    /// A guest that went to another host with this MAC or address, and may still be on the same network.
    fn gone(&self) -> Option<String> {
        let clash = |nic: &Nic| {
            let mac = (parse_mac(&nic.mac).map(Mac) == Some(self.mac)).then(|| format!("mac {}", self.mac));
            let address = nic.address.filter(|address| Some(*address) == self.nic.address);
            let what = mac.or(address.map(|address| format!("address {address}")));
            what.filter(|_| self.is_on_this_bridge(nic))
        };
        let led = |name: &String| self.network.led.iter().any(|led| led.guest == *name);
        let others = self.network.gone.iter().filter(|(name, ..)| *name != self.guest.name && !led(name));
        let (name, host, what) = others
            .filter_map(|(name, host, nics)| Some((name, host, nics.iter().find_map(clash)?)))
            .next()?;
        Some(format!(
            "{}: guest {name}, which moved to {host}, has the same {what}; if it runs there, on one network with this host, \
             stop one of the two, or give it another",
            self.nic.id
        ))
    }

    /// The bridge has heard the MAC where the guest cannot be.
    fn heard_elsewhere(&self) -> Option<String> {
        // Without a tunnel both bridges are one network, and what is heard is the guest.
        if matches!(self.occasion, Occasion::Arrive { wan: false, .. }) {
            return None;
        }
        let port = self.port_heard()?;
        let or_what = match self.occasion {
            Occasion::Arrive { .. } => "; or both hosts are on one network: then send without --wan",
            _ => "; or the guest runs elsewhere",
        };
        Some(format!(
            "{}: the bridge {} has heard {} behind {port}: another machine has the guest's MAC{or_what}",
            self.nic.id, self.bridge, self.mac
        ))
    }

    fn port_heard(&self) -> Option<&str> {
        let behind = &self.known_bridge()?.behind;
        behind.iter().find(|(mac, _)| *mac == self.mac).map(|(_, port)| port.as_str())
    }

    fn answers(&self) -> Option<&BTreeSet<Mac>> {
        self.network.answers.get(&(self.bridge.to_owned(), self.nic.address?))
    }

    /// Who answered for the guest's address.
    fn answered(&self) -> Option<String> {
        let (nic, bridge, address) = (&self.nic.id, self.bridge, self.nic.address?);
        let answers = self.answers();
        let others: Vec<String> =
            answers.into_iter().flatten().filter(|mac| **mac != self.mac).map(Mac::to_string).collect();
        if !others.is_empty() {
            let who = others.join(", ");
            return Some(format!(
                "{nic}: {who} on {bridge} answers for {address}, the guest's address: another machine has it; give one of \
                 the two another"
            ));
        }
        match self.occasion {
            Occasion::Run if answers.is_some() => Some(format!(
                "{nic}: {address} on {bridge} is answered for with the guest's own MAC: the guest, or a copy of it, runs \
                 elsewhere; stop one of the two"
            )),
            Occasion::Leave { .. } if self.occasion.awaits_guest() && answers.is_none() => Some(format!(
                "{nic}: the guest does not answer for {address} on {bridge}; if that is not its address, what it has does \
                 not follow it: correct `address`"
            )),
            _ => None,
        }
    }

    /// It comes without a tunnel, and nothing tells that it comes within one network.
    fn without_way(&self) -> Option<String> {
        let Occasion::Arrive { wan: false, runs, is_home: false } = self.occasion else { return None };
        let address = self.nic.address?;
        let is_heard =
            self.port_heard().is_some() || self.answers().is_some_and(|macs| macs.contains(&self.mac));
        let networks: Vec<String> = self
            .network
            .here
            .of_device(self.bridge)
            .map(|own| format!("{}/{}", own.address, own.prefix_bits))
            .collect();
        let is_near = self.network.here.of_device(self.bridge).any(|own| own.is_near(address));
        let why = match (is_near, runs) {
            _ if is_heard => return None,
            // It cannot answer, and its address fits.
            (true, false) => return None,
            (true, true) => format!("does not answer on {} from where it runs", self.bridge),
            (false, _) if networks.is_empty() => format!("is not heard on {}", self.bridge),
            (false, _) => {
                format!("is of no network of {} ({}), and not heard there", self.bridge, networks.join(", "))
            }
        };
        Some(format!(
            "{}: the guest will be cut off, its connections break: {address} {why}, and there is no tunnel; cancel, and \
             send it with --wan, unless both hosts' bridges are one network",
            self.nic.id
        ))
    }

    /// A spanning tree lets a new port wait.
    fn late_port(&self) -> Option<String> {
        let delay_s = self.known_bridge().map_or(0, |bridge| bridge.port_delay.as_secs());
        let nic = &self.nic.id;
        let tree = format!("{nic}: the bridge {} runs a spanning tree (STP)", self.bridge);
        let remedy = format!(
            "where nothing can loop, `ip link set {} type bridge stp_state 0` spares that",
            self.bridge
        );
        match self.occasion {
            _ if delay_s == 0 => None,
            Occasion::Run => {
                Some(format!("{tree}: the guest has no network for the first {delay_s} s; {remedy}"))
            }
            Occasion::Arrive { .. } => Some(format!(
                "{tree}: a new port passes nothing for {delay_s} s, for which the memory waits while the guest runs on; \
                 {remedy}"
            )),
            Occasion::Leave { .. } => Some(format!(
                "{tree}: if the move fails late, the guest has no network for {delay_s} s when it goes on here; {remedy}"
            )),
        }
    }
}

#[cfg(test)]
mod tests;
