//! What the guest sees of its network card and its routes: what must be the same after a move (S0-18, S3-28).

use std::fs;
use std::net::{Ipv4Addr, UdpSocket};

/// The card.
const CARD: &str = "/sys/class/net/eth0";

/// The answer to `network`: hardware address, place on the bus, changes of the carrier so far, own address, and every
/// route as the kernel writes it (network, gateway, mask).
pub fn describe() -> Result<String, String> {
    let read = |name: &str| {
        let path = format!("{CARD}/{name}");
        let text = fs::read_to_string(&path).map_err(|error| format!("{path}: {error}"))?;
        Ok::<_, String>(text.trim().to_owned())
    };
    let device = fs::canonicalize(format!("{CARD}/device"));
    let device = device.map_err(|error| format!("{CARD}/device: {error}"))?;
    let routes = fs::read_to_string("/proc/net/route").map_err(|error| format!("routes: {error}"))?;
    let routes: Vec<String> = routes.lines().skip(1).map(route).collect();
    Ok(format!(
        "ok mac={} bus={} carrier_changes={} address={} routes={}",
        read("address")?,
        device.display(),
        read("carrier_changes")?,
        own_address().map_err(|error| format!("own address: {error}"))?,
        routes.join(","),
    ))
}

/// Network, gateway and mask of a line of `/proc/net/route`.
fn route(line: &str) -> String {
    let fields: Vec<&str> = line.split_whitespace().collect();
    [1, 2, 7].map(|at| fields.get(at).copied().unwrap_or("?")).join("/")
}

/// The address that it speaks to others from. Nothing is sent.
fn own_address() -> std::io::Result<std::net::IpAddr> {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
    socket.connect((Ipv4Addr::new(192, 0, 2, 9), 9))?;
    Ok(socket.local_addr()?.ip())
}
