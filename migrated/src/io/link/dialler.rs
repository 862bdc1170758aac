//! Makes the connections of one link: to an address that is named, with a hello, each within a time.
//!
//! Which address, and when, is for others to say (`dial`, `redial`, `probing`).

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use ring::rand::{SecureRandom, SystemRandom};
use tokio::task::JoinSet;

use super::LinkConfig;
use crate::config::BBR;
use crate::io::keys::Peer;
use crate::io::tls::Pin;
use crate::io::tls::greeting::{Dial, Secured};
use crate::io::tls::socket::congestion_control;
use crate::link::Lane;
use crate::link::error::LinkError;
use crate::link::hello::{Hello, LinkId, Message, Purpose, Stripe, negotiate};
use crate::link::session::Side;
use crate::transport::Transport;

/// Fills with what nobody can guess.
pub(super) fn fill_random(bytes: &mut [u8]) {
    SystemRandom::new().fill(bytes).expect("the system has randomness");
}

/// What all connections of a link have in common at one of its sides.
pub(super) struct Dialler {
    pub config: LinkConfig,
    pub peer: Peer,
    pub id: LinkId,
    pub transport: Transport,
    pub side: Side,
}

impl Dialler {
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
    pub fn lacking(&self) -> Option<String> {
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
    pub async fn connect_lane(
        self: &Arc<Self>,
        lane: Lane,
        to: SocketAddr,
        within: Duration,
    ) -> Result<Vec<Secured>, LinkError> {
        let count = self.stripes();
        match lane {
            Lane::Control => Ok(vec![self.connect(Purpose::Control, to, within).await?]),
            Lane::Data if count == 1 => Ok(vec![self.connect(Purpose::Data, to, within).await?]),
            Lane::Data => self.connect_stripes(count, to, within).await,
        }
    }

    async fn connect_stripes(
        self: &Arc<Self>,
        count: u16,
        to: SocketAddr,
        within: Duration,
    ) -> Result<Vec<Secured>, LinkError> {
        let mut set = [0; 8];
        fill_random(&mut set);
        let set = u64::from_le_bytes(set);
        let mut dials = JoinSet::new();
        for index in 0..count {
            let dialler = self.clone();
            dials.spawn(async move {
                let mut secured = dialler.connect(Purpose::Stripe, to, within).await?;
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
    pub async fn connect(
        &self,
        purpose: Purpose,
        to: SocketAddr,
        within: Duration,
    ) -> Result<Secured, LinkError> {
        let dial = Dial {
            keys: &self.config.keys,
            pin: Pin::Key(self.peer.key),
            transport: &self.transport,
            congestion_control: &self.config.congestion_control,
            to,
            from: self.from(purpose, to),
            whom: &self.peer.name,
            within,
        };
        let (version_min, version_max) = self.config.versions;
        let name = self.config.name.clone();
        let hello = Message::Hello(Hello { version_min, version_max, purpose, link: self.id, name });
        match dial.greet(hello).await? {
            (secured, Message::Welcome(welcome)) => {
                match negotiate(self.config.versions, (welcome.version, welcome.version)) {
                    Some(_) => Ok(secured),
                    None => {
                        let text = format!("{to} chose version {}, which was not offered", welcome.version);
                        Err(LinkError::Version(text))
                    }
                }
            }
            (_, other) => Err(LinkError::Garbage(format!("{to} answers a hello with {other:?}"))),
        }
    }

    /// From which address a connection is made: the data address, if there is one, and it is no detour.
    fn from(&self, purpose: Purpose, to: SocketAddr) -> Option<SocketAddr> {
        let is_bulk = matches!(purpose, Purpose::Data | Purpose::Stripe);
        let addresses = self.config.addresses_of(&self.peer);
        let is_detour = addresses.bulk().iter().all(|address| address.ip() != to.ip());
        match self.config.data[..] {
            [from] if is_bulk && !is_detour => Some(from),
            _ => None,
        }
    }
}
