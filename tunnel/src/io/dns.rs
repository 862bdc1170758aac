//! Changes the guest's name at its zone's primary server, and reads back what came of it.
//!
//! ```text
//! UDP, twice, then TCP ─► done? ──► read back until the server itself says NEW
//!                     └─► "somebody else changed it", after an attempt without an answer?
//!                         that one may have been ours: the server says NEW already ─► done
//! ```

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};
use tokio::time::timeout;

use crate::update::{self, BadUpdate, Denial, NameUpdate, Verdict};

/// How long an answer is waited for, at each attempt.
const PATIENCE: Duration = Duration::from_secs(3);
/// How often the server is asked whether it knows by now, and the pause between.
const READ_BACK_TIMES: u32 = 10;
const READ_BACK_PAUSE: Duration = Duration::from_millis(100);

/// A name was changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Updated {
    /// The zone's serial number afterwards.
    pub serial: u32,
    /// How long resolvers may remember the new address.
    pub ttl_s: u32,
    /// From the first attempt to the server's own answer with the new address.
    pub took: Duration,
    /// Which attempt succeeded, from 1.
    pub attempt: u32,
}

/// Why a name was not changed, or is not known to be.
#[derive(Debug, thiserror::Error)]
pub enum DnsError {
    /// The update itself cannot be.
    #[error("the update cannot be made: {0}")]
    BadUpdate(#[from] BadUpdate),
    /// The server's no.
    #[error("name server {server}: {denial}")]
    Denied {
        /// Who said it.
        server: SocketAddr,
        /// What.
        denial: Denial,
    },
    /// No attempt got an answer.
    #[error("name server {server} does not answer: {last}")]
    NoAnswer {
        /// Who was asked.
        server: SocketAddr,
        /// What became of the last attempt.
        last: String,
    },
    /// It said "done" and does not show it.
    #[error("name server {server} took the update of {name}, but says {found:?}")]
    NotShown {
        /// Who said it.
        server: SocketAddr,
        /// The guest's name.
        name: String,
        /// What it says instead.
        found: Vec<Ipv4Addr>,
    },
}

#[derive(Clone, Copy, Debug)]
enum Transport {
    Udp,
    Tcp,
}

/// Three attempts.
const ATTEMPTS: [Transport; 3] = [Transport::Udp, Transport::Udp, Transport::Tcp];

/// Make `update`, and read back that the server has it.
pub async fn update(update: &NameUpdate) -> Result<Updated, DnsError> {
    let server = update.server;
    let begun = Instant::now();
    let mut last = String::new();
    for (attempt, transport) in (1..).zip(ATTEMPTS) {
        let signed = update.sign(number(), now_s())?;
        let judge = |answer: &[u8]| match signed.judge(answer, now_s()) {
            Verdict::Worthless(_) => None,
            verdict => Some(verdict),
        };
        match exchange(transport, server, &signed.bytes, judge).await {
            Ok(Verdict::Denied(denial @ Denial::ChangedByOther { .. })) if attempt > 1 => {
                return match shown(update, begun, attempt).await {
                    Ok(updated) => Ok(updated),
                    Err(_) => Err(DnsError::Denied { server, denial }),
                };
            }
            Ok(Verdict::Denied(denial)) => return Err(DnsError::Denied { server, denial }),
            Ok(_) => return shown(update, begun, attempt).await,
            Err(error) => last = format!("{transport:?}: {error}").to_lowercase(),
        }
    }
    Err(DnsError::NoAnswer { server, last })
}

/// What the name stands for, as `server` itself says.
pub async fn lookup(server: SocketAddr, name: &str) -> Result<Vec<Ipv4Addr>, DnsError> {
    let question = update::ask_address(number(), name)?;
    let found = read(server, &question, |answer| update::read_addresses(&question, answer)).await?;
    Ok(found.into_iter().map(|(address, _)| address).collect())
}

/// Read back until the server shows the new address alone.
async fn shown(wanted: &NameUpdate, begun: Instant, attempt: u32) -> Result<Updated, DnsError> {
    let NameUpdate { server, name, zone, new, .. } = wanted.clone();
    let mut found = Vec::new();
    let mut pause = tokio::time::interval(READ_BACK_PAUSE);
    for _ in 0..READ_BACK_TIMES {
        pause.tick().await;
        let question = update::ask_address(number(), &name)?;
        found = read(server, &question, |answer| update::read_addresses(&question, answer)).await?;
        if let [(address, ttl_s)] = found[..]
            && address == new
        {
            let took = begun.elapsed();
            let question = update::ask_serial(number(), &zone)?;
            let serial = read(server, &question, |answer| update::read_serial(&question, answer)).await?;
            return Ok(Updated { serial, ttl_s, took, attempt });
        }
    }
    let found = found.into_iter().map(|(address, _)| address).collect();
    Err(DnsError::NotShown { server, name, found })
}

async fn read<T>(
    server: SocketAddr,
    question: &[u8],
    judge: impl Fn(&[u8]) -> Option<T>,
) -> Result<T, DnsError> {
    let mut last = String::new();
    for transport in ATTEMPTS {
        match exchange(transport, server, question, &judge).await {
            Ok(found) => return Ok(found),
            Err(error) => last = format!("{transport:?}: {error}").to_lowercase(),
        }
    }
    Err(DnsError::NoAnswer { server, last })
}

/// Ask, and wait for the first answer that `judge` takes for one.
async fn exchange<T>(
    transport: Transport,
    server: SocketAddr,
    question: &[u8],
    judge: impl Fn(&[u8]) -> Option<T>,
) -> io::Result<T> {
    let answered = async {
        match transport {
            Transport::Udp => by_udp(server, question, judge).await,
            Transport::Tcp => by_tcp(server, question, judge).await,
        }
    };
    timeout(PATIENCE, answered).await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
}

async fn by_udp<T>(server: SocketAddr, question: &[u8], judge: impl Fn(&[u8]) -> Option<T>) -> io::Result<T> {
    let any = if server.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
    let socket = UdpSocket::bind(any).await?;
    socket.connect(server).await?;
    socket.send(question).await?;
    let mut answer = vec![0; 4096];
    loop {
        let len_bytes = socket.recv(&mut answer).await?;
        if let Some(found) = judge(&answer[..len_bytes]) {
            return Ok(found);
        }
    }
}

async fn by_tcp<T>(server: SocketAddr, question: &[u8], judge: impl Fn(&[u8]) -> Option<T>) -> io::Result<T> {
    let mut stream = TcpStream::connect(server).await?;
    // In one piece: some servers do not wait for the rest of a torn length.
    let len_bytes = u16::try_from(question.len()).map_err(io::Error::other)?.to_be_bytes();
    stream.write_all(&[&len_bytes, question].concat()).await?;
    loop {
        let mut answer = vec![0; usize::from(stream.read_u16().await?)];
        stream.read_exact(&mut answer).await?;
        if let Some(found) = judge(&answer) {
            return Ok(found);
        }
    }
}

fn now_s() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

/// A message's number. An update's answer is checked by its signature; this only tells one from the next.
fn number() -> u16 {
    let nanoseconds = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.subsec_nanos());
    (nanoseconds ^ nanoseconds >> 16) as u16
}
