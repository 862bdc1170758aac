//! The link as its users see it: dial or listen, open and accept channels, look at its numbers.
//!
//! ```text
//!  Link, Channel ──► shared (the pure session, a lock, wakers) ◄── lane × 2 (a task for each connection)
//!       ▲                                                             ▲
//!  dial (makes a link) ── probing (which data address?) ──────────────┤
//!  redial (both sides: what was lost, the better way) ── dialler ─────┤
//!  listener (links, data connections, pairing) ── register ───────────┘
//! ```
//!
//! A link has two connections: control, which carries the control channel only, and data, for everything bulky (several
//! connections together where the congestion control needs it); so a stalled data connection does not stall the control channel. Neither is given to QEMU or blockd: they get channels.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::timeout;

use self::shared::Shared;
use super::keys::{Keys, KeysError, Peer, PeerStore};
use crate::config::Config;
use crate::link::addresses::{Addresses, Found};
use crate::link::error::LinkError;
use crate::link::hello::{VERSION_MAX, VERSION_MIN};
use crate::link::session::ChannelStats;
use crate::link::{Class, Label, Lane};
use crate::quantity::ms;
use crate::status::LinkProgress;
use crate::transport::Transport;

mod shared;
mod channel;
mod register;
mod lane;
mod dialler;
mod redial;
mod probing;
mod dial;
mod listener;
mod relay;

pub use channel::Channel;
pub use listener::LinkListener;
pub use register::Register;
pub use relay::copy_both;
pub use shared::News;

/// How long an echo is waited for.
const PING_WITHIN: Duration = Duration::from_secs(3);
/// How long `close` waits for what was written to arrive.
const CLOSE_WITHIN: Duration = Duration::from_secs(3);

/// What a host needs for links.
#[derive(Clone, Debug)]
pub struct LinkConfig {
    /// This host's name.
    pub name: String,
    /// This host's key.
    pub keys: Keys,
    /// The hosts that it is paired with.
    pub peers: PeerStore,
    /// Where it listens: links, pairing, and data connections.
    pub control: SocketAddr,
    /// Where it listens for data connections; if it is one, it dials them from there. None: as control.
    pub data: Vec<SocketAddr>,
    /// The data addresses of certain peers, where they are not those that are stored with them.
    pub addresses: BTreeMap<String, Vec<SocketAddr>>,
    /// Data addresses are probed when a link is made; not worth it for a few words.
    pub probes: bool,
    /// The links that live at this host.
    pub register: Register,
    /// The limit with which links begin.
    pub bandwidth_bytes_per_s: Option<u64>,
    /// What carries links; none: what `transports` says of the peer, else TCP.
    pub transport: Option<Transport>,
    /// What carries the links to certain peers.
    pub transports: BTreeMap<String, Transport>,
    /// The congestion control that connections ask for.
    pub congestion_control: String,
    /// Connections that carry the data lane together, where that is not bbr.
    pub stripes: u16,
    /// Oldest and newest version of the protocol to offer.
    pub versions: (u16, u16),
    /// How long TCP, TLS and the hello may take together.
    pub hello_within: Duration,
    /// How long a link without a connection is kept; zero: it ends with its connection.
    pub resume_for: Duration,
}

impl LinkConfig {
    /// With key and peers from the state directory.
    pub fn load(config: &Config) -> Result<Self, KeysError> {
        Ok(Self {
            name: config.name.clone(),
            keys: Keys::load(&config.state_dir)?,
            peers: PeerStore::load(&config.state_dir)?,
            control: config.listen,
            data: config.listen_data.clone(),
            addresses: config.addresses.clone(),
            probes: false,
            register: Register::default(),
            bandwidth_bytes_per_s: config.migration.bandwidth_bytes_per_s,
            transport: None,
            transports: transports(config),
            congestion_control: config.migration.congestion_control.clone(),
            stripes: config.migration.stripes,
            versions: (VERSION_MIN, VERSION_MAX),
            hello_within: dial::HELLO_WITHIN,
            resume_for: Duration::from_millis(config.migration.lease_ms),
        })
    }

