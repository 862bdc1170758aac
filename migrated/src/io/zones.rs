//! The zones of this host's configuration, tried at their servers: is the key good, and may it do what it is for?
//!
//! Nothing is changed by it. What a server says for itself (its key is another one, it is not the zone's) is told apart
//! from its silence, which may pass.

use std::future::Future;
use std::time::Duration;

use anyhow::Error;
use tokio::time::timeout;
use tunnel::Authority;
use tunnel::io::dns::{DnsError, try_key, try_name};
use tunnel::name::Found;
use tunnel::update::Denial;

use crate::config::Zone;
use crate::io::tsig_key;

/// How long a server may take to answer all of it. One that is silent takes no longer from whoever waits.
const LIMIT: Duration = Duration::from_secs(4);

/// Why a zone cannot be changed.
#[derive(Debug, thiserror::Error)]
pub enum ZoneFault {
    /// The key cannot be read.
    #[error("{0:#}")]
    Key(Error),
    /// The server's word, or what is found there.
    #[error(transparent)]
    Server(DnsError),
    /// The server said nothing.
    #[error("{0}")]
    Silent(String),
}

impl ZoneFault {
    /// Which line of a zone's table it is about, and what to do.
    fn place(&self) -> (&'static str, &'static str) {
        let ZoneFault::Server(error) = self else {
            return match self {
                ZoneFault::Key(_) => ("key_file", "correct key_file, or the file"),
                _ => ("server", "look at the server, and at the way to it (UDP and TCP)"),
            };
        };
        match error {
            DnsError::BadUpdate(_) => ("key_name", "correct it"),
            DnsError::Unfit(_) | DnsError::NoRecord { .. } => ("zone", "correct the records of the name"),
            DnsError::Denied { denial, .. } => match denial {
                Denial::UnknownKey { .. } | Denial::WrongKey { .. } | Denial::Refused { .. } => {
                    ("key_name", "have the server know this key, and let it change the zone")
                }
                Denial::NotAuthoritative { .. } | Denial::NotInZone { .. } => {
                    ("zone", "name the zone and its primary server")
                }
                _ => ("server", "see what the server's log says of it"),
            },
            _ => ("server", "see what the server's log says of it"),
        }
    }

    /// Which line of a zone's table it is about.
    pub fn field(&self) -> &'static str {
        self.place().0
    }

    /// What to do about it.
    pub fn remedy(&self) -> &'static str {
        self.place().1
    }
}

/// By what right a zone is changed.
pub fn authority(zone: &Zone) -> Result<Authority, ZoneFault> {
    let key = tsig_key::read(zone).map_err(ZoneFault::Key)?;
    Ok(Authority { server: zone.server, zone: zone.zone.clone(), key })
}

/// Whether the zone's server lets its key in.
pub async fn try_zone(zone: &Zone) -> Result<(), ZoneFault> {
    let authority = authority(zone)?;
    in_time(zone, try_key(&authority)).await
}

/// Whether the zone's server lets its key change the addresses of `name`, and what that leads to now.
pub async fn try_name_in(zone: &Zone, name: &str) -> Result<Found, ZoneFault> {
    let authority = authority(zone)?;
    in_time(zone, try_name(&authority, name)).await
}

async fn in_time<T>(zone: &Zone, tried: impl Future<Output = Result<T, DnsError>>) -> Result<T, ZoneFault> {
    match timeout(LIMIT, tried).await {
        Ok(Ok(found)) => Ok(found),
        Ok(Err(error)) if error.is_silence() => Err(ZoneFault::Silent(error.to_string())),
        Ok(Err(error)) => Err(ZoneFault::Server(error)),
        Err(_) => {
            let (server, seconds) = (zone.server, LIMIT.as_secs());
            Err(ZoneFault::Silent(format!("name server {server} does not answer within {seconds} s")))
        }
    }
}
