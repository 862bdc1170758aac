//! Whether a guest is where it should be, as its network and its users see it.
//!
//! ```text
//! ping NEW ─► answered                     as users reach it, with all that translates it
//!   │ silent
//!   ├─► ping OLD ─► answered: its new address is what does not work
//!   └─► ARP: who has OLD? ─► its own MAC   a guest that answers no ping (Windows, a firewall of its own)
//! ```
//!
//! It refuses to conclude from silence: a guest that answers nothing may be there all the same.

use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use super::probe::through;
use super::who_has;
use crate::transfer::Mac;

/// How long each question may wait for its answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Patience {
    /// Ping, at the new address.
    pub new: Duration,
    /// Ping, at its own.
    pub own: Duration,
    /// ARP.
    pub arp: Duration,
}

impl Default for Patience {
    /// Enough for a guest that was just let go, even an emulated one.
    fn default() -> Self {
        Self { new: Duration::from_secs(3), own: Duration::from_secs(1), arp: Duration::from_secs(2) }
    }
}

/// What was seen of a guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Seen {
    /// It answers at the address at which its users look for it, after so long.
    Answers(Duration),
    /// It answers no ping. Its card said that it has its address, after so long.
    HasAddress(Duration),
    /// It answers at its own address and not at its new one.
    OnlyAtOwnAddress,
    /// Nothing.
    Nothing,
}

/// Looks for the guest with `mac` and its `own` address on the network of `device`, whose users find it at `new`.
pub async fn seen(device: &str, mac: Mac, own: Ipv4Addr, new: Ipv4Addr, patience: Patience) -> Seen {
    // Through the guest's network alone: where nothing translates the new address, this host itself answers for it.
    if let Ok(took) = through(Some(device), new, patience.new).await {
        return Seen::Answers(took);
    }
    if new != own && through(Some(device), own, patience.own).await.is_ok() {
        return Seen::OnlyAtOwnAddress;
    }
    let asked = Instant::now();
    match who_has::first(device, own, patience.arp).await {
        Ok(Some(found)) if found == mac => Seen::HasAddress(asked.elapsed()),
        // Whoever else answers says nothing of the guest.
        _ => Seen::Nothing,
    }
}
