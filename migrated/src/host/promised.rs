//! Promises: what of a host its guests have, those that run and those that are on their way.
//!
//! Decides nothing but that a guest has one promise.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::Refusal;
use crate::guest::Nic;

/// Room that is promised to a guest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reservation {
    /// Who has it, in words: "it runs here", "migration 0e2f9a61 holds it".
    pub holder: String,
    /// The guest's memory in MiB.
    pub memory_mib: u64,
    /// Of this, what its QEMU has touched already, in MiB: the system counts it as gone.
    pub memory_used_mib: u64,
    /// Bytes of disk that it may still fill.
    pub disk_bytes: u64,
    /// Its disks in their full size, in bytes.
    pub disk_size_bytes: u64,
    /// Its virtual CPUs.
    pub vcpus: u32,
    /// The host that it came from, or comes from; none: it was started here.
    pub from: Option<String>,
    /// It is on its way here.
    pub is_arriving: bool,
    /// Its network cards.
    pub nics: Vec<Nic>,
}

/// All promises of a host, by guest.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reservations {
    by_guest: BTreeMap<String, Reservation>,
}

impl Reservations {
    /// Promises room. A guest has one promise; the one that it has is the error.
    pub fn reserve(&mut self, guest: &str, reservation: Reservation) -> Result<(), Refusal> {
        if let Some(held) = self.by_guest.get(guest) {
            return Err(Refusal::Guest { name: guest.into(), holder: held.holder.clone() });
        }
        self.by_guest.insert(guest.into(), reservation);
        Ok(())
    }

    /// Takes a promise back; true if there was one.
    pub fn release(&mut self, guest: &str) -> bool {
        self.by_guest.remove(guest).is_some()
    }

    /// The promise of a guest, to bring it up to date.
    pub fn get_mut(&mut self, guest: &str) -> Option<&mut Reservation> {
        self.by_guest.get_mut(guest)
    }

    /// The promise of a guest.
    pub fn get(&self, guest: &str) -> Option<&Reservation> {
        self.by_guest.get(guest)
    }

    /// All of them but the one of `guest`, by guest.
    pub fn others<'a>(&'a self, guest: &str) -> impl Iterator<Item = (&'a str, &'a Reservation)> {
        self.by_guest.iter().map(|(name, one)| (name.as_str(), one)).filter(move |(name, _)| *name != guest)
    }

    /// The promises of guests that come from `peer`, but for the one of `guest`.
    pub fn of_peer<'a>(&'a self, peer: &str, guest: &str) -> impl Iterator<Item = &'a Reservation> {
        self.others(guest).map(|(_, one)| one).filter(move |one| one.from.as_deref() == Some(peer))
    }

    /// Who holds room for guests on their way: it may be free again soon.
    pub fn holders(&self) -> Vec<String> {
        self.by_guest.values().filter(|one| one.is_arriving).map(|one| one.holder.clone()).collect()
    }

    /// Memory in MiB of all of them.
    pub fn memory_mib(&self) -> u64 {
        self.by_guest.values().map(|one| one.memory_mib).sum()
    }

    /// Memory in MiB that is promised and not touched yet.
    pub fn memory_untouched_mib(&self) -> u64 {
        self.by_guest.values().map(|one| one.memory_mib.saturating_sub(one.memory_used_mib)).sum()
    }

    /// Bytes of disk that are promised and not filled yet.
    pub fn disk_bytes(&self) -> u64 {
        self.by_guest.values().map(|one| one.disk_bytes).fold(0, u64::saturating_add)
    }
}
