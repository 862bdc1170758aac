//! The host's configuration, `/etc/migrated/config.toml`: what can be said in it, and what each value means.
//!
//! [`read`] makes a [`Config`] of a text, and refuses what it does not understand; where the text lies and when it is
//! read is not its business. An example with every key is `docs/examples/site-a.toml`.

mod allow;
mod read;

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use blockd::replica::encoding::Compression;
use serde::{Deserialize, Deserializer, Serialize};

use crate::address::{self, Written};

pub use self::allow::{Allow, Allowance, Network4, Pattern};
pub use self::read::{ConfigError, parse};

/// One host.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The host's name among its peers.
    pub name: String,
    /// Where peers reach the control side of this host.
    #[serde(deserialize_with = "address::one")]
    pub listen: SocketAddr,
    /// Where peers reach its data side, one address or several; none: at `listen`.
    #[serde(default, deserialize_with = "address::one_or_many")]
    pub listen_data: Vec<SocketAddr>,
    /// What has to outlive a reboot: key, peers, guests, journals, reports.
    #[serde(default = "state_dir")]
    pub state_dir: PathBuf,
    /// Sockets of this boot. Short: a socket's path has 107 bytes at most.
    #[serde(default = "runtime_dir")]
    pub runtime_dir: PathBuf,
    /// Where guests' disk images lie.
    #[serde(default = "images_dir")]
    pub images_dir: PathBuf,
    /// Where kernels for direct boot lie.
    #[serde(default = "boot_dir")]
    pub boot_dir: PathBuf,
    /// The programs.
    #[serde(default)]
    pub programs: Programs,
    /// How QEMU is run.
    #[serde(default)]
    pub qemu: Qemu,
    /// What guests may use of the host.
    #[serde(default)]
    pub limits: Limits,
    /// What paired hosts may send here, by their names.
    #[serde(default)]
    pub allow: BTreeMap<String, Allow>,
    /// Names of bridges in guest descriptions, and the bridges of this host.
    #[serde(default)]
    pub bridges: BTreeMap<String, String>,
    /// How guests' addresses follow them; none: `--wan` is refused for guests with an address.
    #[serde(default)]
    pub network: Option<Network>,
    /// The zones that this host may update.
    #[serde(default, rename = "dns")]
    pub zones: Vec<Zone>,
    /// The data addresses of a peer, by its name, where they are not those that it gave when it was paired.
    #[serde(default, deserialize_with = "by_peer")]
    pub addresses: BTreeMap<String, Vec<SocketAddr>>,
    /// What carries the links to a peer, by its name; others are reached by TCP. Written like `--transport`.
    #[serde(default)]
    pub transports: BTreeMap<String, String>,
    /// Defaults of a migration.
    #[serde(default)]
    pub migration: Migration,
}

/// The congestion control that a lossy link needs.
pub const BBR: &str = "bbr";

impl Config {
    /// What the host that is paired under the name `peer` may send here.
    pub fn allowance(&self, peer: &str) -> Allowance<'_> {
        match self.allow.get(peer) {
            _ if self.allow.is_empty() => Allowance::Anything,
            Some(allow) => Allowance::Only(allow),
            None => Allowance::Nothing,
        }
    }

    /// The longest zone of this host that a name lies in.
    pub fn zone_of(&self, name: &str) -> Option<&Zone> {
        let name = name.trim_end_matches('.').to_ascii_lowercase();
        let lies_in = |zone: &&Zone| {
            let zone = zone.zone.trim_end_matches('.').to_ascii_lowercase();
            name == zone || name.ends_with(&format!(".{zone}"))
        };
        self.zones.iter().filter(lies_in).max_by_key(|zone| zone.zone.trim_end_matches('.').len())
    }
}

/// Programs that are started.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Programs {
    /// The block daemon.
    pub blockd: PathBuf,
    /// QEMU.
    pub qemu: PathBuf,
}

impl Default for Programs {
    fn default() -> Self {
        Self { blockd: "blockd".into(), qemu: "qemu-system-x86_64".into() }
    }
}

/// How QEMU is run.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Qemu {
    /// The user that it runs as; none: the one that the daemon runs as, which is root.
    pub user: Option<String>,
}

