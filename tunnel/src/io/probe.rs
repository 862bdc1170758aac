//! Whether somebody answers: ICMP echo requests until one is answered or time is up.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::UdpSocket;
use tokio::time::{Instant, timeout_at};

use crate::echo;

/// Pause before the question is put again.
const AGAIN_AFTER: Duration = Duration::from_millis(200);

/// Why there was no answer.
#[derive(Debug, thiserror::Error)]
pub enum ProbeError {
    /// Nobody answered.
    #[error("{address} did not answer within {} ms", .timeout.as_millis())]
    Silent {
        /// Who was asked.
        address: Ipv4Addr,
        /// How long.
        timeout: Duration,
    },
    /// The question could not be put.
    #[error("ask {address}: {source}{}", hint(.source))]
    Socket {
        /// Who was to be asked.
        address: Ipv4Addr,
        /// Why not.
        source: io::Error,
    },
}

fn hint(error: &io::Error) -> &'static str {
    if error.kind() == io::ErrorKind::PermissionDenied { "; needs CAP_NET_RAW" } else { "" }
}

/// The time that `address` takes to answer; asks again until then, at most for `timeout`.
pub async fn reachable(address: Ipv4Addr, timeout: Duration) -> Result<Duration, ProbeError> {
    through(None, address, timeout).await
}

/// The same, out of `device` and in through it.
pub async fn through(
    device: Option<&str>,
    address: Ipv4Addr,
    timeout: Duration,
) -> Result<Duration, ProbeError> {
    let failed = |source| ProbeError::Socket { address, source };
    let socket = open(device).map_err(failed)?;
    let target = SocketAddr::from((address, 0));
    let deadline = Instant::now() + timeout;
    // A slow answer to an early question counts as well.
    let mut asked: Vec<(u32, Instant)> = Vec::new();
    let mut refused = None;
    while Instant::now() < deadline {
        let key = next_key();
        asked.push((key, Instant::now()));
        // "No route" may change while we ask; all else is for good.
        match socket.send_to(&echo::request(key), target).await {
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => return Err(failed(error)),
            Err(error) => refused = Some(error),
            Ok(_) => refused = None,
        }
        let until = deadline.min(Instant::now() + AGAIN_AFTER);
        if let Ok(answered) = timeout_at(until, answer(&socket, address, &asked)).await {
            return answered.map(|then| then.elapsed()).map_err(failed);
        }
    }
    Err(refused.map_or(ProbeError::Silent { address, timeout }, failed))
}

/// A raw ICMP socket in the clothes of a UDP socket, for which the runtime has a safe wrapper: sending and receiving
/// are the same calls.
fn open(device: Option<&str>) -> io::Result<UdpSocket> {
    let socket = Socket::new(Domain::IPV4, Type::RAW, Some(Protocol::ICMPV4))?;
    socket.set_nonblocking(true)?;
    socket.bind_device(device.map(str::as_bytes))?;
    UdpSocket::from_std(socket.into())
}

/// When the question was asked that is answered. A raw socket hears every ICMP packet of this host.
async fn answer(socket: &UdpSocket, from: Ipv4Addr, asked: &[(u32, Instant)]) -> io::Result<Instant> {
    let mut packet = [0; 256];
    loop {
        match socket.recv(&mut packet).await {
            Ok(len_bytes) => {
                let packet = &packet[..len_bytes];
                if let Some((_, then)) = asked.iter().find(|(key, _)| echo::is_reply(packet, from, *key)) {
                    return Ok(*then);
                }
            }
            // An earlier question came back as "unreachable": it may be reachable by now.
            Err(error) if error.kind() == io::ErrorKind::HostUnreachable => {}
            Err(error) => return Err(error),
        }
    }
}

/// Distinct for every question of this host's probes, as far as 32 bits go.
fn next_key() -> u32 {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    std::process::id() << 16 | (COUNT.fetch_add(1, Ordering::Relaxed) & 0xffff)
}
