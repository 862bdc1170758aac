//! The network of this host with what this host knows of guests: tunnels, addresses of the pool, guests that have left.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;

use tracing::warn;

use super::Site;
use crate::guest::Guest;
use crate::host::network::{Network, Occasion};
use crate::io::host;

/// Addresses of the pool that are asked for at once; a guest needs one a card.
const FREE_MAX: usize = 32;

impl Site {
    /// What of this host's network concerns a guest that may get one of the addresses of `pool`; none: the kernel does not
    /// tell, as the log says.
    pub async fn network(&self, guest: &Guest, occasion: Occasion, pool: &[Ipv4Addr]) -> Option<Network> {
        match host::network::network(&self.config, guest, occasion, pool).await {
            Ok(found) => {
                let given = self.lock_addresses().clone();
                let gone = self.guests.list().into_iter().filter(|known| known.machine.is_none());
                let gone = gone
                    .filter_map(|known| Some((known.record.guest, known.record.moved_to?)))
                    .map(|(guest, host)| (guest.name, host, guest.nics));
                Some(Network { given, gone: gone.collect(), led: self.paths.led().await, ..found })
            }
            Err(error) => {
                warn!(%error, "cannot look at this host's network");
                None
            }
        }
    }

    /// The first addresses of the pool that no guest has, here or by its description.
    pub fn free_addresses(&self) -> Vec<Ipv4Addr> {
        let described: BTreeSet<Ipv4Addr> = self
            .guests
            .list()
            .iter()
            .flat_map(|known| &known.record.guest.nics)
            .filter_map(|nic| nic.address)
            .collect();
        let held = self.lock_addresses();
        let free = self.pool().filter(|address| !held.contains_key(address) && !described.contains(address));
        free.take(FREE_MAX).collect()
    }
}
