//! The listening side: one port for links, data connections and pairing, and optionally others for data only. Connections
//! for links that this host dialled come here too, when the other host has lost them.
//!
//! Whoever connects costs little before the hello: few connections are between TCP and the end of their hello, each for a
//! few seconds, and the oldest goes for the newest (`link::doorway`). A link is handed out when both of its connections stand; until then nothing is
//! started for it.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;

use super::dial::spawn_clock;
use super::dialler::Dialler;
use super::redial::keep;
use super::register::{Key, LINKS_MAX};
use super::shared::Shared;
use super::{Link, LinkConfig, lane, probing};
use crate::io::keys::{Peer, fingerprint};
use crate::io::pairing::Desk;
use crate::io::tls::acceptor;
use crate::io::tls::greeting::{Secured, answer, refuse};
use crate::link::Lane;
use crate::link::doorway::Doorway;
use crate::link::error::LinkError;
use crate::link::hello::{Hello, Message, Purpose, RefusalCode, Refused, Welcome, negotiate};
use crate::link::session::Side;
use crate::transport::Transport;

/// How long a link may lack its data connection at its beginning.
const DATA_WITHIN: Duration = Duration::from_secs(20);

/// Takes links from peers.
pub struct LinkListener {
    door: Arc<Door>,
    links: tokio::sync::Mutex<mpsc::Receiver<Link>>,
    address: SocketAddr,
    data_addresses: Vec<SocketAddr>,
    _tasks: JoinSet<()>,
}

/// What all connections that come have in common.
struct Door {
    config: LinkConfig,
    acceptor: TlsAcceptor,
    desk: Desk,
    half_open: Mutex<HalfOpen>,
    hand_out: mpsc::Sender<Link>,
}

/// Connections that have not said who they are, and what ends them.
#[derive(Default)]
struct HalfOpen {
    doorway: Doorway,
    tasks: HashMap<u64, AbortHandle>,
}

/// One of them, until this is dropped.
struct Standing {
    door: Arc<Door>,
    number: u64,
}

impl Drop for Standing {
    fn drop(&mut self) {
        let mut half_open = self.door.half_open();
        half_open.doorway.leave(self.number);
        half_open.tasks.remove(&self.number);
    }
}

impl LinkListener {
    /// Listens on the addresses of the configuration.
    pub async fn bind(config: LinkConfig) -> Result<Self, LinkError> {
        let local = |what: String| LinkError::Local(what);
        let acceptor = acceptor(&config.keys)
            .map_err(|error| local(format!("this host's key does not work: {error}")))?;
        let (control, address) = listen(config.control).await?;
        let mut data = Vec::new();
        for address in &config.data {
            data.push(listen(*address).await?);
        }
        let (hand_out, links) = mpsc::channel(LINKS_MAX);
        let data_addresses: Vec<SocketAddr> = data.iter().map(|(_, address)| *address).collect();
        let desk =
            Desk::new(config.name.clone(), &config.keys, config.peers.clone(), address, &data_addresses);
        let door = Door { config, acceptor, desk, half_open: Mutex::default(), hand_out };
        let door = Arc::new(door);
        let mut tasks = JoinSet::new();
        tasks.spawn(serve(door.clone(), control, false));
        for (data, _) in data {
            tasks.spawn(serve(door.clone(), data, true));
        }
        let links = tokio::sync::Mutex::new(links);
        Ok(Self { door, links, address, data_addresses, _tasks: tasks })
    }

    /// The next link that a peer made; both of its connections stand.
    pub async fn accept(&self) -> Link {
        self.links.lock().await.recv().await.expect("the listener holds a sender itself")
    }

    /// Where it listens, with the port that it got.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Where it listens for data connections.
    pub fn data_addresses(&self) -> &[SocketAddr] {
        &self.data_addresses
    }

    /// Pairing: tokens for others, and theirs.
    pub fn desk(&self) -> &Desk {
        &self.door.desk
    }
}

async fn listen(address: SocketAddr) -> Result<(TcpListener, SocketAddr), LinkError> {
    let failed = |error| LinkError::Local(format!("can't listen on {address}: {error}"));
    let listener = TcpListener::bind(address).await.map_err(failed)?;
    let bound = listener.local_addr().map_err(failed)?;
    Ok((listener, bound))
}

