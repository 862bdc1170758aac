//! The listening side: one port for links, data connections and pairing, and optionally a second for data only.
//!
//! Whoever connects costs little before the hello: at most [`HALF_OPEN_MAX`] connections are between TCP and the end of
//! their hello, each for a few seconds. A link is handed out when both of its connections stand; until then nothing is
//! started for it.

use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, Weak};
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;

use super::dial::spawn_clock;
use super::shared::Shared;
use super::{Link, LinkConfig, lane};
use crate::io::keys::{Spki, fingerprint};
use crate::io::pairing::Desk;
use crate::io::tls::acceptor;
use crate::io::tls::greeting::{Secured, answer, refuse};
use crate::link::Lane;
use crate::link::error::LinkError;
use crate::link::hello::{Hello, LinkId, Message, Purpose, RefusalCode, Refused, Stripe, Welcome, negotiate};
use crate::link::session::Side;

/// Most connections that have not finished their hello.
pub const HALF_OPEN_MAX: usize = 32;
/// Most links at a time.
pub const LINKS_MAX: usize = 64;
/// How long a link may lack its data connection at its beginning.
const DATA_WITHIN: Duration = Duration::from_secs(10);

/// Takes links from peers.
pub struct LinkListener {
    door: Arc<Door>,
    links: tokio::sync::Mutex<mpsc::Receiver<Link>>,
    address: SocketAddr,
    data_address: Option<SocketAddr>,
    _tasks: JoinSet<()>,
}

/// What all connections that come have in common.
struct Door {
    config: LinkConfig,
    acceptor: TlsAcceptor,
    desk: Desk,
    half_open: Arc<Semaphore>,
    known: Mutex<HashMap<(Spki, LinkId), Known>>,
    hand_out: mpsc::Sender<Link>,
}

struct Known {
    shared: Weak<Shared>,
    /// Not handed out yet: its data connection is missing.
    begun: Option<Link>,
    /// The newest set of connections that are to be the data connection together, as far as they are here.
    gathered: Gathered,
}

#[derive(Default)]
struct Gathered {
    set: u64,
    connections: BTreeMap<u16, Secured>,
}

impl Gathered {
    /// Takes a connection in; the whole set, if it was the last one missing.
    fn add(&mut self, stripe: Stripe, secured: Secured) -> Option<Vec<Secured>> {
        if self.set != stripe.set {
            // The dialler has given the old ones up.
            *self = Self { set: stripe.set, ..Self::default() };
        }
        self.connections.insert(stripe.index, secured);
        let is_whole = self.connections.len() == usize::from(stripe.count);
        is_whole.then(|| std::mem::take(&mut self.connections).into_values().collect())
    }
}

impl LinkListener {
    /// Listens on the addresses of the configuration.
    pub async fn bind(config: LinkConfig) -> Result<Self, LinkError> {
        let local = |what: String| LinkError::Local(what);
        let acceptor = acceptor(&config.keys)
            .map_err(|error| local(format!("this host's key does not work: {error}")))?;
        let (control, address) = listen(config.control).await?;
        let data = match config.data {
            Some(data) => Some(listen(data).await?),
            None => None,
        };
        let (hand_out, links) = mpsc::channel(LINKS_MAX);
        let data_address = data.as_ref().map(|(_, address)| *address);
        let desk = Desk::new(config.name.clone(), &config.keys, config.peers.clone(), address, data_address);
        let half_open = Arc::new(Semaphore::new(HALF_OPEN_MAX));
        let door = Door { config, acceptor, desk, half_open, known: Mutex::default(), hand_out };
        let door = Arc::new(door);
        let mut tasks = JoinSet::new();
        tasks.spawn(serve(door.clone(), control, false));
        if let Some((data, _)) = data {
            tasks.spawn(serve(door.clone(), data, true));
        }
        let links = tokio::sync::Mutex::new(links);
        Ok(Self { door, links, address, data_address, _tasks: tasks })
    }

    /// The next link that a peer made; both of its connections stand.
    pub async fn accept(&self) -> Link {
        self.links.lock().await.recv().await.expect("the listener holds a sender itself")
    }

    /// Where it listens, with the port that it got.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Where it listens for data connections only.
    pub fn data_address(&self) -> Option<SocketAddr> {
        self.data_address
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
        let Ok(permit) = door.half_open.clone().try_acquire_owned() else {
            tracing::warn!(%address, "turned away: {HALF_OPEN_MAX} connections have not said who they are");
            continue;
        };
        let door = door.clone();
        connections.spawn(async move {
            let within = door.config.hello_within;
            match timeout(within, door.receive(tcp, address, data_only)).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => tracing::warn!(%address, "connection refused: {error}"),
                Err(_) => tracing::warn!(%address, "dropped: no hello within {within:?}"),
            }
            drop(permit);
        });
    }
}

