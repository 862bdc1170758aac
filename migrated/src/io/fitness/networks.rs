//! Bridges, and the addresses that are this host's or become its guests'. Which of the pool are fit says `host::network::pool`.

use std::fs;
use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;

use tunnel::io::apply::Kernel;

use crate::config::Config;
use crate::finding::Finding;
use crate::io::host::network::pool_findings;

/// An address with the bits of its network.
type Own = (Ipv4Addr, u8);

/// Everything that does not fit.
pub fn look(config: &Config) -> Vec<Finding> {
    let mut findings: Vec<Finding> = config
        .bridges
        .iter()
        .filter_map(|(name, device)| bridge(&format!("bridges.{name}"), device, &found(device)))
        .collect();
    match own_addresses() {
        Ok(own) => findings.extend(addresses(config, &own)),
        Err(error) => findings.push(Finding::new(
            "network",
            format!("this host's addresses cannot be read: {error}"),
            "try it as root",
        )),
    }
    findings.extend(pool_findings(config));
    findings
}

/// What a device is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Device {
    Absent,
    NoBridge,
    Down,
    Bridge,
}

fn found(device: &str) -> Device {
    let folder = Path::new("/sys/class/net").join(device);
    let flags = fs::read_to_string(folder.join("flags")).unwrap_or_default();
    let flags = u32::from_str_radix(flags.trim().trim_start_matches("0x"), 16).unwrap_or_default();
    match (folder.exists(), folder.join("bridge").exists()) {
        (false, _) => Device::Absent,
        (true, false) => Device::NoBridge,
        // IFF_UP.
        (true, true) if flags & 1 == 0 => Device::Down,
        (true, true) => Device::Bridge,
    }
}

fn bridge(key: &str, device: &str, found: &Device) -> Option<Finding> {
    let (what, remedy) = match found {
        Device::Bridge => return None,
        Device::Absent => {
            ("there is no such device", format!("ip link add {device} type bridge, or name another"))
        }
        Device::NoBridge => ("this is no bridge", "name the bridge that guests are to be on".to_owned()),
        Device::Down => ("this bridge is down", format!("ip link set {device} up")),
    };
    Some(Finding::new(key, format!("{device}: {what}"), remedy))
}

fn own_addresses() -> io::Result<Vec<Own>> {
    let mut kernel = Kernel::open()?;
    let mut own = Vec::new();
    for link in kernel.links()? {
        own.extend(kernel.addresses(link.index)?);
    }
    Ok(own)
}

fn addresses(config: &Config, own: &[Own]) -> Vec<Finding> {
    let mut findings = Vec::new();
    let listens = std::iter::once(("listen", config.listen))
        .chain(config.listen_data.iter().map(|address| ("listen_data", *address)));
    let tunnel = config.network.as_ref().map(|network| network.tunnel_address);
    let ours = listens
        .filter_map(|(key, address)| match address.ip() {
            IpAddr::V4(ip) => Some((key, ip)),
            // What the kernel says of its addresses is read for IPv4 only.
            IpAddr::V6(_) => None,
        })
        .chain(tunnel.map(|address| ("network.tunnel_address", address)));
    for (key, address) in ours {
        if !is_own(own, address) {
            let what = format!("{address} is no address of this host");
            findings.push(Finding::new(key, what, "give one that `ip addr` shows"));
        }
    }
    findings
}

fn is_own(own: &[Own], address: Ipv4Addr) -> bool {
    // Of a loopback's network every address is this host's.
    own.iter().any(|own| own.0 == address || own.0.is_loopback() && is_near(*own, address))
}

fn is_near((own, bits): Own, address: Ipv4Addr) -> bool {
    (own.to_bits() ^ address.to_bits()).leading_zeros() >= u32::from(bits)
}

#[cfg(test)]
mod tests {
    use super::{Device, addresses, bridge};
    use crate::config::parse;
    use std::net::Ipv4Addr;

    #[test]
    fn a_bridge_is_there_is_one_and_is_up() {
        let told = |device| bridge("bridges.lan", "br0", &device).map(|finding| finding.to_string());
        assert_eq!(told(Device::Bridge), None);
        let absent =
            "bridges.lan: br0: there is no such device; ip link add br0 type bridge, or name another";
        assert_eq!(told(Device::Absent).as_deref(), Some(absent));
        assert!(told(Device::NoBridge).unwrap().contains("this is no bridge"));
        assert_eq!(
            told(Device::Down).as_deref(),
            Some("bridges.lan: br0: this bridge is down; ip link set br0 up")
        );
    }

    #[test]
    fn addresses_of_the_configuration_are_the_hosts_own() {
        let own =
            [(Ipv4Addr::LOCALHOST, 8), (Ipv4Addr::new(192, 0, 2, 1), 24), (Ipv4Addr::new(10, 1, 0, 1), 24)];
        let told = |text: &str| -> Vec<String> {
            let config = parse(&format!("name = \"a\"\n{text}")).unwrap();
            addresses(&config, &own).iter().map(ToString::to_string).collect()
        };
        let good = "listen = \"192.0.2.1:7070\"\nlisten_data = \"127.9.9.9:7071\"\n\
                    network = { tunnel_address = \"192.0.2.1\" }\n";
        assert_eq!(told(good), [""; 0]);
        let bad = "listen = \"192.0.2.2:7070\"\nlisten_data = \"[2001:db8::1]:7071\"\n\
                   network = { tunnel_address = \"10.1.0.2\" }\n";
        assert_eq!(
            told(bad),
            [
                "listen: 192.0.2.2 is no address of this host; give one that `ip addr` shows",
                "network.tunnel_address: 10.1.0.2 is no address of this host; give one that `ip addr` shows",
            ]
        );
    }
}
