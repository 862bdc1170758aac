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

mod promised;
mod allowed;
mod hypervisor;
mod refusal;
mod room;
pub mod network;

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

pub use allowed::Sender;
pub use hypervisor::{Flags, flag_name};
pub use promised::{Reservation, Reservations};
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
    /// Its processors, in the words of compilers; empty: not looked at.
    pub architecture: String,
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
    /// The processors where it comes from; empty for one that starts here.
    pub architecture: &'a str,
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
            architecture: &reserve.architecture,
            qemu_version: &reserve.qemu_version,
            accel: &reserve.accel,
        }
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
            nics: wanted.guest.nics.clone(),
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