async fn serve(door: Arc<Door>, listener: TcpListener, data_only: bool) {
    let mut connections = JoinSet::new();
    loop {
        while connections.try_join_next().is_some() {}
        let (tcp, address) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!("accept: {error}");
                // Out of file descriptors, most likely: trying again at once would only burn.
                tokio::time::sleep(Duration::from_millis(50)).await;
                continue;
            }
        };
        // Held until the task is noted: it may end at once.
        let mut half_open = door.half_open();
        let (number, gone) = half_open.doorway.enter(address.ip(), door.is_known(address.ip()));
        let standing = Standing { door: door.clone(), number };
        let task = connections.spawn(take_in(standing, tcp, address, data_only));
        half_open.tasks.insert(number, task);
        let gone = gone.and_then(|gone| half_open.tasks.remove(&gone));
        drop(half_open);
        if let Some(oldest) = gone {
            tracing::warn!(%address, "too many have not said who they are: the oldest is dropped for this one");
            oldest.abort();
        }
    }
}

async fn take_in(standing: Standing, tcp: TcpStream, address: SocketAddr, data_only: bool) {
    let door = standing.door.clone();
    let within = door.config.hello_within;
    match timeout(within, door.receive(standing, tcp, address, data_only)).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::warn!(%address, "connection refused: {error}"),
        Err(_) => tracing::warn!(%address, "dropped: no hello within {within:?}"),
    }
}

