//! The dialling side: two connections to a peer, and again whenever one is lost.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use ring::rand::{SecureRandom, SystemRandom};
use tokio::task::JoinSet;

use super::shared::Shared;
use super::{Link, LinkConfig, lane};
use crate::config::BBR;
use crate::io::keys::Peer;
use crate::io::tls::Pin;
use crate::io::tls::greeting::{Dial, Secured};
use crate::io::tls::socket::congestion_control;
use crate::link::Lane;
use crate::link::error::LinkError;
use crate::link::hello::{Hello, LinkId, Message, Purpose, Stripe, negotiate};
use crate::link::session::{SILENCE_MAX, Side};
use crate::transport::Transport;

/// The first pause between two dials.
const BACKOFF_MIN: Duration = Duration::from_millis(100);
/// The longest pause between two dials.
const BACKOFF_MAX: Duration = Duration::from_secs(5);
/// How often the session looks at the clock.
const TICK: Duration = Duration::from_millis(200);
/// A peer that is dead is noticed within three seconds (S3-17).
const _: () = assert!(SILENCE_MAX.as_millis() + TICK.as_millis() <= 3000);

/// Makes a link.
pub(super) async fn dial(config: &LinkConfig, peer: &Peer) -> Result<Link, LinkError> {
    let mut id: LinkId = [0; 16];
    fill_random(&mut id);
    let transport = config.transport.clone().or_else(|| config.transports.get(&peer.name).cloned());
    let transport = transport.unwrap_or_default();
    let dialler = Arc::new(Dialler { config: config.clone(), peer: peer.clone(), id, transport });
    let control = dialler.connect(Purpose::Begin).await?;
    let shared =
        Shared::new(Side::Dialler, peer.name.clone(), config.bandwidth_bytes_per_s, config.resume_for);
    // At once: over a long way the data connection takes seconds, and a silent one counts as dead.
    lane::start(&shared, Lane::Control, vec![control]);
    spawn_clock(&shared);
    let data = dialler.connect_lane(Lane::Data).await;
    let data = data.inspect_err(|error| shared.end(&error.to_string())).map_err(|error| match error {
        LinkError::Unreachable(text) => LinkError::Unreachable(format!("data connection: {text}")),
        other => other,
    })?;
    lane::start(&shared, Lane::Data, data);
    if let Some(warning) = dialler.lacking() {
        shared.warn(warning);
    }
    for lane in Lane::ALL {
        tokio::spawn(keep(dialler.clone(), shared.clone(), lane));
    }
    tracing::info!(peer = peer.name, address = %peer.address, "link made");
    Ok(Link::new(shared))
}

/// Fills with what nobody can guess.
pub(super) fn fill_random(bytes: &mut [u8]) {
    SystemRandom::new().fill(bytes).expect("the system has randomness");
}

/// Lets the session look at the clock until the link is over.
pub(super) fn spawn_clock(shared: &Arc<Shared>) {
    let shared = shared.clone();
    tokio::spawn(async move {
        let mut tick = tokio::time::interval(TICK);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut over = shared.over.subscribe();
        loop {
            tokio::select! {
                _ = tick.tick() => shared.tick(),
                _ = over.wait_for(Option::is_some) => return,
            }
        }
    });
}

struct Dialler {
    config: LinkConfig,
    peer: Peer,
    id: LinkId,
    transport: Transport,
}

impl Dialler {
    fn address(&self, purpose: Purpose) -> SocketAddr {
        match purpose {
            Purpose::Data | Purpose::Stripe => self.peer.data_address.unwrap_or(self.peer.address),
            Purpose::Begin | Purpose::Control | Purpose::Pair => self.peer.address,
        }
    }

    /// How many connections carry the data lane together. Looked at for each set, for a module may be loaded meanwhile.
    fn stripes(&self) -> u16 {
        match self.transport {
            Transport::Tcp
                if congestion_control(&self.config.congestion_control).is_ok_and(|name| name != BBR) =>
            {
                self.config.stripes
            }
            _ => 1,
        }
    }

    /// What is not to be had, and what is done about it.
    fn lacking(&self) -> Option<String> {
        let wanted = &self.config.congestion_control;
        let name = congestion_control(wanted).ok().filter(|name| name != wanted)?;
        let stripes = self.stripes();
        (self.transport == Transport::Tcp).then(|| {
            format!(
                "{wanted} is not to be had: {stripes} connections with {name} carry disks and memory; on a lossy link \
                 that is a small part of the rate (modprobe tcp_bbr; sysctl net.ipv4.tcp_allowed_congestion_control)"
            )
        })
    }

