//! Whether this host can take a guest: what the host is and has, what it has promised, and every reason why not.
//!
//! ```text
//! Facts (looked up) ──┐
//! Reservations ───────┼── check ──► all refusals at once, each with its numbers and what to do
//! Wanted (the guest,  │
//!   and its Sender) ──┘
//! ```
//!
//! A promise counts whole from the moment that it is made: memory that a guest has not touched yet is not free, and
//! a sparse disk may grow to its full size, unless the host is told to promise more. So two guests cannot get the same room,
//! whether they are on their way or are started here.

mod allowed;
mod hypervisor;
mod refusal;
mod room;

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

pub use allowed::Sender;
pub use hypervisor::{Flags, flag_name};
pub use refusal::Refusal;
pub use room::growth_bytes;

use crate::guest::{Accel, Guest};
use crate::peer::{DiskSize, Reserve};
use crate::qemu::Accelerator;

/// What a host is and has, at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Facts {
    /// Memory in MiB that the system could give now (`MemAvailable`).
    pub memory_available_mib: u64,
    /// Memory in MiB that all guests together may have.
    pub memory_limit_mib: u64,
    /// Free bytes where images lie, less what the configuration keeps free.
    pub disk_available_bytes: u64,
    /// So many times the room that there is for it, disks may be promised to grow (`limits.disk_overcommit`).
    pub disk_overcommit: u64,
    /// QEMU's version.
    pub qemu_version: String,
    /// Machine types that it offers.
    pub machines: BTreeSet<String>,
    /// CPU models that it offers by accelerator, each with the flags that this host lacks for it.
    pub cpus: BTreeMap<Accelerator, BTreeMap<String, Vec<String>>>,
    /// What a description can add to a model, by accelerator.
    pub flags: BTreeMap<Accelerator, Flags>,
    /// Whether KVM is to be had.
    pub kvm: Kvm,
    /// Names that descriptions may use, and the host's bridges behind them, with whether they are there.
    pub bridges: BTreeMap<String, (String, bool)>,
    /// Digests (BLAKE3, hex) of the boot files of the guest in question, kernel first, or why there is none.
    pub boot_digests: Vec<(PathBuf, Result<String, String>)>,
    /// It is at home here already, and stands still.
    pub is_stopped_here: bool,
    /// What is at the places of its images, by disk.
    pub images: BTreeMap<String, Image>,
}

/// Whether KVM is to be had.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Kvm {
    /// Guests run on it.
    Usable,
    /// It is there, but a tiny guest did not come through in time: Linux will hang. The words say what was seen.
    Doubtful(String),
    /// Nobody has looked.
    #[default]
    Untried,
    /// It is not there; the words say why.
    Absent(String),
}

/// What is at an image's place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Image {
    /// Nothing.
    Absent,
    /// A copy of this very disk, or the disk itself given up earlier: it may be written over.
    Ours {
        /// Bytes that it takes already.
        allocated_bytes: u64,
    },
    /// Something that must not be written over, or a place that cannot be used; the words say what.
    Taken(String),
}

/// A guest that wants room.
#[derive(Clone, Copy, Debug)]
pub struct Wanted<'a> {
    /// Its description.
    pub guest: &'a Guest,
    /// Its disks that are not shared.
    pub disks: &'a [DiskSize],
    /// Digests of its boot files where it comes from, kernel first; none for one that starts here.
    pub boot_digests: &'a [String],
    /// The version of QEMU where it comes from.
    pub qemu_version: &'a str,
    /// What runs its code where it comes from; empty for one that starts here.
    pub accel: &'a str,
    /// Who sends it; none for one that starts here.
    pub sender: Option<Sender<'a>>,
}

impl<'a> Wanted<'a> {
    /// A guest that another host wants to send.
    pub fn from_peer(reserve: &'a Reserve, sender: Sender<'a>) -> Self {
        Self {
            sender: Some(sender),
            guest: &reserve.guest,
            disks: &reserve.disks,
            boot_digests: &reserve.boot_digests,
            qemu_version: &reserve.qemu_version,
            accel: &reserve.accel,
        }
    }
}

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

    /// The promises of guests that come from `peer`, but for the one of `guest`.
    pub fn of_peer<'a>(&'a self, peer: &str, guest: &str) -> impl Iterator<Item = &'a Reservation> {
        let others = self.by_guest.iter().filter(move |(name, _)| *name != guest).map(|(_, one)| one);
        others.filter(move |one| one.from.as_deref() == Some(peer))
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

