//! How a TCP connection of the link is set up: congestion control, little unsent data in the kernel and room for all that
//! is under way, no delay, dead peers noticed. A connection that is not TCP has nothing to be set.

use std::io::ErrorKind;
use std::mem::zeroed;
use std::net::SocketAddr;
use std::os::fd::AsRawFd;
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::socket::{setsockopt, sockopt};
use socket2::{SockRef, Socket};
use tokio::net::{TcpSocket, TcpStream};

/// What is in flight and not acknowledged after this long has no peer.
const USER_TIMEOUT: Duration = Duration::from_secs(3);

/// What may be under way on the connections of a lane, each way. The kernel's own bound (`net.ipv4.tcp_wmem`, 4 MiB with
/// its headers) is less than BBR wants on a long way, and a sender that meets it looks to BBR as if it had nothing to
/// send: it goes on searching for the rate at three times of it (docs/decisions/tcp-with-bbr.md).
pub const UNDER_WAY_BYTES_MAX: u64 = 16 << 20;

/// Segments with data that a connection has sent. Those sent again are the nearest to loss that a sender knows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Segments {
    /// All of them, those sent again included.
    pub sent: u64,
    /// Those that were sent again.
    pub resent: u64,
}

/// A second handle of a connection, to turn its knobs while TLS has the first.
#[derive(Debug)]
pub struct Knobs {
    /// None: not a connection of TCP.
    socket: Option<Socket>,
    unsent_bytes: u64,
    congestion_control: String,
}

/// The congestion control that a connection would get if it asked for `wanted`: not to be had without the module or the
/// permission, so it is read back and never assumed.
pub fn congestion_control(wanted: &str) -> std::io::Result<String> {
    let socket = TcpSocket::new_v4()?;
    ask_for(&SockRef::from(&socket), wanted)
}

fn ask_for(socket: &SockRef<'_>, wanted: &str) -> std::io::Result<String> {
    let _ = socket.set_tcp_congestion(wanted.as_bytes());
    let name = socket.tcp_congestion()?;
    Ok(String::from_utf8_lossy(&name).trim_end_matches('\0').to_owned())
}

impl Knobs {
    /// Sets a fresh connection up.
    pub fn set_up(stream: &TcpStream, wanted: &str) -> std::io::Result<Self> {
        let socket = SockRef::from(stream);
        stream.set_nodelay(true)?;
        socket.set_tcp_user_timeout(Some(USER_TIMEOUT))?;
        let congestion_control = ask_for(&socket, wanted)?;
        let mut knobs = Self { socket: Some(socket.try_clone()?), unsent_bytes: 0, congestion_control };
        knobs.set_unsent(128 << 10);
        Ok(knobs)
    }

    /// Of a connection that a program carries.
    pub fn none(program: &str) -> Self {
        Self { socket: None, unsent_bytes: 0, congestion_control: format!("by {program}") }
    }

    /// Lets the kernel hold about so many bytes that are not sent yet.
    pub fn set_unsent(&mut self, bytes: u64) {
        // Small changes are not worth a system call.
        if bytes.abs_diff(self.unsent_bytes) * 4 > self.unsent_bytes {
            self.unsent_bytes = bytes;
            if let Some(socket) = &self.socket {
                let _ = socket.set_tcp_notsent_lowat(u32::try_from(bytes).unwrap_or(u32::MAX));
            }
        }
    }

    /// Makes room for so much under way, each way. Not before the peer is known: whoever connects could fill it. Without the
    /// right to (CAP_NET_ADMIN) the kernel's own bounds stay.
    pub fn widen(&self, bytes: u64) {
        let Some(socket) = &self.socket else { return };
        let bytes = usize::try_from(bytes).unwrap_or(usize::MAX);
        // The kernel doubles it, for its headers.
        let widened = setsockopt(socket, sockopt::SndBufForce, &bytes)
            .and_then(|()| setsockopt(socket, sockopt::RcvBufForce, &bytes));
        if let Err(error) = widened {
            tracing::debug!(%error, "a connection's buffers stay as the kernel has them");
        }
    }

    /// What it has sent since it was made; nothing is known of a connection that a program carries.
    pub fn segments(&self) -> Segments {
        let info = self.socket.as_ref().and_then(|socket| tcp_info(socket).ok());
        info.map_or_else(Segments::default, |info| Segments {
            sent: info.tcpi_data_segs_out.into(),
            resent: info.tcpi_total_retrans.into(),
        })
    }

    /// The congestion control in use, or who else sees to it.
    pub fn congestion_control(&self) -> &str {
        &self.congestion_control
    }
}

/// What the kernel counts of a connection. Counters that it does not know yet are 0.
fn tcp_info(socket: &Socket) -> nix::Result<libc::tcp_info> {
    // SAFETY: a structure of numbers, for which 0 is a value.
    let mut info: libc::tcp_info = unsafe { zeroed() };
    let mut bytes = size_of::<libc::tcp_info>() as libc::socklen_t;
    // SAFETY: the kernel writes at most `bytes` bytes to `info`; both outlive the call.
    let got = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::IPPROTO_TCP,
            libc::TCP_INFO,
            (&raw mut info).cast(),
            &raw mut bytes,
        )
    };
    Errno::result(got).map(|_| info)
}

/// Connects, from a given address if there is one of the same family. An address that this host has no more is no
/// reason not to connect: hosts are given others while a link lives.
pub async fn connect(to: SocketAddr, from: Option<SocketAddr>) -> std::io::Result<TcpStream> {
    let socket = if to.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    if let Some(from) = from.filter(|from| !from.ip().is_unspecified() && from.is_ipv4() == to.is_ipv4()) {
        match socket.bind(SocketAddr::new(from.ip(), 0)) {
            Err(error) if error.kind() == ErrorKind::AddrNotAvailable => {
                tracing::warn!(%to, from = %from.ip(), "this host has lost its data address; dialling from another");
            }
            bound => bound?,
        }
    }
    socket.connect(to).await
}

#[cfg(test)]
mod tests {
    use nix::unistd::geteuid;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::{Knobs, Segments, SockRef, UNDER_WAY_BYTES_MAX, connect};

    #[tokio::test]
    async fn there_is_room_for_what_is_under_way_on_a_long_way() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let near = connect(listener.local_addr().unwrap(), None).await.unwrap();
        let knobs = Knobs::set_up(&near, "cubic").unwrap();
        let sizes = || {
            let socket = SockRef::from(&near);
            [socket.send_buffer_size().unwrap() as u64, socket.recv_buffer_size().unwrap() as u64]
        };
        let before = sizes();
        knobs.widen(UNDER_WAY_BYTES_MAX);
        assert_eq!(sizes(), if geteuid().is_root() { [2 * UNDER_WAY_BYTES_MAX; 2] } else { before });
        Knobs::none("a program").widen(UNDER_WAY_BYTES_MAX);
    }

    #[tokio::test]
    async fn what_was_sent_is_counted_in_segments() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut near = connect(listener.local_addr().unwrap(), None).await.unwrap();
        let (mut far, _) = listener.accept().await.unwrap();
        let knobs = Knobs::set_up(&near, "cubic").unwrap();
        assert_eq!(knobs.segments(), Segments::default());
        for _ in 0..3 {
            near.write_all(&[7; 100]).await.unwrap();
            far.read_exact(&mut [0; 100]).await.unwrap();
        }
        // A segment may go twice on a machine that is busy, but none is missing.
        let Segments { sent, resent } = knobs.segments();
        assert_eq!(sent - resent, 3);
        assert_eq!(Knobs::none("a program").segments(), Segments::default());
    }
}
