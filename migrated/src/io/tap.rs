//! Taps: the host's ends of a guest's network cards.
//!
//! ```text
//! QEMU ══ tap (persistent, fe:… so that it never becomes the bridge's own address) ── bridge
//! ```
//!
//! A tap is made before QEMU starts, so that at a destination it queues frames for the guest that will resume there,
//! and stays until it is removed: a QEMU that ends takes nothing with it. A tap that is down passes no frame in
//! either direction (S3-36): the kernel refuses QEMU's writes.

mod ioctl;

use std::io;

use thiserror::Error;
use tracing::debug;

/// Why a tap is not as it should be.
#[derive(Debug, Error)]
#[error("cannot {action} the tap {tap}: {cause}")]
pub struct TapError {
    /// What was tried.
    pub action: String,
    /// Its name.
    pub tap: String,
    /// What the system said.
    pub cause: io::Error,
}

/// A tap of a guest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tap {
    /// Its name on the host.
    pub name: String,
    /// The card that it belongs to.
    pub nic: String,
    /// The host's bridge that it is a port of.
    pub bridge: String,
}

impl Tap {
    /// Makes the tap for the user `owner`, puts it on its bridge and switches it on. One of that name that is there
    /// already is taken over.
    pub fn create(
        name: &str,
        nic: &str,
        bridge: &str,
        guest_mac: [u8; 6],
        owner: u32,
    ) -> Result<Self, TapError> {
        let tap = Self { name: name.into(), nic: nic.into(), bridge: bridge.into() };
        ioctl::make_persistent(name, Some(owner)).map_err(|source| tap.failed("make", source))?;
        let made = tap.set_up(guest_mac);
        if made.is_err() {
            // The reason is the first one; what is left is told in the log.
            let _ = tap.remove();
        }
        made?;
        debug!(tap = name, bridge, "made a tap");
        Ok(tap)
    }

    fn set_up(&self, guest_mac: [u8; 6]) -> Result<(), TapError> {
        let mut mac = guest_mac;
        mac[0] = 0xfe;
        ioctl::set_mac(&self.name, mac).map_err(|source| self.failed("set the address of", source))?;
        // The host itself has nothing to say on it. A kernel without IPv6 has no such file.
        let _ = std::fs::write(format!("/proc/sys/net/ipv6/conf/{}/disable_ipv6", self.name), "1");
        let action = format!("put on the bridge {}", self.bridge);
        ioctl::add_to_bridge(&self.bridge, &self.name).map_err(|source| self.failed(&action, source))?;
        self.up()
    }

    /// Switches it on.
    pub fn up(&self) -> Result<(), TapError> {
        ioctl::set_up(&self.name, true).map_err(|source| self.failed("switch on", source))
    }

    /// Switches it off: when this returns, no frame of the guest leaves any more.
    pub fn down(&self) -> Result<(), TapError> {
        ioctl::set_up(&self.name, false).map_err(|source| self.failed("switch off", source))
    }

    /// Whether it is switched on.
    pub fn is_up(&self) -> Result<bool, TapError> {
        ioctl::is_up(&self.name).map_err(|source| self.failed("look at", source))
    }

    /// Removes it, once no QEMU holds it. One that is not there is fine.
    pub fn remove(&self) -> Result<(), TapError> {
        match ioctl::index(&self.name) {
            Err(_) => Ok(()),
            Ok(_) => ioctl::make_persistent(&self.name, None).map_err(|source| self.failed("remove", source)),
        }
    }

    fn failed(&self, action: &str, cause: io::Error) -> TapError {
        TapError { action: action.into(), tap: self.name.clone(), cause }
    }
}

/// Whether the host has an interface of that name.
pub fn interface_exists(name: &str) -> bool {
    ioctl::index(name).is_ok()
}
