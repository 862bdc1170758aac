//! From the text of a configuration to its values, or to all that is wrong with them.
//!
//! ```text
//! text ── TOML, known keys, types ──► Config ── values ──► Config
//!           │ line and column           │ key by key, all at once
//!           └──────► ConfigError ◄──────┘
//! ```
//!
//! Looks at values only: whether a folder or a program is there is for those to say who use it.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::Path;

use thiserror::Error;

use super::{Allow, Config, Migration, Network, Zone};
use crate::domain_name::{is_zone_name, suggestion};
use crate::guest::is_inner_path;
use crate::link::addresses::DATA_ADDRESSES_MAX;
use crate::link::stripes::STRIPES_MAX;
use crate::transport::Transport;

/// The longest `runtime_dir` in bytes. A socket's path has 107 at most, and below it are a guest's and a disk's name.
const RUNTIME_DIR_BYTES_MAX: usize = 48;
/// The longest name of a network device in bytes.
const DEVICE_BYTES_MAX: usize = 15;
/// Disks may be promised so many times the room that there is; more is a slip of the hand.
const DISK_OVERCOMMIT_MAX: u64 = 1000;
/// The longest name of a host in bytes.
const NAME_BYTES_MAX: usize = 63;

/// Why a configuration is refused.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum ConfigError {
    /// It is no TOML, or has a key or a type that is not known; says line and column.
    #[error("{0}")]
    Text(String),
    /// Values that cannot be meant: each says where, what is wrong, and what to do.
    #[error("{}", .0.join("\n"))]
    Values(Vec<String>),
}

/// Reads and checks a configuration.
pub fn parse(text: &str) -> Result<Config, ConfigError> {
    let config: Config =
        toml::from_str(text).map_err(|error| ConfigError::Text(error.to_string().trim_end().to_owned()))?;
    let faults = config.faults();
    if faults.is_empty() { Ok(config) } else { Err(ConfigError::Values(faults)) }
}

impl Config {
    /// Everything that is wrong with the values, all at once.
    fn faults(&self) -> Vec<String> {
        let mut faults = Faults::default();
        faults.name("name", &self.name);
        faults.reachable("listen", self.listen);
        faults.data_addresses("listen_data", &self.listen_data);
        let same = self.listen_data.contains(&self.listen);
        faults.fault(same, "listen_data", "is the same as listen", "leave it out");
        for (peer, addresses) in &self.addresses {
            faults.data_addresses(&format!("addresses.{peer}"), addresses);
        }
        faults.folders(self);
        if let Some(user) = &self.qemu.user {
            faults.name("qemu.user", user);
        }
        let memory_mib = self.limits.memory_mib;
        faults.fault(
            memory_mib == Some(0),
            "limits.memory_mib",
            "is 0: no guest could run",
            "leave it out for all that the host has",
        );
        faults.fault(
            !(1..=DISK_OVERCOMMIT_MAX).contains(&self.limits.disk_overcommit),
            "limits.disk_overcommit",
            format!("{} is not between 1 and {DISK_OVERCOMMIT_MAX}", self.limits.disk_overcommit),
            "1 keeps room for the full size of every disk",
        );
        for (peer, allow) in &self.allow {
            faults.allow(peer, allow);
        }
        faults.bridges(self);
        if let Some(network) = &self.network {
            faults.network(network);
        }
        for (index, zone) in self.zones.iter().enumerate() {
            faults.zone(index, zone, &self.zones[..index]);
        }
        for (peer, transport) in &self.transports {
            if let Err(error) = Transport::parse(transport) {
                faults.fault(
                    true,
                    &format!("transports.{peer}"),
                    error.to_string(),
                    "see `migrated send --help`",
                );
            }
        }
        faults.migration(&self.migration);
        faults.0
    }
}

#[derive(Default)]
struct Faults(Vec<String>);

impl Faults {
    fn fault(&mut self, is_wrong: bool, key: &str, what: impl AsRef<str>, remedy: &str) {
        if is_wrong {
            self.0.push(format!("{key}: {}; {remedy}", what.as_ref()));
        }
    }

