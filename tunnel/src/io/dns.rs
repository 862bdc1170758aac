//! Changes the guest's name at its zone's primary server, and reads back what came of it.
//!
//! ```text
//! look ──► nothing to do? done
//!   ▲  └─► update: UDP, twice, then TCP ─► done ──► read back until the server itself says so
//!   │                                  └─► "not what you found"
//!   └───────────────────────────────────────┘ somebody else changed it, or an attempt before, whose answer was lost
//! ```
//!
//! What was found twice and is denied twice is no record of the name: it comes from a wildcard (`*.example.org`).
//!
//! [`try_key`] and [`try_name`] ask for a change that changes nothing. Servers look at the key and at what it may change
//! before they look at that: BIND and Knot do.

use std::fmt::Debug;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};
use tokio::time::timeout;

use crate::name::{Found, NameChange, Swap, Unfit, listed, nothing_to};
use crate::question::{Heard, ask_address, ask_serial, read_addresses, read_serial};
use crate::update::{Authority, BadUpdate, Denial, Verdict, Wanted};

/// How long an answer is waited for, at each attempt.
const PATIENCE: Duration = Duration::from_secs(3);
/// How often the server is asked whether it knows by now, and the pause between.
const READ_BACK_TIMES: u32 = 10;
const READ_BACK_PAUSE: Duration = Duration::from_millis(100);
/// How often a name is looked at again that somebody else changes at the same time.
const ROUNDS: u32 = 16;

/// A name leads to its guest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Updated {
    /// The zone's serial number afterwards.
    pub serial: u32,
    /// How long resolvers may remember the new address in seconds.
    pub ttl_s: u32,
    /// The name's other addresses, which are not the guest's.
    pub others: Vec<Ipv4Addr>,
    /// From the first question to the server's own answer with the new address.
    pub took: Duration,
    /// False: the name led there already, and nothing was sent.
    pub is_changed: bool,
}

/// Why a name was not changed, or is not known to be.
#[derive(Debug, thiserror::Error)]
pub enum DnsError {
    /// The update itself cannot be.
    #[error("the update cannot be made: {0}")]
    BadUpdate(BadUpdate),
    /// What is found there is not the guest's to change.
    #[error(transparent)]
    Unfit(#[from] Unfit),
    /// The server's no.
    #[error("name server {server}: {denial}")]
    Denied {
        /// Who said it.
        server: SocketAddr,
        /// What.
        denial: Denial,
    },
    /// What is found has no record.
    #[error(
        "name server {server} says that {name} leads to {}, and has no such record of it: is there a wildcard? Add a \
         record of {name} itself",
        listed(.found)
    )]
    NoRecord {
        /// Who said it.
        server: SocketAddr,
        /// The guest's name.
        name: String,
        /// What it says.
        found: Vec<Ipv4Addr>,
    },
    /// It lets the key in, but does not answer questions.
    #[error("name server {server} does not say what {name} leads to: {code}; let this host ask it")]
    Untold {
        /// Who was asked.
        server: SocketAddr,
        /// The name, or the zone.
        name: String,
        /// What it said.
        code: String,
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
    #[error("name server {server} took the update of {name}, but says {}", listed(.found))]
    NotShown {
        /// Who said it.
        server: SocketAddr,
        /// The guest's name.
        name: String,
        /// What it says instead.
        found: Vec<Ipv4Addr>,
    },
}

/// Told in the error's own words, so no source of it: chains would say it twice.
impl From<BadUpdate> for DnsError {
    fn from(bad: BadUpdate) -> Self {
        DnsError::BadUpdate(bad)
    }
}

impl DnsError {
    /// Whether it may pass by itself: nobody answered.
    pub fn is_silence(&self) -> bool {
        matches!(self, DnsError::NoAnswer { .. })
    }
}

#[derive(Clone, Copy, Debug)]
enum Transport {
    Udp,
    Tcp,
}

/// Three attempts.
const ATTEMPTS: [Transport; 3] = [Transport::Udp, Transport::Udp, Transport::Tcp];

