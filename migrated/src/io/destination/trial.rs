//! A tunnel that is only tried: made at this end for a guest that was only looked at, and removed again.
//!
//! No packet of the guest goes through it, and no way of today changes.

use std::sync::Arc;

use anyhow::{Context as _, Result, bail};
use tunnel::io::tunnel::existing;
use tunnel::{Side, Tunnel};

use crate::io::site::Site;
use crate::io::source::move_of;
use crate::peer::{PathPrepare, Reserve};

/// This host's ends for one guest that was looked at.
pub struct Trial {
    site: Arc<Site>,
    wanted: Reserve,
    tunnels: Vec<Tunnel>,
}

impl Trial {
    /// Nothing is made yet.
    pub fn new(site: &Arc<Site>, wanted: Reserve) -> Self {
        Self { site: Arc::clone(site), wanted, tunnels: Vec::new() }
    }

    /// Makes them.
    pub async fn make(&mut self, order: &PathPrepare) -> Result<()> {
        let network =
            self.site.config.network.as_ref().context("this host has no [network] in its configuration")?;
        let ends = (network.tunnel_address, order.remote);
        let here = existing().await?;
        let nics = self.wanted.guest.nics.iter().filter(|nic| nic.address.is_some());
        for (number, nic) in (order.tunnel..).zip(nics) {
            // To make one is to take the place of what has its number.
            if here.iter().any(|(_, moved)| moved.id == number) {
                bail!("there is a tunnel with the number {number} here already; try again");
            }
            let moved = move_of(nic, number, ends, self.site.bridge(&nic.bridge)?, None)?.trial();
            self.tunnels.push(Tunnel::prepare(Side::Destination, moved).await?);
        }
        Ok(())
    }

    /// Removes them.
    pub async fn end(self) {
        for tunnel in self.tunnels {
            if let Err(error) = tunnel.remove().await {
                tracing::warn!(guest = self.wanted.guest.name, %error, "cannot remove a tunnel that was tried");
            }
        }
    }
}
