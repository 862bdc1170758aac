//! One change to this host's network, as a value with its exact inverse.
//!
//! A change only adds or removes a thing that is the move's own, or sets a number and remembers what it was.
//! Nothing replaces what somebody else made: that is what makes undoing exact.

use std::fmt;
use std::net::Ipv4Addr;

use crate::transfer::Mac;

/// One change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// Something that was not there.
    Add(Thing),
    /// Something that was there.
    Remove(Thing),
    /// A number of a device.
    Set {
        /// Whose.
        device: String,
        /// Which.
        setting: Setting,
        /// What it becomes.
        value: u32,
        /// What it was.
        earlier: u32,
    },
}

impl Change {
    /// What takes this change back.
    pub fn inverse(self) -> Self {
        match self {
            Change::Add(thing) => Change::Remove(thing),
            Change::Remove(thing) => Change::Add(thing),
            Change::Set { device, setting, value, earlier } => {
                Change::Set { device, setting, value: earlier, earlier: value }
            }
        }
    }
}

/// What takes all of `changes` back: the inverses, last first.
pub fn undo(changes: &[Change]) -> Vec<Change> {
    changes.iter().rev().cloned().map(Change::inverse).collect()
}

/// Something in the kernel.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Thing {
    /// A VXLAN device between two hosts, up.
    Device(Device),
    /// What a device remembers: its alias. It goes when the device goes.
    Record {
        /// Whose.
        device: String,
        /// At most 255 bytes.
        text: String,
    },
    /// An address of a device.
    Address {
        /// Whose.
        device: String,
        /// The address.
        address: Ipv4Addr,
        /// Bits of its network.
        prefix_bits: u8,
    },
    /// Somebody's MAC behind a device, known for good.
    Neighbour {
        /// Behind which.
        device: String,
        /// Whose.
        address: Ipv4Addr,
        /// The MAC.
        mac: [u8; 6],
    },
    /// Requests for this one address, heard on a device, are answered with the device's own MAC.
    ProxyArp {
        /// Heard on which.
        device: String,
        /// For which address.
        address: Ipv4Addr,
    },
    /// A route.
    Route(Route),
    /// This host takes packets for the address as its own.
    LocalAddress {
        /// Which.
        address: Ipv4Addr,
    },
    /// A rule that leads to a routing table.
    Rule(Rule),
    /// A bridge's port behind which a MAC is, whatever the bridge learns.
    Port {
        /// The port.
        port: String,
        /// The MAC.
        mac: [u8; 6],
    },
    /// A table of packet rules.
    Filter {
        /// Where it applies.
        family: Family,
        /// Its name.
        table: String,
        /// What is in it, in the language of nft.
        body: String,
    },
    /// The key in a filter's set `open`: from now on the rules that ask for it apply.
    Gate {
        /// Of which filter.
        family: Family,
        /// Its name.
        table: String,
        /// A MAC or an address, as the set's type wants it.
        key: Vec<u8>,
    },
}

/// A VXLAN device.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Device {
    /// Its name.
    pub name: String,
    /// The network's number.
    pub vni: u32,
    /// This end.
    pub local: Ipv4Addr,
    /// The other end.
    pub remote: Ipv4Addr,
    /// Its own MAC.
    pub mac: [u8; 6],
    /// The largest packet inside.
    pub mtu_bytes: u32,
}

/// A route.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Route {
    /// In which table.
    pub table: u32,
    /// To where.
    pub to: Ipv4Addr,
    /// Bits of `to` that count.
    pub to_bits: u8,
    /// Through whom; none: directly.
    pub via: Option<Ipv4Addr>,
    /// Out of which device.
    pub device: String,
    /// As whom this host itself speaks on it.
    pub source: Option<Ipv4Addr>,
}

/// A rule that leads to a routing table. A packet must match all that is given.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Rule {
    /// Smaller comes first.
    pub priority: u32,
    /// From whom.
    pub from: Option<Ipv4Addr>,
    /// To whom.
    pub to: Option<Ipv4Addr>,
    /// In through which device.
    pub input: Option<String>,
    /// With which mark.
    pub mark: Option<u32>,
    /// To which table.
    pub table: u32,
}