    fn name(&mut self, key: &str, name: &str) {
        let is_known = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
        let is_name = name.starts_with(|c: char| c.is_ascii_alphanumeric())
            && name.chars().all(is_known)
            && name.len() <= NAME_BYTES_MAX;
        let remedy = "use letters, digits, \"-\", \"_\" and \".\", a letter or a digit first, 63 at most";
        self.fault(!is_name, key, format!("{name:?} is no name"), remedy);
    }

    fn reachable(&mut self, key: &str, address: SocketAddr) {
        let ip = address.ip();
        let nowhere = ip.is_unspecified() || ip.is_multicast();
        let remedy = "give the address under which peers reach this host";
        self.fault(nowhere, key, format!("{address} is not an address of one host"), remedy);
        self.fault(address.port() == 0, key, "the port is 0", "peers need a fixed one, like 7070");
    }

    fn data_addresses(&mut self, key: &str, addresses: &[SocketAddr]) {
        for (index, address) in addresses.iter().enumerate() {
            self.reachable(key, *address);
            let again = addresses[..index].contains(address);
            self.fault(again, key, format!("{address} is there twice"), "remove one");
        }
        let count = addresses.len();
        let remedy = format!("name the {DATA_ADDRESSES_MAX} best");
        self.fault(count > DATA_ADDRESSES_MAX, key, format!("{count} addresses are too many"), &remedy);
    }

    fn folders(&mut self, config: &Config) {
        let folders = [
            ("state_dir", &config.state_dir),
            ("runtime_dir", &config.runtime_dir),
            ("images_dir", &config.images_dir),
            ("boot_dir", &config.boot_dir),
        ];
        for (key, folder) in folders {
            let what = format!("{} is not an absolute path", folder.display());
            self.fault(!folder.is_absolute(), key, what, "begin it with /");
        }
        let bytes = config.runtime_dir.as_os_str().len();
        let what = format!("is {bytes} bytes long, and the paths of sockets below it would be too long");
        self.fault(bytes > RUNTIME_DIR_BYTES_MAX, "runtime_dir", what, "use 48 bytes at most");
        let same = config.state_dir == config.runtime_dir;
        self.fault(same, "runtime_dir", "is the same as state_dir", "use a folder that a reboot empties");
        let programs =
            [("programs.blockd", &config.programs.blockd), ("programs.qemu", &config.programs.qemu)];
        for (key, program) in programs {
            let is_path = program.is_absolute() || is_bare(program);
            let what = format!("{:?} is neither a path nor a name", program.display().to_string());
            self.fault(!is_path, key, what, "give an absolute path, or a name that is looked for in $PATH");
        }
    }

    fn allow(&mut self, peer: &str, allow: &Allow) {
        let key = |field: &str| format!("allow.{peer}.{field}");
        self.name(&format!("allow.{peer}"), peer);
        let numbers = [
            ("guests_max", allow.guests_max),
            ("memory_mib", allow.memory_mib),
            ("disk_gib", allow.disk_gib),
            ("cpus", allow.cpus),
        ];
        for (field, number) in numbers {
            let remedy = "say guests = [] if it may send nothing";
            self.fault(number == Some(0), &key(field), "is 0: no guest could come", remedy);
        }
        if let Some(images) = &allow.images {
            let what = format!("{} is no path below images_dir", images.display());
            self.fault(!is_inner_path(images), &key("images"), what, "write it like \"from-site-a\"");
        }
    }