impl Door {
    async fn receive(
        self: &Arc<Self>,
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
            Ok((hello, _)) if hello.purpose == Purpose::Pair => {
                self.desk.serve(secured, self.welcome(&hello)).await
            }
            Ok((hello, peer)) => self.take(secured, &hello, peer).await,
            Err(refused) => {
                refuse(&mut secured.stream, refused.clone()).await;
                Err(refused.into())
            }
        }
    }

    /// Who may do what. Returns the peer's name.
    fn judge(&self, hello: &Hello, secured: &Secured, data_only: bool) -> Result<String, Refused> {
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
        if data_only && !matches!(hello.purpose, Purpose::Data | Purpose::Stripe) {
            let text = format!("this address of {us} takes data connections only");
            return refused(RefusalCode::WrongAddress, text);
        }
        if hello.purpose == Purpose::Pair {
            return Ok(hello.name.clone());
        }
        if let Some(peer) = self.config.peers.by_key(&secured.peer_key) {
            return Ok(peer.name);
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
        peer: String,
    ) -> Result<(), LinkError> {
        let key = (secured.peer_key, hello.link);
        let found = match hello.purpose {
            Purpose::Begin => self.begin(key, peer),
            _ => self.find(&key, &peer),
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
            Purpose::Stripe => match self.gather(&key, secured).await? {
                Some(connections) => (Lane::Data, connections),
                None => return Ok(()),
            },
            Purpose::Data => (Lane::Data, vec![secured]),
            _ => (Lane::Control, vec![secured]),
        };
        tracing::info!(peer = shared.peer, %address, %lane, connections = connections.len(), "connected");
        lane::start(&shared, lane, connections);
        if lane == Lane::Data {
            let begun = self.locked().get_mut(&key).and_then(|known| known.begun.take());
            if let Some(link) = begun
                && self.hand_out.try_send(link).is_err()
            {
                tracing::error!("nobody takes the links that peers make");
            }
        }
        Ok(())
    }

    /// Puts a connection to those of its set; all of them, when the last is here.
    async fn gather(
        &self,
        key: &(Spki, LinkId),
        mut secured: Secured,
    ) -> Result<Option<Vec<Secured>>, LinkError> {
        let address = secured.address;
        let stripe = match secured.hear().await? {
            Message::Stripe(stripe) => stripe,
            other => {
                return Err(LinkError::Garbage(format!("{address} says {other:?} instead of its place")));
            }
        };
        Ok(self.locked().get_mut(key).and_then(|known| known.gathered.add(stripe, secured)))
    }

    fn begin(self: &Arc<Self>, key: (Spki, LinkId), peer: String) -> Result<Arc<Shared>, Refused> {
        let mut known = self.locked();
        known.retain(|_, known| known.shared.upgrade().is_some_and(|shared| shared.over.borrow().is_none()));
        let busy =
            |text: &str| Refused { code: RefusalCode::Busy, text: format!("{}: {text}", self.config.name) };
        if known.contains_key(&key) {
            return Err(busy("a link of this number has begun already"));
        }
        if known.len() >= LINKS_MAX {
            return Err(busy("too many links; try again later"));
        }
        let limit = self.config.bandwidth_bytes_per_s;
        let shared = Shared::new(Side::Listener, peer, limit, self.config.resume_for);
        spawn_clock(&shared);
        let link = Link::new(shared.clone());
        known.insert(
            key,
            Known { shared: Arc::downgrade(&shared), begun: Some(link), gathered: Gathered::default() },
        );
        let door = Arc::downgrade(self);
        tokio::spawn(async move {
            tokio::time::sleep(DATA_WITHIN).await;
            // Dropping the link ends it; outside of the lock.
            let late = door.upgrade().and_then(|door| door.locked().get_mut(&key)?.begun.take());
            if let Some(link) = late {
                tracing::warn!(peer = link.peer(), "a link without a data connection is given up");
            }
        });
        Ok(shared)
    }

    fn find(&self, key: &(Spki, LinkId), peer: &str) -> Result<Arc<Shared>, Refused> {
        let shared = self.locked().get(key).and_then(|known| known.shared.upgrade());
        shared.filter(|shared| shared.over.borrow().is_none()).ok_or_else(|| Refused {
            code: RefusalCode::UnknownLink,
            text: format!("{} has no such link with {peer} (any more)", self.config.name),
        })
    }

    fn locked(&self) -> MutexGuard<'_, HashMap<(Spki, LinkId), Known>> {
        self.known.lock().expect("nobody panics with the links in hand")
    }
}