    /// Where a peer may be reached.
    fn addresses_of(&self, peer: &Peer) -> Addresses {
        let own = self.addresses.get(&peer.name).filter(|addresses| !addresses.is_empty());
        Addresses::new(peer.address, own.unwrap_or(&peer.data_addresses).clone())
    }
}

/// What was checked when the configuration was read.
fn transports(config: &Config) -> BTreeMap<String, Transport> {
    let read = |text: &String| Transport::parse(text).unwrap_or_default();
    config.transports.iter().map(|(peer, text)| (peer.clone(), read(text))).collect()
}

/// Held by every handle of a link; with the last of them the link ends.
struct Alive {
    shared: Arc<Shared>,
}

impl Drop for Alive {
    fn drop(&mut self) {
        self.shared.with(|state, _| state.session.close("its users let go of it"));
    }
}

/// A session with another host. Clones are the same link; it ends when the last clone and channel are gone.
#[derive(Clone)]
pub struct Link {
    alive: Arc<Alive>,
}

impl Link {
    fn new(shared: Arc<Shared>) -> Self {
        Self { alive: Arc::new(Alive { shared }) }
    }

    /// Makes a link to a peer: both connections stand when it returns.
    pub async fn dial(config: &LinkConfig, peer: &Peer) -> Result<Self, LinkError> {
        dial::dial(config, peer).await
    }

    /// Opens a channel; it can be written at once.
    pub async fn open(&self, label: Label) -> Result<Channel, LinkError> {
        let id = self.shared().with(|state, _| state.session.open(label))?;
        Ok(Channel::new(self.alive.clone(), id, label))
    }

    /// The next channel that the other side opens.
    pub async fn accept(&self) -> Result<(Label, Channel), LinkError> {
        loop {
            let opened = self.shared().opened.notified();
            tokio::pin!(opened);
            opened.as_mut().enable();
            let next = self.shared().with(|state, _| match state.session.accept() {
                Some(channel) => Ok(Some(channel)),
                None => state.session.over().map_or(Ok(None), |why| Err(LinkError::Over(why.to_owned()))),
            });
            if let Some((id, label)) = next? {
                return Ok((label, Channel::new(self.alive.clone(), id, label)));
            }
            opened.await;
        }
    }

    /// What the link gives now.
    pub fn status(&self) -> LinkProgress {
        self.shared().with(|state, now| {
            let session = &state.session;
            LinkProgress {
                up: session.over().is_none() && Lane::ALL.into_iter().all(|lane| session.is_attached(lane)),
                goodput_bytes_per_s: session.goodput_bytes_per_s().unwrap_or(0),
                rtt_us: session.rtt().map_or(0, |rtt| rtt.as_micros() as u64),
                quiet_ms: ms(quiet(state, now)),
                sent_bytes: session.sent_bytes(),
                segments: state.segments.sent,
                resent_segments: state.segments.resent,
                limit_bytes_per_s: session.limit_bytes_per_s(),
                congestion_control: state.berths[Lane::Data as usize].congestion_control.clone(),
                data_address: shown(state, Lane::Data),
                control_address: shown(state, Lane::Control),
            }
        })
    }

    /// Things worth knowing that stop nothing.
    pub fn warnings(&self) -> Vec<String> {
        self.shared().with(|state, _| state.warnings.clone())
    }

    /// What has happened to it since this was asked the last time.
    pub fn news(&self) -> Vec<News> {
        self.shared().with(|state, _| std::mem::take(&mut state.news))
    }

    /// What was found of the other host's data addresses; nothing where there was no choice.
    pub fn found(&self) -> Vec<Found> {
        self.shared().with(|state, _| state.found.clone())
    }

    /// The sums over the live channels with this label.
    pub fn channel_stats(&self, label: Label) -> ChannelStats {
        self.shared().with(|state, _| state.session.stats(|_, other| other == label))
    }