/// Makes `change`, and reads back that the server has it.
pub async fn update(authority: &Authority, change: &NameChange) -> Result<Updated, DnsError> {
    let begun = Instant::now();
    let is_changed = settle(authority, &change.name, |found| Ok(change.swap(found)?)).await?.is_some();
    shown(authority, change, begun, is_changed).await
}

/// Whether the key is let in to the zone at all. Changes nothing.
pub async fn try_key(authority: &Authority) -> Result<(), DnsError> {
    send(authority, &Wanted::Nothing).await
}

/// Whether the key may change the addresses of `name`. Changes nothing; gives what the name leads to.
pub async fn try_name(authority: &Authority, name: &str) -> Result<Found, DnsError> {
    let refuse_alias = |found: &Found| match &found.alias {
        Some(target) => Err(Unfit::Alias { name: name.to_owned(), target: target.clone() }.into()),
        None => Ok(Some(nothing_to(found))),
    };
    settle(authority, name, refuse_alias).await?;
    lookup(authority.server, name).await
}

/// What the name leads to, as `server` itself says.
pub async fn lookup(server: SocketAddr, name: &str) -> Result<Found, DnsError> {
    let question = ask_address(number(), name)?;
    read(server, name, &question, |answer| read_addresses(&question, answer)).await
}

/// Looks, decides, and has the server do it if it is still so. None: there was nothing to do.
async fn settle(
    authority: &Authority,
    name: &str,
    decide: impl Fn(&Found) -> Result<Option<Swap>, DnsError>,
) -> Result<Option<Swap>, DnsError> {
    let server = authority.server;
    let mut denied: Option<Vec<Ipv4Addr>> = None;
    let mut pause = tokio::time::interval(READ_BACK_PAUSE);
    for _ in 0..ROUNDS {
        pause.tick().await;
        let found = match lookup(server, name).await {
            // Why it says nothing of the zone is better told by what it says to the key.
            Err(error @ DnsError::Untold { .. }) => {
                try_key(authority).await?;
                return Err(error);
            }
            other => other?,
        };
        let Some(swap) = decide(&found)? else { return Ok(None) };
        let wanted = Wanted::Addresses { name: name.to_owned(), swap: swap.clone() };
        match send(authority, &wanted).await {
            Ok(()) => return Ok(Some(swap)),
            Err(DnsError::Denied { denial: Denial::ChangedByOther { .. }, .. }) => {
                if denied.as_ref() == Some(&swap.expected) {
                    return Err(DnsError::NoRecord { server, name: name.to_owned(), found: swap.expected });
                }
                denied = Some(swap.expected);
            }
            Err(error) => return Err(error),
        }
    }
    let denial = Denial::ChangedByOther { name: name.to_owned(), expected: denied.unwrap_or_default() };
    Err(DnsError::Denied { server, denial })
}

/// Has the server do what is wanted.
async fn send(authority: &Authority, wanted: &Wanted) -> Result<(), DnsError> {
    let server = authority.server;
    let mut last = String::new();
    for transport in ATTEMPTS {
        let signed = authority.sign(wanted, number(), now_s())?;
        let judge = |answer: &[u8]| match signed.judge(answer, now_s()) {
            Verdict::Worthless(_) => Ok(None),
            verdict => Ok(Some(verdict)),
        };
        match exchange(transport, server, &signed.bytes, judge).await {
            Ok(Verdict::Denied(denial)) => return Err(DnsError::Denied { server, denial }),
            Ok(_) => return Ok(()),
            Err(error) => last = format!("{transport:?}: {error}").to_lowercase(),
        }
    }
    Err(DnsError::NoAnswer { server, last })
}

