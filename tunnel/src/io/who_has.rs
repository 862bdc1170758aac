//! Asks a device's network who has an address: ARP probes (RFC 5227, section 2.1.1), and whoever answers.
//!
//! ```text
//! question ──100 ms── question ──── … ──── until the first answer, or for as long as was said
//! ```
//!
//! It changes nobody's table, and hosts that answer for others (proxy ARP of Linux) are silent: so it may be asked at any
//! time, also while tunnels of ours answer for that very address. This host's own addresses are not heard of: it does not
//! ask itself. A machine that sleeps, or lies behind a slow radio, may take longer than anybody waits.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::Ipv4Addr;
use std::ops::ControlFlow;
use std::time::Duration;

use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::UdpSocket;
use tokio::time::{Instant, timeout_at};

use super::announce::device_address;
use super::apply::Kernel;
use crate::arp;
use crate::transfer::Mac;

/// Pause before a question is put again.
const AGAIN_AFTER: Duration = Duration::from_millis(100);

/// Whoever answers first for `address` on the network of `device`; none: nobody does within `limit`.
///
/// # Errors
/// There is no such device, it has no MAC, or this process may not ask (CAP_NET_RAW).
pub async fn first(device: &str, address: Ipv4Addr, limit: Duration) -> io::Result<Option<Mac>> {
    let mut found = None;
    ask(device, &[address], limit, |_, mac| {
        found = Some(mac);
        ControlFlow::Break(())
    })
    .await?;
    Ok(found)
}

/// Everybody who answers for one of `addresses` on the network of `device` within `limit`, which is waited for whole.
///
/// # Errors
/// As with [`first`].
pub async fn all(
    device: &str,
    addresses: &[Ipv4Addr],
    limit: Duration,
) -> io::Result<BTreeMap<Ipv4Addr, BTreeSet<Mac>>> {
    let mut found: BTreeMap<Ipv4Addr, BTreeSet<Mac>> = BTreeMap::new();
    ask(device, addresses, limit, |address, mac| {
        found.entry(address).or_default().insert(mac);
        ControlFlow::Continue(())
    })
    .await?;
    Ok(found)
}

async fn ask(
    device: &str,
    addresses: &[Ipv4Addr],
    limit: Duration,
    mut hear: impl FnMut(Ipv4Addr, Mac) -> ControlFlow<()>,
) -> io::Result<()> {
    let (socket, own) = open(device.to_owned()).await?;
    let deadline = Instant::now() + limit;
    let mut frame = [0; 128];
    while Instant::now() < deadline {
        for address in addresses {
            socket.send(&arp::probe(*address, own)).await?;
        }
        let until = deadline.min(Instant::now() + AGAIN_AFTER);
        while let Ok(heard) = timeout_at(until, socket.recv(&mut frame)).await {
            // What this host says itself for others passes here, too.
            if let Some((address, mac)) = arp::claim(&frame[..heard?])
                && mac != own
                && addresses.contains(&address)
                && hear(address, Mac(mac)).is_break()
            {
                return Ok(());
            }
        }
    }
    Ok(())
}

/// A packet socket in the clothes of a UDP socket, like that of `probe`; and the device's MAC.
async fn open(device: String) -> io::Result<(UdpSocket, [u8; 6])> {
    let opened = tokio::task::spawn_blocking(move || {
        let link = Kernel::open()?.link(&device)?;
        let found = link.and_then(|link| Some((link.index, link.mac?)));
        let (index, mac) = found.ok_or_else(|| {
            io::Error::new(io::ErrorKind::NotFound, format!("there is no device {device} with a MAC"))
        })?;
        // Protocol 0 hears nothing until it is bound: else it would hear other devices in between.
        let socket = Socket::new(Domain::PACKET, Type::RAW, Some(Protocol::from(0)))?;
        socket.set_nonblocking(true)?;
        socket.bind(&device_address(index))?;
        Ok::<_, io::Error>((std::net::UdpSocket::from(socket), mac))
    });
    let (socket, mac) = opened.await.map_err(io::Error::other)??;
    Ok((UdpSocket::from_std(socket)?, mac))
}