impl Facts {
    /// What runs a guest that asks for `accel` here, or why nothing does. "auto" takes KVM only where guests run
    /// on it; who asks for KVM by name gets it wherever it is there.
    pub fn accelerator(&self, accel: Accel) -> Result<Accelerator, String> {
        match (accel, &self.kvm) {
            (Accel::Tcg, _) => Ok(Accelerator::Tcg),
            (Accel::Auto, Kvm::Usable) | (Accel::Kvm, Kvm::Usable | Kvm::Doubtful(_)) => Ok(Accelerator::Kvm),
            (Accel::Auto, _) => Ok(Accelerator::Tcg),
            (Accel::Kvm, Kvm::Absent(reason)) => Err(reason.clone()),
            (Accel::Kvm, Kvm::Untried) => Err("it was not tried".into()),
        }
    }

    /// The promise that `wanted` gets.
    pub fn reservation(&self, wanted: &Wanted<'_>, holder: &str) -> Reservation {
        Reservation {
            holder: holder.into(),
            memory_mib: wanted.guest.memory_mib,
            memory_used_mib: 0,
            disk_bytes: self.disk_needed_bytes(wanted.disks),
            disk_size_bytes: wanted.disks.iter().map(|disk| disk.size_bytes).fold(0, u64::saturating_add),
            vcpus: wanted.guest.vcpus,
            from: wanted.sender.map(|sender| sender.name.to_owned()),
            is_arriving: wanted.sender.is_some(),
        }
    }
}

/// Every reason why a host does not take a guest; none: it does.
pub fn check(facts: &Facts, promised: &Reservations, wanted: &Wanted<'_>) -> Vec<Refusal> {
    let guest = wanted.guest;
    let mut refusals = Vec::new();
    if let Err(faults) = guest.check() {
        refusals.extend(faults.into_iter().map(Refusal::Description));
    }
    if facts.is_stopped_here && wanted.sender.is_some() {
        let holder = "it is stopped here".to_owned();
        refusals.push(Refusal::Guest { name: guest.name.clone(), holder });
    }
    refusals.extend(held(promised, guest));
    if let Some(sender) = wanted.sender {
        refusals.extend(allowed::refusals(sender, promised, wanted));
    }
    refusals.extend(room::memory(facts, promised, guest));
    refusals.extend(room::disk(facts, promised, wanted));
    refusals.extend(room::images(facts, guest));
    refusals.extend(hypervisor::refusals(facts, wanted));
    refusals.extend(bridges(facts, guest));
    refusals.extend(boot(facts, wanted));
    refusals
}

/// Every reason why a guest of this host, whose description is right, has no room to be started; none: it has. What QEMU
/// does not have for it, QEMU says when it is started.
pub fn check_start(facts: &Facts, promised: &Reservations, wanted: &Wanted<'_>) -> Vec<Refusal> {
    let guest = wanted.guest;
    let mut refusals = Vec::new();
    refusals.extend(held(promised, guest));
    refusals.extend(room::memory(facts, promised, guest));
    refusals.extend(room::growth(facts, promised, wanted));
    refusals.extend(room::images(facts, guest));
    refusals.extend(bridges(facts, guest));
    refusals
}

fn held(promised: &Reservations, guest: &Guest) -> Option<Refusal> {
    let held = promised.get(&guest.name)?;
    Some(Refusal::Guest { name: guest.name.clone(), holder: held.holder.clone() })
}

fn bridges(facts: &Facts, guest: &Guest) -> Vec<Refusal> {
    let known: Vec<String> = facts.bridges.keys().cloned().collect();
    let one = |bridge: &String| match facts.bridges.get(bridge) {
        None => Some(Refusal::BridgeUnknown { name: bridge.clone(), known: known.clone() }),
        Some((here, false)) => Some(Refusal::BridgeAbsent { name: bridge.clone(), here: here.clone() }),
        Some((_, true)) => None,
    };
    let names: BTreeSet<&String> = guest.nics.iter().map(|nic| &nic.bridge).collect();
    names.into_iter().filter_map(one).collect()
}

fn boot(facts: &Facts, wanted: &Wanted<'_>) -> Vec<Refusal> {
    let mut refusals = Vec::new();
    for (index, (path, digest)) in facts.boot_digests.iter().enumerate() {
        let reason = match (digest, wanted.boot_digests.get(index)) {
            (Err(reason), _) => reason.clone(),
            (Ok(here), Some(there)) if here != there => {
                format!(
                    "it is another file than at the source (BLAKE3 {} here, {} there)",
                    short(here),
                    short(there)
                )
            }
            _ => continue,
        };
        refusals.push(Refusal::BootFile { path: path.clone(), reason });
    }
    refusals
}

fn short(digest: &str) -> &str {
    digest.get(..12).unwrap_or(digest)
}

#[cfg(test)]
mod tests;