impl Door {
    fn half_open(&self) -> MutexGuard<'_, HalfOpen> {
        self.half_open.lock().expect("nobody panics with the doorway in hand")
    }

    /// Whether a paired host is expected to come from there.
    fn is_known(&self, ip: IpAddr) -> bool {
        let is_of = |peer: &Peer| {
            let addresses = self.config.addresses.get(&peer.name).into_iter().flatten();
            let mut all = addresses.chain(&peer.data_addresses).chain([&peer.address]);
            all.any(|address| address.ip().to_canonical() == ip.to_canonical())
        };
        self.config.peers.all().iter().any(is_of)
    }

    async fn receive(
        self: &Arc<Self>,
        standing: Standing,
        tcp: TcpStream,
        address: SocketAddr,
        data_only: bool,
    ) -> Result<(), LinkError> {
        let (mut secured, message) =
            answer(&self.acceptor, &self.config.congestion_control, tcp, address).await?;
        let result = match message {
            Message::Hello(hello) => self.judge(&hello, &secured, data_only).map(|peer| (hello, peer)),
            other => Err(Refused {
                code: RefusalCode::Other,
                text: format!("a connection begins with a hello, not with {other:?}"),
            }),
        };
        match result {
            Ok((hello, Some(peer))) => {
                // Counted by its key from here on.
                drop(standing);
                self.take(secured, &hello, peer).await
            }
            Ok((hello, None)) => self.desk.serve(secured, self.welcome(&hello)).await,
            Err(refused) => {
                refuse(&mut secured.stream, refused.clone()).await;
                Err(refused.into())
            }
        }
    }

    /// Who may do what. Returns the peer; who pairs is none yet.
    fn judge(&self, hello: &Hello, secured: &Secured, data_only: bool) -> Result<Option<Peer>, Refused> {
        let refused = |code, text| Err(Refused { code, text });
        let us = &self.config.name;
        let (ours, theirs) = (self.config.versions, (hello.version_min, hello.version_max));
        if negotiate(ours, theirs).is_none() {
            let text = format!(
                "{us} speaks versions {} to {} of the link protocol, {} speaks {} to {}; upgrade the older one",
                ours.0, ours.1, hello.name, theirs.0, theirs.1
            );
            return refused(RefusalCode::Version, text);
        }
        // A control connection that has lost its own way may take this one; nothing begins here.
        if data_only && matches!(hello.purpose, Purpose::Begin | Purpose::Pair) {
            let text = format!("this address of {us} takes data connections only, and begins no link");
            return refused(RefusalCode::WrongAddress, text);
        }
        if hello.purpose == Purpose::Pair {
            return Ok(None);
        }
        if let Some(peer) = self.config.peers.by_key(&secured.peer_key) {
            return Ok(Some(peer));
        }
        let shown = fingerprint(&secured.peer_key);
        match self.config.peers.by_name(&hello.name) {
            Some(known) => {
                let text = format!(
                    "{us} knows {} by the key {}, but it came with {shown}; if it was set up anew, pair again",
                    known.name,
                    fingerprint(&known.key)
                );
                refused(RefusalCode::WrongKey, text)
            }
            None => {
                let text = format!(
                    "{us} does not know {} (key {shown}); run `migrated pair` on one host and give its token to the other",
                    hello.name
                );
                refused(RefusalCode::NotPaired, text)
            }
        }
    }

    fn welcome(&self, hello: &Hello) -> Message {
        let theirs = (hello.version_min, hello.version_max);
        let version = negotiate(self.config.versions, theirs).expect("it was judged");
        Message::Welcome(Welcome { version, name: self.config.name.clone() })
    }

    /// Finds the link that a connection belongs to, welcomes it, and lets it run.
    async fn take(
        self: &Arc<Self>,
        mut secured: Secured,
        hello: &Hello,
        peer: Peer,
    ) -> Result<(), LinkError> {
        let key = (secured.peer_key, hello.link);
        let found = match hello.purpose {
            Purpose::Begin => self.begin(key, peer),
            _ => self.config.register.find(&key, &self.config.name, &peer.name),
        };
        let shared = match found {
            Ok(shared) => shared,
            Err(refused) => {
                refuse(&mut secured.stream, refused.clone()).await;
                return Err(refused.into());
            }
        };
        let address = secured.address;
        let hung_up = |error| LinkError::Unreachable(format!("{address} hung up: {error}"));
        secured.say(&self.welcome(hello)).await.map_err(hung_up)?;
        let (lane, connections) = match hello.purpose {
            Purpose::Probe => return probing::count(secured).await.map_err(hung_up),
            Purpose::Stripe => match self.gather(&key, secured).await? {
                Some(connections) => (Lane::Data, connections),
                None => return Ok(()),
            },
            Purpose::Data => (Lane::Data, vec![secured]),
            _ => (Lane::Control, vec![secured]),
        };
        tracing::info!(peer = shared.peer, %address, %lane, connections = connections.len(), "connected");
        shared.see(address.ip());
        lane::start(&shared, lane, connections);
        if lane == Lane::Data {
            let begun = self.config.register.take_begun(&key);
            if let Some(link) = begun
                && self.hand_out.try_send(link).is_err()
            {
                tracing::error!("nobody takes the links that peers make");
            }
        }
        Ok(())
    }

    /// Puts a connection to those of its set; all of them, when the last is here. The others have to come soon.
    async fn gather(&self, key: &Key, mut secured: Secured) -> Result<Option<Vec<Secured>>, LinkError> {
        let address = secured.address;
        match secured.hear().await? {
            Message::Stripe(stripe) => {
                let (register, key, set) = (self.config.register.clone(), *key, stripe.set);
                let whole = register.gather(&key, stripe, secured);
                if whole.is_none() {
                    let within = self.config.hello_within;
                    tokio::spawn(async move {
                        tokio::time::sleep(within).await;
                        register.give_up(&key, set);
                    });
                }
                Ok(whole)
            }
            other => Err(LinkError::Garbage(format!("{address} says {other:?} instead of its place"))),
        }
    }

    fn begin(self: &Arc<Self>, key: Key, peer: Peer) -> Result<Arc<Shared>, Refused> {
        let config = &self.config;
        let shared = config.register.begin(key, &config.name, || {
            let (name, addresses) = (peer.name.clone(), config.addresses_of(&peer));
            let limit = config.bandwidth_bytes_per_s;
            Shared::new(Side::Listener, name, addresses, limit, config.resume_for)
        })?;
        spawn_clock(&shared);
        let (config, id) = (config.clone(), key.1);
        let dialler = Dialler { config, peer, id, transport: Transport::Tcp, side: Side::Listener };
        keep(&Arc::new(dialler), &shared);
        let door = Arc::downgrade(self);
        tokio::spawn(async move {
            tokio::time::sleep(DATA_WITHIN).await;
            // Dropping the link ends it; outside of the lock.
            let late = door.upgrade().and_then(|door| door.config.register.take_begun(&key));
            if let Some(link) = late {
                tracing::warn!(peer = link.peer(), "a link without a data connection is given up");
            }
        });
        Ok(shared)
    }
}