    /// Bytes a second that arrive; none: not known yet.
    pub fn goodput_bytes_per_s(&self) -> Option<u64> {
        self.shared().with(|state, _| state.session.goodput_bytes_per_s())
    }

    /// Limits all channels together; none: what the link gives.
    pub fn set_bandwidth(&self, bytes_per_s: Option<u64>) {
        self.shared().with(|state, now| state.session.set_limit(bytes_per_s, now));
    }

    /// Lifts what the paused guest waits for; none: the usual order.
    pub fn prefer(&self, class: Option<Class>) {
        self.shared().with(|state, _| state.session.prefer(class));
    }

    /// The disks whose stream is bulk now: they wait for the others and for memory.
    pub fn set_bulk(&self, disks: BTreeSet<Label>) {
        self.shared().with(|state, _| state.session.set_bulk(disks));
    }

    /// Whether its connections stay where they are, as long as they live: a change to a better way takes a moment.
    pub fn set_stays(&self, stays: bool) {
        self.shared().with(|state, _| state.stays = stays);
    }

    /// How long it is kept without a connection from now on. Seconds are enough where nothing is promised over it: what a
    /// host has promised outlives connections, and what it was only asked can be asked again.
    pub fn set_patience(&self, patience: Duration) {
        self.shared().with(|state, _| state.patience = patience);
    }

    /// A round trip over the control connection, now.
    pub async fn ping(&self) -> Result<Duration, LinkError> {
        let told = self.shared().ping();
        match timeout(PING_WITHIN, told).await {
            Ok(Ok(rtt)) => Ok(rtt),
            Ok(Err(_)) => Err(self.over().unwrap_or(LinkError::Over("it was closed".to_owned()))),
            Err(_) => {
                let text =
                    format!("{} did not answer a ping within {} s", self.peer(), PING_WITHIN.as_secs());
                Err(LinkError::TimedOut(text))
            }
        }
    }

    /// Waits until the link is over, and says why.
    pub async fn closed(&self) -> LinkError {
        let mut over = self.shared().over.subscribe();
        let ended = over.wait_for(Option::is_some).await;
        ended.ok().and_then(|why| why.clone()).unwrap_or(LinkError::Over("it was closed".to_owned()))
    }

    /// Ends the link, after what was written has arrived or some seconds have passed. Where the other side is out of
    /// reach it is told when it comes back, in the background: it would wait, and keep what it has, as long as a link
    /// may be down.
    pub async fn close(self) {
        let arrived = async {
            let mut tick = tokio::time::interval(Duration::from_millis(5));
            while !self.shared().with(|state, _| state.session.over().is_some() || state.session.is_drained())
            {
                tick.tick().await;
            }
        };
        let close = |link: &Self| link.shared().with(|state, _| state.session.close("it is done"));
        if timeout(CLOSE_WITHIN, arrived).await.is_ok() && self.status().up {
            return close(&self);
        }
        tokio::spawn(async move {
            while self.over().is_none() && self.ping().await.is_err() {}
            close(&self);
        });
    }

    /// The other host's name.
    pub fn peer(&self) -> &str {
        &self.shared().peer
    }

    /// Why the link is over, if it is.
    pub fn over(&self) -> Option<LinkError> {
        self.shared().over.borrow().clone()
    }

    fn shared(&self) -> &Arc<Shared> {
        &self.alive.shared
    }
}

/// Where the connection of a lane goes, for people.
fn shown(state: &shared::State, lane: Lane) -> String {
    state.berths[lane as usize].place.map(|place| place.to_string()).unwrap_or_default()
}

/// Since when nothing was heard: of the lane that was heard last, or since the last one fell.
fn quiet(state: &shared::State, now: Duration) -> Duration {
    let down = state.berths.iter().filter_map(|berth| berth.down_since).max();
    let since_down = down.map(|down| now.saturating_sub(down));
    state.session.quiet(now).or(since_down).unwrap_or_default()
}