    /// What a lane needs: one connection, or several that are one.
    async fn connect_lane(self: &Arc<Self>, lane: Lane) -> Result<Vec<Secured>, LinkError> {
        let count = self.stripes();
        match lane {
            Lane::Control => Ok(vec![self.connect(Purpose::Control).await?]),
            Lane::Data if count == 1 => Ok(vec![self.connect(Purpose::Data).await?]),
            Lane::Data => self.connect_stripes(count).await,
        }
    }

    async fn connect_stripes(self: &Arc<Self>, count: u16) -> Result<Vec<Secured>, LinkError> {
        let mut set = [0; 8];
        fill_random(&mut set);
        let set = u64::from_le_bytes(set);
        let mut dials = JoinSet::new();
        for index in 0..count {
            let dialler = self.clone();
            dials.spawn(async move {
                let mut secured = dialler.connect(Purpose::Stripe).await?;
                let said = secured.say(&Message::Stripe(Stripe { set, count, index })).await;
                said.map_err(|error| LinkError::Unreachable(format!("{}: {error}", dialler.peer.name)))?;
                Ok::<_, LinkError>(secured)
            });
        }
        let mut connections = Vec::new();
        while let Some(dialled) = dials.join_next().await {
            connections.push(dialled.map_err(|error| LinkError::Local(error.to_string()))??);
        }
        Ok(connections)
    }

    /// One connection, with its hello answered.
    async fn connect(&self, purpose: Purpose) -> Result<Secured, LinkError> {
        let to = self.address(purpose);
        let dial = Dial {
            keys: &self.config.keys,
            pin: Pin::Key(self.peer.key),
            transport: &self.transport,
            congestion_control: &self.config.congestion_control,
            to,
            from: self.config.data.filter(|_| matches!(purpose, Purpose::Data | Purpose::Stripe)),
            whom: &self.peer.name,
            within: self.config.hello_within,
        };
        let (version_min, version_max) = self.config.versions;
        let name = self.config.name.clone();
        let hello = Message::Hello(Hello { version_min, version_max, purpose, link: self.id, name });
        match dial.greet(hello).await {
            Ok((secured, Message::Welcome(welcome))) => {
                match negotiate(self.config.versions, (welcome.version, welcome.version)) {
                    Some(_) => Ok(secured),
                    None => {
                        let text = format!("{to} chose version {}, which was not offered", welcome.version);
                        Err(LinkError::Version(text))
                    }
                }
            }
            Ok((_, other)) => Err(LinkError::Garbage(format!("{to} answers a hello with {other:?}"))),
            Err(error) => {
                tracing::warn!(peer = self.peer.name, %to, ?purpose, "dial failed: {error}");
                Err(error)
            }
        }
    }
}

/// Dials again whenever the lane is lost, until the link is over.
async fn keep(dialler: Arc<Dialler>, shared: Arc<Shared>, lane: Lane) {
    let mut over = shared.over.subscribe();
    loop {
        tokio::select! {
            () = shared.lost[lane as usize].notified() => {}
            _ = over.wait_for(Option::is_some) => return,
        }
        tokio::select! {
            () = redial(&dialler, &shared, lane) => {}
            _ = over.wait_for(Option::is_some) => return,
        }
    }
}

async fn redial(dialler: &Arc<Dialler>, shared: &Arc<Shared>, lane: Lane) {
    let mut backoff = BACKOFF_MIN;
    loop {
        if shared.with(|state, _| state.session.is_attached(lane) || state.session.over().is_some()) {
            return;
        }
        match dialler.connect_lane(lane).await {
            Ok(connections) => {
                tracing::info!(peer = shared.peer, %lane, "connected again");
                return lane::start(shared, lane, connections);
            }
            Err(error) if error.is_passing() => {
                tokio::time::sleep(jittered(backoff)).await;
                backoff = (backoff * 2).min(BACKOFF_MAX);
            }
            Err(error) => return shared.end(&error.to_string()),
        }
    }
}

/// Between half of it and all of it, so that two hosts' dials do not keep step.
fn jittered(pause: Duration) -> Duration {
    let mut random = [0; 1];
    fill_random(&mut random);
    pause / 2 + pause * u32::from(random[0]) / 512
}