/// What guests may use of the host.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Limits {
    /// Memory of all guests together in MiB; none: what the host has, less 512 MiB.
    pub memory_mib: Option<u64>,
    /// Room in `images_dir` that stays free, in MiB.
    pub disk_reserve_mib: u64,
    /// So many times the room that there is for it, sparse disks may be promised to grow. 1: each may grow to its full size.
    pub disk_overcommit: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self { memory_mib: None, disk_reserve_mib: 0, disk_overcommit: 1 }
    }
}

/// How guests' addresses follow them.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Network {
    /// The address that the other sites' tunnels reach.
    #[serde(deserialize_with = "address::one_ipv4")]
    pub tunnel_address: Ipv4Addr,
    /// Addresses of this site that arriving guests get in addition to their own. Those that this host has itself, that
    /// lead nowhere or that others answer for are passed over.
    #[serde(default, deserialize_with = "address::many_ipv4")]
    pub pool: Vec<Ipv4Addr>,
}

/// A zone that this host may update (RFC 2136, TSIG of RFC 8945).
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Zone {
    /// The zone ("example.org").
    pub zone: String,
    /// Its primary server.
    #[serde(deserialize_with = "address::one")]
    pub server: SocketAddr,
    /// The key's name.
    pub key_name: String,
    /// A file with the key, readable by root only: as tsig-keygen or keymgr write it, or its secret alone in base64
    /// (hmac-sha256).
    pub key_file: PathBuf,
    /// Time to live of the address record in seconds.
    #[serde(default = "ttl_s")]
    pub ttl_s: u32,
}

/// Defaults of a migration; `send` may say otherwise.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Migration {
    /// Bytes a second over all channels; none: what the link gives.
    pub bandwidth_bytes_per_s: Option<u64>,
    /// How long the guest may stand still.
    pub max_downtime_ms: u64,
    /// RAM starts when what is left of the disks takes this long.
    pub ram_start_ms: u64,
    /// How long a paused guest may wait before it is given back to the source (M3).
    pub paused_deadline_ms: u64,
    /// How long a reservation, and the link of a migration, live without a sign of the other host.
    pub lease_ms: u64,
    /// How long a disk may fail, at either host, before a migration is given up for it.
    pub disk_trouble_ms: u64,
    /// The congestion control that connections ask for, as the kernel calls it.
    pub congestion_control: String,
    /// Connections that carry the bulk together, where that control is not bbr; 1: as with bbr.
    pub stripes: u16,
    /// Whether disks and memory are compressed.
    pub compression: Compression,
    /// A migration that has not come nearer to its end for so long, with the link up, is given up.
    pub no_progress_ms: u64,
}

impl Migration {
    /// `max_downtime_ms` as a duration.
    pub fn max_downtime(&self) -> Duration {
        Duration::from_millis(self.max_downtime_ms)
    }
}

impl Default for Migration {
    fn default() -> Self {
        Self {
            bandwidth_bytes_per_s: None,
            max_downtime_ms: 1000,
            ram_start_ms: 2000,
            paused_deadline_ms: 20_000,
            lease_ms: 7_200_000,
            disk_trouble_ms: 60_000,
            congestion_control: BBR.to_owned(),
            stripes: 8,
            compression: Compression::Auto,
            no_progress_ms: 600_000,
        }
    }
}

/// Addresses by peers.
fn by_peer<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<BTreeMap<String, Vec<SocketAddr>>, D::Error> {
    let written = BTreeMap::<String, Vec<Written>>::deserialize(deserializer)?;
    let read =
        |(peer, addresses): (String, Vec<Written>)| (peer, addresses.iter().map(|one| one.0).collect());
    Ok(written.into_iter().map(read).collect())
}

fn state_dir() -> PathBuf {
    "/var/lib/migrated".into()
}

fn runtime_dir() -> PathBuf {
    "/run/migrated".into()
}

fn images_dir() -> PathBuf {
    "/var/lib/migrated/images".into()
}

fn boot_dir() -> PathBuf {
    "/var/lib/migrated/boot".into()
}

fn ttl_s() -> u32 {
    60
}
