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
//! a sparse disk may grow to its full size. So two guests on their way cannot get the same room.

mod promised;
mod allowed;
mod refusal;
pub mod network;

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

pub use allowed::Sender;
pub use promised::{Reservation, Reservations};
pub use refusal::Refusal;

use crate::guest::{Accel, Guest};
use crate::peer::{DiskSize, Reserve};
use crate::qemu::Accelerator;

/// Memory in MiB that QEMU and the disks' daemons take beside the guest's own.
const OVERHEAD_MIB: u64 = 64;
/// Room that a disk's sidecar takes: 32 MiB for each TiB of disk, and a little.
const SIDECAR_SHARE: u64 = 1 << 15;
const SIDECAR_MIN_BYTES: u64 = 1 << 20;
const MIB: u64 = 1 << 20;

/// What a host is and has, at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Facts {
    /// Memory in MiB that the system could give now (`MemAvailable`).
    pub memory_available_mib: u64,
    /// Memory in MiB that all guests together may have.
    pub memory_limit_mib: u64,
    /// Free bytes where images lie, less what the configuration keeps free.
    pub disk_available_bytes: u64,
    /// QEMU's version.
    pub qemu_version: String,
    /// Machine types that it offers.
    pub machines: BTreeSet<String>,
    /// CPU models that it offers by accelerator, each with the flags that this host lacks for it.
    pub cpus: BTreeMap<Accelerator, BTreeMap<String, Vec<String>>>,
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

    /// Memory in MiB that a further guest may have.
    pub fn memory_free_mib(&self, promised: &Reservations) -> u64 {
        let by_limit = self.memory_limit_mib.saturating_sub(promised.memory_mib());
        let untouched = promised.memory_untouched_mib() + OVERHEAD_MIB;
        by_limit.min(self.memory_available_mib.saturating_sub(untouched))
    }

    /// Bytes of disk that a further guest may have.
    pub fn disk_free_bytes(&self, promised: &Reservations) -> u64 {
        self.disk_available_bytes.saturating_sub(promised.disk_bytes())
    }

    /// Bytes that a guest's disks may still fill here: each in its full size, less what is there of it already.
    pub fn disk_needed_bytes(&self, disks: &[DiskSize]) -> u64 {
        let needed = |disk: &DiskSize| {
            let sidecar = disk.size_bytes / SIDECAR_SHARE + SIDECAR_MIN_BYTES;
            match self.images.get(&disk.id) {
                Some(Image::Ours { allocated_bytes }) => {
                    disk.size_bytes.saturating_sub(*allocated_bytes).saturating_add(sidecar)
                }
                _ => disk.size_bytes.saturating_add(sidecar),
            }
        };
        // Sizes are another host's word: no sum of them may come round to a small one.
        disks.iter().map(needed).fold(0, u64::saturating_add)
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
    if let Some(held) = promised.get(&guest.name) {
        refusals.push(Refusal::Guest { name: guest.name.clone(), holder: held.holder.clone() });
    }
    if let Some(sender) = wanted.sender {
        refusals.extend(allowed::refusals(sender, promised, wanted));
    }
    refusals.extend(memory(facts, promised, guest));
    refusals.extend(disk(facts, promised, wanted));
    refusals.extend(hypervisor(facts, wanted));
    refusals.extend(bridges(facts, guest));
    refusals.extend(boot(facts, wanted));
    refusals
}

fn memory(facts: &Facts, promised: &Reservations, guest: &Guest) -> Option<Refusal> {
    let available_mib = facts.memory_free_mib(promised);
    (guest.memory_mib > available_mib).then(|| Refusal::Memory {
        needed_mib: guest.memory_mib,
        available_mib,
        holders: promised.holders(),
    })
}

fn disk(facts: &Facts, promised: &Reservations, wanted: &Wanted<'_>) -> Vec<Refusal> {
    let mut refusals = Vec::new();
    let (needed, available) = (facts.disk_needed_bytes(wanted.disks), facts.disk_free_bytes(promised));
    if needed > available {
        refusals.push(Refusal::Disk {
            needed_mib: needed.div_ceil(MIB),
            allocated_mib: wanted
                .disks
                .iter()
                .map(|disk| disk.allocated_bytes)
                .fold(0, u64::saturating_add)
                .div_ceil(MIB),
            available_mib: available / MIB,
            holders: promised.holders(),
        });
    }
    for disk in &wanted.guest.disks {
        let image = disk.image.clone();
        match facts.images.get(&disk.id) {
            Some(Image::Taken(reason)) => {
                refusals.push(Refusal::Image { disk: disk.id.clone(), image, reason: reason.clone() });
            }
            Some(Image::Absent) if disk.shared => {
                let reason = "it is shared, and not here".to_owned();
                refusals.push(Refusal::Image { disk: disk.id.clone(), image, reason });
            }
            _ => {}
        }
    }
    refusals
}

fn hypervisor(facts: &Facts, wanted: &Wanted<'_>) -> Vec<Refusal> {
    let guest = wanted.guest;
    let mut refusals = Vec::new();
    if !facts.machines.contains(&guest.machine) {
        refusals.push(Refusal::Machine {
            machine: guest.machine.clone(),
            here: facts.qemu_version.clone(),
            there: wanted.qemu_version.into(),
        });
    }
    let accelerator = match facts.accelerator(guest.accel) {
        Ok(accelerator) => accelerator,
        Err(reason) => {
            refusals.push(Refusal::Accelerator { wanted: "kvm".into(), reason });
            return refusals;
        }
    };
    if !wanted.accel.is_empty() && wanted.accel != accelerator.name() {
        let reason =
            format!("here it would be {}, and a running guest cannot change that", accelerator.name());
        refusals.push(Refusal::Accelerator { wanted: wanted.accel.into(), reason });
        return refusals;
    }
    let model = guest.cpu.split(',').next().unwrap_or_default();
    match facts.cpus.get(&accelerator).and_then(|models| models.get(model)) {
        None => refusals.push(Refusal::Cpu { model: model.into(), accelerator }),
        Some(missing) => {
            // What the description switches off is not missed.
            let is_off = |flag: &String| {
                guest.cpu.split(',').skip(1).any(|word| {
                    word.strip_prefix('-').or(word.strip_suffix("=off")).is_some_and(|off| off == flag)
                })
            };
            let missing: Vec<String> = missing.iter().filter(|flag| !is_off(flag)).cloned().collect();
            if !missing.is_empty() {
                refusals.push(Refusal::CpuFlags { model: model.into(), missing });
            }
        }
    }
    refusals
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
