//! Why a host does not take a guest: numbers for programs, words for people. They travel to the source.

use std::net::Ipv4Addr;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::qemu::Accelerator;

/// So many names are enough for a person; a program has all of them.
const NAMED_MAX: usize = 12;

/// One reason.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, Error)]
#[serde(tag = "refusal", content = "of", rename_all = "kebab-case")]
pub enum Refusal {
    /// The description has a fault.
    #[error("the description is wrong: {0}")]
    Description(String),
    /// The guest is here already.
    #[error("there is a guest {name} at this host already: {holder}; wait for that to end, or stop it")]
    Guest {
        /// Its name.
        name: String,
        /// Who holds it.
        holder: String,
    },
    /// Hosts are listed that may send guests, and this one is not among them.
    #[error(
        "not allowed: {peer} may send no guest here; add [allow.{peer}] to the configuration of this host"
    )]
    NotListed {
        /// The host that sends.
        peer: String,
    },
    /// The host that sends may send others, but not this.
    #[error("not allowed: allow.{peer}.{key} in the configuration of this host does not have {asked}")]
    NotAllowed {
        /// The host that sends.
        peer: String,
        /// The key that forbids it.
        key: String,
        /// What was asked for, with its numbers.
        asked: String,
    },
    /// Not enough memory.
    #[error(
        "memory: {needed_mib} MiB are needed and {available_mib} MiB available after reservations{}; \
         stop a guest, or raise limits.memory_mib",
        held(.holders)
    )]
    Memory {
        /// What the guest needs.
        needed_mib: u64,
        /// What there is for it.
        available_mib: u64,
        /// Who holds room for guests on their way.
        holders: Vec<String>,
    },
    /// Not enough disk.
    #[error(
        "disk: {needed_mib} MiB are needed ({allocated_mib} MiB in use at the source, the rest for growth) and \
         {available_mib} MiB available in images_dir after reservations{}; make room there, or let disks be promised more \
         than there is (limits.disk_overcommit)",
        held(.holders)
    )]
    Disk {
        /// What is in use of the disks, and room to grow, less what is here of them.
        needed_mib: u64,
        /// What of them is in use.
        allocated_mib: u64,
        /// What there is for it.
        available_mib: u64,
        /// Who holds room for guests on their way.
        holders: Vec<String>,
    },
    /// Not enough disk for a guest of this host.
    #[error(
        "disk: room to grow by {needed_mib} MiB is needed and {available_mib} MiB are available in images_dir after \
         reservations{}; make room there, or let disks be promised more than there is (limits.disk_overcommit)",
        held(.holders)
    )]
    Growth {
        /// What the disks may still grow by.
        needed_mib: u64,
        /// What there is for it.
        available_mib: u64,
        /// Who holds room for guests on their way.
        holders: Vec<String>,
    },
    /// The machine type is not offered.
    #[error(
        "machine: QEMU {here} does not offer {machine}; {}install a QEMU that does",
        if .there.is_empty() { String::new() } else { format!("the source has QEMU {there}; ") }
    )]
    Machine {
        /// The type.
        machine: String,
        /// QEMU here.
        here: String,
        /// QEMU at the source; may be empty.
        there: String,
    },
    /// The processors are of another kind.
    #[error(
        "cpu: the guest runs on {guest} processors, and this host has {here}; send it to a host with {guest}"
    )]
    Architecture {
        /// Those of the guest's host.
        guest: String,
        /// Those here.
        here: String,
    },
    /// The guest's processor has 64 bits, and this host's only 32.
    #[error(
        "cpu: the model {model} has 64 bits (the flag lm), and this host runs guests of 32 bits only; send it to a host of \
         64 bits"
    )]
    LongMode {
        /// The model.
        model: String,
    },
    /// The CPU model is not offered.
    #[error("cpu: QEMU does not offer the model {model} with {}; choose one that all hosts offer", .accelerator.name())]
    Cpu {
        /// The model.
        model: String,
        /// What would run it.
        accelerator: Accelerator,
    },
    /// The CPU lacks flags.
    #[error(
        "cpu: this host lacks {} for the model {model}; choose a model that all hosts have, or switch them off",
        some(.missing)
    )]
    CpuFlags {
        /// The model.
        model: String,
        /// What it lacks.
        missing: Vec<String>,
    },
    /// The QEMU here has never heard of some flags.
    #[error("cpu: QEMU {here} does not know the flags {}; QEMU lists them with -cpu help", some(.unknown))]
    CpuFlagsUnknown {
        /// The flags.
        unknown: Vec<String>,
        /// QEMU here.
        here: String,
    },
    /// The accelerator is not to be had.
    #[error(
        "accel: {wanted} is needed: {reason}; choose another host, or start the guest with another accel"
    )]
    Accelerator {
        /// What is needed.
        wanted: String,
        /// Why it is not to be had.
        reason: String,
    },
    /// A bridge is not mapped.
    #[error("bridge: {name:?} is not mapped at this host (it knows: {}); add it under [bridges]", .known.join(", "))]
    BridgeUnknown {
        /// The description's name.
        name: String,
        /// Names that are mapped.
        known: Vec<String>,
    },
    /// A bridge is mapped to nothing.
    #[error("bridge: {name:?} is mapped to {here}, which is not there; make it, or correct [bridges]")]
    BridgeAbsent {
        /// The description's name.
        name: String,
        /// The host's.
        here: String,
    },
    /// Another on the guest's network has its MAC.
    #[error("mac: {mac} of the card {nic} is that of {holder}; give one of the two another, or stop one")]
    Mac {
        /// The card.
        nic: String,
        /// Its MAC.
        mac: String,
        /// Who has it.
        holder: String,
    },
    /// Another has the guest's address.
    #[error(
        "address: {address} of the card {nic} is that of {holder}; give one of the two another, or stop one"
    )]
    Address {
        /// The card.
        nic: String,
        /// Its address.
        address: Ipv4Addr,
        /// Who has it.
        holder: String,
    },
    /// A boot file is missing or another one.
    #[error("boot file {}: {reason}; put the source's file into boot_dir", path.display())]
    BootFile {
        /// Its path in the description.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// An image's place is taken.
    #[error("disk {disk}: image {}: {reason}", image.display())]
    Image {
        /// The disk.
        disk: String,
        /// Its path in the description.
        image: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
}

/// The first few of many, and how many more there are.
fn some(names: &[String]) -> String {
    match names.len().checked_sub(NAMED_MAX) {
        None | Some(0) => names.join(", "),
        Some(more) => format!("{} and {more} more", names[..NAMED_MAX].join(", ")),
    }
}

fn held(holders: &[String]) -> String {
    if holders.is_empty() { String::new() } else { format!(" ({})", holders.join(", ")) }
}