    fn bridges(&mut self, config: &Config) {
        for (name, bridge) in &config.bridges {
            let key = format!("bridges.{name}");
            let is_device = !bridge.is_empty()
                && bridge.len() <= DEVICE_BYTES_MAX
                && bridge.chars().all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c))
                && bridge != "."
                && bridge != "..";
            let what = format!("{bridge:?} is no name of a network device");
            self.fault(!is_device, &key, what, "give the name that `ip link` shows, 15 letters at most");
            self.name(&key, name);
        }
    }

    fn network(&mut self, network: &Network) {
        let nowhere =
            |address: &Ipv4Addr| address.is_unspecified() || address.is_multicast() || address.is_broadcast();
        let address = network.tunnel_address;
        let what = format!("{address} is not an address of one host");
        self.fault(nowhere(&address), "network.tunnel_address", what, "give the one that other sites reach");
        let mut seen = BTreeSet::new();
        for address in &network.pool {
            let key = "network.pool";
            self.fault(nowhere(address), key, format!("{address} is not an address of a guest"), "remove it");
            self.fault(!seen.insert(address), key, format!("{address} is there twice"), "remove one");
            let own = *address == network.tunnel_address;
            self.fault(own, key, format!("{address} is this host's own tunnel_address"), "remove it");
        }
    }

    fn zone(&mut self, index: usize, zone: &Zone, before: &[Zone]) {
        let key = |field: &str| format!("dns[{index}].{field}");
        let name = zone.zone.trim_end_matches('.');
        let is_domain =
            |name: &str| name.len() <= 253 && name.split('.').all(|label| (1..=63).contains(&label.len()));
        let what = format!("{:?} is no name of a zone that a dns_name can lie in", zone.zone);
        let how = suggestion(name).unwrap_or_else(|| "example.org".into());
        self.fault(!is_zone_name(name), &key("zone"), what, &format!("write it like {how:?}"));
        let again = before.iter().any(|other| other.zone.trim_end_matches('.').eq_ignore_ascii_case(name));
        self.fault(again, &key("zone"), format!("{:?} is there twice", zone.zone), "remove one");
        let key_name = zone.key_name.trim_end_matches('.');
        let what = format!("{:?} is no name of a key", zone.key_name);
        self.fault(!is_domain(key_name), &key("key_name"), what, "give the name that the server knows");
        let what = format!("{} is not an absolute path", zone.key_file.display());
        self.fault(!zone.key_file.is_absolute(), &key("key_file"), what, "begin it with /");
        let nowhere = match zone.server.ip() {
            IpAddr::V4(ip) => ip.is_unspecified() || ip.is_multicast(),
            IpAddr::V6(ip) => ip.is_unspecified() || ip.is_multicast(),
        };
        let what = format!("{} is not an address of a server", zone.server);
        self.fault(nowhere || zone.server.port() == 0, &key("server"), what, "write it like 192.0.2.53:53");
        let too_long = zone.ttl_s > 86_400;
        self.fault(too_long, &key("ttl_s"), format!("{} is more than a day", zone.ttl_s), "use 60 or so");
    }

    fn migration(&mut self, migration: &Migration) {
        let key = |field: &str| format!("migration.{field}");
        let no_bandwidth = migration.bandwidth_bytes_per_s == Some(0);
        let remedy = "leave it out for what the link gives";
        self.fault(no_bandwidth, &key("bandwidth_bytes_per_s"), "is 0: nothing could move", remedy);
        let max_downtime_ms = migration.max_downtime_ms;
        let remedy = "say for how long the guest may stand still, like 1000";
        self.fault(max_downtime_ms == 0, &key("max_downtime_ms"), "is 0: no guest could be moved", remedy);
        let paused = migration.paused_deadline_ms;
        let what = format!("{paused} is not more than max_downtime_ms ({max_downtime_ms})");
        let remedy = "a paused guest has to have the time that it may stand still";
        self.fault(paused <= max_downtime_ms, &key("paused_deadline_ms"), what, remedy);
        let stripes = migration.stripes;
        let what = format!("{stripes} connections");
        let remedy = "use 1 to 16, like 8";
        self.fault(!(1..=STRIPES_MAX).contains(&stripes), &key("stripes"), what, remedy);
        let control = &migration.congestion_control;
        let is_name = (1..16).contains(&control.len())
            && control.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte));
        let what = format!("{control:?} is no name of a congestion control");
        let remedy = "use one of those in /proc/sys/net/ipv4/tcp_available_congestion_control, best bbr";
        self.fault(!is_name, &key("congestion_control"), what, remedy);
        let no_progress = migration.no_progress_ms;
        let what = format!("{no_progress} is less than a second");
        let remedy = "a link needs longer to get going; say 600000 for ten minutes";
        self.fault(no_progress < 1000, &key("no_progress_ms"), what, remedy);
        let lease = migration.lease_ms;
        let what = format!("{lease} is less than paused_deadline_ms ({paused})");
        let remedy = "a destination must not give up before the source does";
        self.fault(lease < paused, &key("lease_ms"), what, remedy);
    }
}