/// Where a filter applies.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Family {
    /// Frames on bridges.
    Bridge,
    /// IPv4 packets.
    Ip,
    /// Packets of every version of IP.
    Inet,
}

impl Family {
    /// Every place where a move may have a filter.
    pub const ALL: [Family; 3] = [Family::Bridge, Family::Ip, Family::Inet];

    /// The word of nft.
    pub fn word(self) -> &'static str {
        match self {
            Family::Bridge => "bridge",
            Family::Ip => "ip",
            Family::Inet => "inet",
        }
    }
}

/// A number that the kernel keeps for each device.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Setting {
    /// Whether packets that come in through the device are routed further.
    Forwarding,
    /// Whether requests for all that lies behind other devices are answered.
    ProxyArp,
    /// How long such an answer is held back at most, in hundredths of a second.
    ProxyDelay,
    /// Whether neighbours are told of shorter ways. Counts only where it is off for `all` too.
    SendRedirects,
}

impl Setting {
    /// Every setting that a move may change.
    pub const ALL: [Setting; 4] =
        [Setting::Forwarding, Setting::ProxyArp, Setting::ProxyDelay, Setting::SendRedirects];

    /// The kernel's word for it.
    pub fn word(self) -> &'static str {
        match self {
            Setting::Forwarding => "forwarding",
            Setting::ProxyArp => "proxy_arp",
            Setting::ProxyDelay => "proxy_delay",
            Setting::SendRedirects => "send_redirects",
        }
    }

    /// Where the kernel keeps it.
    pub fn path(self, device: &str) -> String {
        let folder = match self {
            Setting::ProxyDelay => "neigh",
            Setting::Forwarding | Setting::ProxyArp | Setting::SendRedirects => "conf",
        };
        format!("/proc/sys/net/ipv4/{folder}/{device}/{}", self.word())
    }
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Change::Add(thing) => write!(f, "add {thing}"),
            Change::Remove(thing) => write!(f, "remove {thing}"),
            Change::Set { device, setting, value, .. } => {
                write!(f, "set {} of {device} to {value}", setting.word())
            }
        }
    }
}

impl fmt::Display for Thing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Thing::Device(Device { name, vni, local, remote, .. }) => {
                write!(f, "vxlan device {name} (number {vni}, {local} to {remote})")
            }
            Thing::Record { device, .. } => write!(f, "the record on {device}"),
            Thing::Address { device, address, prefix_bits } => {
                write!(f, "address {address}/{prefix_bits} on {device}")
            }
            Thing::Neighbour { device, address, mac } => {
                write!(f, "neighbour {address} at {} on {device}", Mac(*mac))
            }
            Thing::ProxyArp { device, address } => write!(f, "proxy ARP for {address} on {device}"),
            Thing::Route(route) => route.fmt(f),
            Thing::LocalAddress { address } => write!(f, "local address {address}"),
            Thing::Rule(rule) => rule.fmt(f),
            Thing::Port { port, mac } => write!(f, "{} behind port {port}", Mac(*mac)),
            Thing::Filter { family, table, .. } => write!(f, "nft table {} {table}", family.word()),
            Thing::Gate { family, table, .. } => write!(f, "the key of nft table {} {table}", family.word()),
        }
    }
}

impl fmt::Display for Route {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Route { table, to, to_bits, device, .. } = self;
        write!(f, "route to {to}/{to_bits}")?;
        self.via.iter().try_for_each(|via| write!(f, " via {via}"))?;
        write!(f, " through {device} in table {table}")
    }
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "rule {}:", self.priority)?;
        self.from.iter().try_for_each(|from| write!(f, " from {from}"))?;
        self.to.iter().try_for_each(|to| write!(f, " to {to}"))?;
        self.input.iter().try_for_each(|input| write!(f, " in through {input}"))?;
        self.mark.iter().try_for_each(|mark| write!(f, " with mark {mark:#x}"))?;
        write!(f, " looks into table {}", self.table)
    }
}