/// Reads back until the server shows the new address, and none that the guest has had.
async fn shown(
    authority: &Authority,
    change: &NameChange,
    begun: Instant,
    is_changed: bool,
) -> Result<Updated, DnsError> {
    let (server, zone) = (authority.server, &authority.zone);
    let mut found = Found::default();
    let mut pause = tokio::time::interval(READ_BACK_PAUSE);
    for _ in 0..READ_BACK_TIMES {
        pause.tick().await;
        found = lookup(server, &change.name).await?;
        if change.is_done(&found) {
            let took = begun.elapsed();
            let question = ask_serial(number(), zone)?;
            let serial = read(server, zone, &question, |answer| read_serial(&question, answer)).await?;
            let (own, others): (Vec<_>, Vec<_>) =
                found.addresses.into_iter().partition(|(address, _)| *address == change.new);
            let ttl_s = own.first().map_or(0, |(_, ttl_s)| *ttl_s);
            let others = others.into_iter().map(|(address, _)| address).collect();
            return Ok(Updated { serial: serial.unwrap_or(0), ttl_s, others, took, is_changed });
        }
    }
    Err(DnsError::NotShown { server, name: change.name.clone(), found: found.hosts() })
}

async fn read<T: Debug>(
    server: SocketAddr,
    name: &str,
    question: &[u8],
    judge: impl Fn(&[u8]) -> Heard<T>,
) -> Result<T, DnsError> {
    let judge = |answer: &[u8]| match judge(answer) {
        Heard::Other => Ok(None),
        Heard::Cut => Err(io::Error::other("the answer does not fit")),
        told => Ok(Some(told)),
    };
    let mut last = String::new();
    for transport in ATTEMPTS {
        match exchange(transport, server, question, judge).await {
            Ok(Heard::Answer(found)) => return Ok(found),
            Ok(Heard::Untold(code)) => {
                return Err(DnsError::Untold { server, name: name.to_owned(), code: code.to_string() });
            }
            Ok(other) => unreachable!("{other:?} is waited over"),
            Err(error) => last = format!("{transport:?}: {error}").to_lowercase(),
        }
    }
    Err(DnsError::NoAnswer { server, last })
}

/// Asks, and waits for the first answer that `judge` takes for one; its error ends the attempt.
async fn exchange<T>(
    transport: Transport,
    server: SocketAddr,
    question: &[u8],
    judge: impl Fn(&[u8]) -> io::Result<Option<T>>,
) -> io::Result<T> {
    let answered = async {
        match transport {
            Transport::Udp => by_udp(server, question, judge).await,
            Transport::Tcp => by_tcp(server, question, judge).await,
        }
    };
    timeout(PATIENCE, answered).await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
}

async fn by_udp<T>(
    server: SocketAddr,
    question: &[u8],
    judge: impl Fn(&[u8]) -> io::Result<Option<T>>,
) -> io::Result<T> {
    let any = if server.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
    let socket = UdpSocket::bind(any).await?;
    socket.connect(server).await?;
    socket.send(question).await?;
    let mut answer = vec![0; 4096];
    loop {
        let len_bytes = socket.recv(&mut answer).await?;
        if let Some(found) = judge(&answer[..len_bytes])? {
            return Ok(found);
        }
    }
}

async fn by_tcp<T>(
    server: SocketAddr,
    question: &[u8],
    judge: impl Fn(&[u8]) -> io::Result<Option<T>>,
) -> io::Result<T> {
    let mut stream = TcpStream::connect(server).await?;
    // In one piece: some servers do not wait for the rest of a torn length.
    let len_bytes = u16::try_from(question.len()).map_err(io::Error::other)?.to_be_bytes();
    stream.write_all(&[&len_bytes, question].concat()).await?;
    loop {
        let mut answer = vec![0; usize::from(stream.read_u16().await?)];
        stream.read_exact(&mut answer).await?;
        if let Some(found) = judge(&answer)? {
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

#[cfg(test)]
mod tests {
    use std::error::Error;

    use super::{BadUpdate, DnsError};

    #[test]
    fn what_an_error_says_itself_is_no_cause_of_it() {
        let error = DnsError::from(BadUpdate("the key mover is empty".to_owned()));
        assert_eq!(error.to_string(), "the update cannot be made: the key mover is empty");
        assert!(error.source().is_none());
    }
}