/// A program's name without a folder.
fn is_bare(program: &Path) -> bool {
    !program.as_os_str().is_empty() && program.components().count() == 1 && program.file_name().is_some()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Allowance;

    const LEAST: &str = "name = \"site-a\"\nlisten = \"192.0.2.1:7070\"\n";

    fn refused(text: &str) -> String {
        parse(text).unwrap_err().to_string()
    }

    #[test]
    fn a_name_and_an_address_are_enough() {
        let config = parse(LEAST).unwrap();
        assert_eq!((config.name.as_str(), config.migration.max_downtime_ms), ("site-a", 1000));
        assert_eq!(config.runtime_dir, Path::new("/run/migrated"));
    }

    #[test]
    fn data_addresses_are_one_or_several_and_each_is_looked_at() {
        let of = |value: &str| parse(&format!("{LEAST}listen_data = {value}\n"));
        let one = of("\"198.51.100.1:7071\"").unwrap();
        assert_eq!(one.listen_data, of("[\"198.51.100.1:7071\"]").unwrap().listen_data);
        assert!(of("[]").unwrap().listen_data.is_empty());
        let twice = of("[\"198.51.100.1:7071\", \"198.51.100.1:7071\"]").unwrap_err().to_string();
        assert!(twice.contains("listen_data: 198.51.100.1:7071 is there twice"), "{twice}");
        let many: Vec<String> = (1..=5).map(|last| format!("\"198.51.100.{last}:1\"")).collect();
        let many = of(&format!("[{}]", many.join(","))).unwrap_err().to_string();
        assert!(many.contains("5 addresses are too many"), "{many}");
        assert!(of("7071").unwrap_err().to_string().contains("an address and a port"));
        let peer = format!("{LEAST}[addresses]\nsite-b = [\"0.0.0.0:7071\"]\n");
        assert!(refused(&peer).contains("addresses.site-b: 0.0.0.0:7071"));
    }

    #[test]
    fn the_example_of_the_documentation_is_read_and_says_everything() {
        let text = include_str!("../../../docs/examples/site-a.toml");
        let config = parse(text).unwrap();
        assert!(config.network.is_some() && config.zones.len() == 1 && config.bridges.len() == 1);
        assert_eq!((config.transports.len(), config.addresses["site-b"].len()), (1, 2));
        let allow = &config.allow["site-b"];
        assert!(allow.images.is_some() && allow.addresses.is_some() && allow.dns_names.is_some());
        assert!(
            config.qemu.user.is_some()
                && config.listen_data.len() == 2
                && config.migration.bandwidth_bytes_per_s.is_some()
        );
    }

    #[test]
    fn what_cannot_be_read_is_refused_with_line_and_column() {
        let unknown = refused(&format!("{LEAST}colour = \"red\"\n"));
        assert!(unknown.contains("line 3, column 1") && unknown.contains("`colour`"), "{unknown}");
        let nested = refused(&format!("{LEAST}[migration]\nmax_downtime = 3\n"));
        assert!(nested.contains("line 4, column 1") && nested.contains("max_downtime_ms"), "{nested}");
        let typed = refused("name = 7\nlisten = \"192.0.2.1:7070\"\n");
        assert!(typed.contains("line 1, column 8") && typed.contains("string"), "{typed}");
        let broken = refused("name = \"site-a\nlisten = 3");
        assert!(broken.contains("line 1"), "{broken}");
        let allowed = refused(&format!("{LEAST}[allow.site-b]\nmemory = 3\n"));
        assert!(allowed.contains("line 4, column 1") && allowed.contains("memory_mib"), "{allowed}");
        let network = refused(&format!("{LEAST}[allow.site-b]\naddresses = [\"10.1.0.0\"]\n"));
        assert!(network.contains("line 4, column") && network.contains("10.1.0.0/24"), "{network}");
        let address = refused("name = \"a\"\nlisten = \"here\"\n");
        assert!(address.contains("line 2, column 10"), "{address}");
        assert!(refused("").contains("missing field `name`"));
    }

    #[test]
    fn every_value_that_cannot_be_meant_is_named_at_once() {
        let text = r#"
name = "site a"
listen = "0.0.0.0:0"
listen_data = "0.0.0.0:0"
state_dir = "state"
runtime_dir = "/run/a/folder/with/a/name/that/is/much/too/long/for/sockets"
programs = { blockd = "./blockd" }
limits = { memory_mib = 0, disk_overcommit = 0 }
qemu = { user = "a b" }
allow = { site-b = { memory_mib = 0, images = "../x" } }
bridges = { lan = "a-name-of-a-bridge-that-is-too-long" }
network = { tunnel_address = "224.0.0.1", pool = ["192.0.2.9", "192.0.2.9"] }
transports = { site-b = "ssh site-b" }
migration = { bandwidth_bytes_per_s = 0, max_downtime_ms = 0, paused_deadline_ms = 0, lease_ms = 0, stripes = 99, congestion_control = "", no_progress_ms = 0 }
[[dns]]
zone = "example..org"
server = "192.0.2.53:0"
key_name = ""
key_file = "secret"
ttl_s = 999999
"#;
        let ConfigError::Values(faults) = parse(text).unwrap_err() else { panic!("the text is well formed") };
        let keys: Vec<&str> = faults.iter().map(|fault| fault.split(": ").next().unwrap()).collect();
        assert_eq!(
            keys,
            [
                "name",
                "listen",
                "listen",
                "listen_data",
                "listen_data",
                "listen_data",
                "state_dir",
                "runtime_dir",
                "programs.blockd",
                "qemu.user",
                "limits.memory_mib",
                "limits.disk_overcommit",
                "allow.site-b.memory_mib",
                "allow.site-b.images",
                "bridges.lan",
                "network.tunnel_address",
                "network.pool",
                "dns[0].zone",
                "dns[0].key_name",
                "dns[0].key_file",
                "dns[0].server",
                "dns[0].ttl_s",
                "transports.site-b",
                "migration.bandwidth_bytes_per_s",
                "migration.max_downtime_ms",
                "migration.paused_deadline_ms",
                "migration.stripes",
                "migration.congestion_control",
                "migration.no_progress_ms",
            ]
        );
        assert!(faults.iter().all(|fault| fault.contains("; ")), "each says what to do");
    }

    /// Safe by what is written: a list that names one host lets no other in.
    #[test]
    fn without_a_list_all_are_allowed_and_with_one_only_those_in_it() {
        let open = parse(LEAST).unwrap();
        assert_eq!(open.allowance("site-b"), Allowance::Anything);
        let listed = parse(&format!("{LEAST}[allow.site-b]\nguests = [\"web*\"]\n")).unwrap();
        assert_eq!(listed.allowance("site-c"), Allowance::Nothing);
        let Allowance::Only(allow) = listed.allowance("site-b") else { panic!("it is listed") };
        assert!(allow.guests.as_ref().unwrap()[0].matches("web-1") && allow.memory_mib.is_none());
    }

    #[test]
    fn deadlines_fit_each_other() {
        let text = format!("{LEAST}[migration]\nmax_downtime_ms = 30000\n");
        assert!(refused(&text).contains("migration.paused_deadline_ms"), "{}", refused(&text));
        let text = format!("{LEAST}[migration]\nlease_ms = 5000\n");
        assert!(refused(&text).contains("migration.lease_ms"), "{}", refused(&text));
    }

    #[test]
    fn a_zone_is_there_once_however_it_is_written() {
        let zone = |name: &str| {
            format!(
                "[[dns]]\nzone = \"{name}\"\nserver = \"192.0.2.53:53\"\nkey_name = \"k\"\nkey_file = \"/k\"\n"
            )
        };
        let text = format!("{LEAST}{}{}", zone("example.org"), zone("Example.org."));
        assert!(refused(&text).contains("dns[1].zone"), "{}", refused(&text));
    }
}
