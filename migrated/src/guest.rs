//! The description of a guest: what `migrated run` reads, what travels to the destination, what QEMU is built from.
//!
//! ```text
//! guest.toml ── parse ──► Guest ── check ──► QEMU's words (`qemu`) at the source
//!                           └── JSON, through the link ── check ──► QEMU's words at the destination
//! ```
//!
//! Paths in it are relative to the host's own folders (`images_dir`, `boot_dir`), bridges are names that each host
//! maps to its own: so the same description fits both sites. It never holds a command line, and no field of it is
//! ever read by a shell. Every field is checked again by the host that receives it.

mod check;

use std::net::Ipv4Addr;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use thiserror::Error;

pub use check::{DEVICES_MAX, is_inner_path, parse_mac};

/// Why a description is refused.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum GuestError {
    /// It is not TOML, or holds what no description holds; says line and column.
    #[error("{0}")]
    Unreadable(String),
    /// Its fields are wrong: all of them that are, each with what to do.
    #[error("{}", .0.join("\n"))]
    Faults(Vec<String>),
}

/// One guest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Guest {
    /// Its name, the same at every host: letters, digits, `-`, `_`, `.`.
    pub name: String,
    /// Memory in MiB.
    pub memory_mib: u64,
    /// Virtual CPUs.
    #[serde(default = "one")]
    pub vcpus: u32,
    /// QEMU's machine type, with its version ("pc-i440fx-7.2"): an alias may mean something else at the destination.
    #[serde(default = "default_machine")]
    pub machine: String,
    /// QEMU's CPU model; "host" is refused for a guest that shall move.
    #[serde(default = "default_cpu")]
    pub cpu: String,
    /// What runs the guest's code.
    #[serde(default)]
    pub accel: Accel,
    /// Direct boot of a kernel; none: from the first disk.
    #[serde(default)]
    pub boot: Option<Boot>,
    /// Its disks, in the order in which the guest sees them.
    #[serde(default, rename = "disk")]
    pub disks: Vec<Disk>,
    /// Its network cards, in the order in which the guest sees them.
    #[serde(default, rename = "nic")]
    pub nics: Vec<Nic>,
}

/// What runs the guest's code.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Accel {
    /// KVM where a guest really runs on it, else TCG, said aloud.
    #[default]
    Auto,
    /// KVM or nothing.
    Kvm,
    /// Emulation.
    Tcg,
}

/// Direct boot: files below the host's `boot_dir`; both hosts must hold the same (compared by digest).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Boot {
    /// The kernel.
    pub kernel: PathBuf,
    /// Its first file system.
    #[serde(default)]
    pub initrd: Option<PathBuf>,
    /// The kernel's command line.
    #[serde(default)]
    pub append: String,
}

/// One disk.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Disk {
    /// Its name within the guest; also QEMU's id of the device.
    pub id: String,
    /// The raw image below the host's `images_dir`.
    pub image: PathBuf,
    /// Both hosts see the very same image: it is not copied.
    #[serde(default)]
    pub shared: bool,
    /// "raw": the bytes of the image are the disk's, whatever they look like. Needed where they look like another format.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub format: Option<String>,
}

/// One network card.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Nic {
    /// Its name within the guest; also QEMU's id of the device.
    pub id: String,
    /// Its hardware address.
    pub mac: String,
    /// The name of a bridge, which each host maps to its own.
    pub bridge: String,
    /// The guest's address on it; without one nothing is rerouted for this card.
    #[serde(default)]
    pub address: Option<Ipv4Addr>,
    /// The name that DNS has for the address; without one DNS is left alone.
    #[serde(default)]
    pub dns_name: Option<String>,
}

impl Guest {
    /// Reads a description and checks it.
    pub fn parse(toml: &str) -> Result<Self, GuestError> {
        let guest: Self = toml::from_str(toml)
            .map_err(|error| GuestError::Unreadable(error.to_string().trim_end().into()))?;
        guest.check().map_err(GuestError::Faults)?;
        Ok(guest)
    }

    /// Checks every field; the error has all faults at once, each with its place and what to do.
    pub fn check(&self) -> Result<(), Vec<String>> {
        let faults = check::faults(self);
        if faults.is_empty() { Ok(()) } else { Err(faults) }
    }

    /// The description for another host. What only says how an image of this host is to be read stays here: the other
    /// makes its own, and a host of version 0.1.0 ends the link when it hears of it.
    pub fn for_a_peer(&self) -> Self {
        let mut guest = self.clone();
        guest.disks.iter_mut().for_each(|disk| disk.format = None);
        guest
    }

    /// The name that a disk has at every host (`blockd --disk-id`).
    pub fn disk_name(&self, disk: &Disk) -> String {
        format!("{}-{}", self.name, disk.id)
    }
}

fn one() -> u32 {
    1
}

fn default_machine() -> String {
    "pc-i440fx-7.2".to_owned()
}

fn default_cpu() -> String {
    "qemu64".to_owned()
}
