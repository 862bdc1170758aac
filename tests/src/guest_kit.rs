//! Everything that a test guest is made of, made once and kept: kernel, first file system, disks, description, and
//! a saved state of the guest as it is just after its start.
//!
//! ```text
//! Recipe ─┬─► programs (static, by rustc) ─┬─► initramfs ─┐
//!         └─► fill ────────────────────────┴─► disk(s) ───┴─► booted once ─► saved state + disks of that instant
//!                                    all below <target>/guest-kit, each named after the hash of what it is made of
//! ```
//!
//! A test copies what it needs ([`GuestKit::install`]) and restores the saved state in a fraction of the time that
//! a boot takes. Everything in the guest is idle in it; tests set it to work over its command port
//! ([`service::Service`]).

pub mod ports;
pub mod cache;
pub mod programs;
pub mod root;
pub mod place;
pub mod service;
pub mod machine;

use std::fs;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};

use migrated::guest::{Accel, Boot, Disk, Guest, Nic};

use crate::binaries::guest_kernel;
use crate::initramfs;
use crate::lab::Lab;
use crate::program::Tool;
use crate::requires::{self, Missing};
use cache::Key;
use machine::{Machine, Start};

/// The guest's address, and its router's.
pub const ADDRESS: Ipv4Addr = Ipv4Addr::new(10, 1, 0, 10);
/// The router that the guest knows.
pub const GATEWAY: Ipv4Addr = Ipv4Addr::new(10, 1, 0, 1);

/// What is on the guest's first disk besides its programs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fill {
    /// Nothing.
    Bare,
    /// One third files of /usr/lib, one third noise, one third empty: what benchmarks move.
    Thirds,
}

/// What kind of guest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recipe {
    /// Its name.
    pub name: String,
    /// Its memory.
    pub memory_mib: u64,
    /// QEMU's CPU model.
    pub cpu: String,
    /// QEMU's machine type.
    pub machine: String,
    /// Size of the first disk.
    pub disk_mib: u64,
    /// What is on it.
    pub fill: Fill,
    /// Size of a second, raw disk.
    pub second_disk_mib: Option<u64>,
}

impl Default for Recipe {
    fn default() -> Self {
        Self {
            name: "web".to_owned(),
            memory_mib: 128,
            cpu: "qemu64".to_owned(),
            machine: "pc-i440fx-7.2".to_owned(),
            disk_mib: 512,
            fill: Fill::Bare,
            second_disk_mib: None,
        }
    }
}

impl Recipe {
    /// The guest of the benchmarks: 256 MiB of memory, and a disk of thirds.
    pub fn to_measure() -> Self {
        Self { name: "thirds".to_owned(), memory_mib: 256, fill: Fill::Thirds, ..Self::default() }
    }

    /// The guest's description for `migrated run`. Images are `NAME.raw` and `NAME-b.raw`, the kernel is `vmlinuz`,
    /// its first file system `initramfs`.
    pub fn guest(&self) -> Guest {
        let disk = |id: &str, image: String| Disk {
            id: id.to_owned(),
            image: image.into(),
            shared: false,
            format: None,
        };
        let mut disks = vec![disk("vda", format!("{}.raw", self.name))];
        disks.extend(self.second_disk_mib.map(|_| disk("vdb", format!("{}-b.raw", self.name))));
        let append =
            format!("console=ttyS0 quiet panic=-1 no_timer_check disk=root addr={ADDRESS}/24 gw={GATEWAY}");
        let boot = Boot { kernel: "vmlinuz".into(), initrd: Some("initramfs".into()), append };
        let nic = Nic {
            id: "net0".to_owned(),
            mac: "52:54:00:10:00:10".to_owned(),
            bridge: "lan".to_owned(),
            address: Some(ADDRESS),
            dns_name: None,
        };
        Guest {
            name: self.name.clone(),
            memory_mib: self.memory_mib,
            vcpus: 1,
            machine: self.machine.clone(),
            cpu: self.cpu.clone(),
            accel: Accel::Tcg,
            boot: Some(boot),
            disks,
            nics: vec![nic],
        }
    }
}

/// A guest, ready to be installed at a site.
#[derive(Clone, Debug)]
pub struct GuestKit {
    guest: Guest,
    /// `vmlinuz`, `initramfs`, and the disks as they are before the first boot.
    fresh: PathBuf,
    /// `state`, and the disks of the same instant.
    saved: PathBuf,
}

impl GuestKit {
    /// Find it, or make it: some ten seconds, once.
    pub fn prepare(recipe: &Recipe) -> Result<Self, Missing> {
        requires::programs(&[
            "qemu-system-x86_64",
            "mke2fs",
            "e2fsck",
            "debugfs",
            "rustc",
            "setpriv",
            "unshare",
            "ip",
        ])?;
        if !initramfs::busybox().exists() {
            return Err(Missing::Installable("busybox-static is not installed; run `make setup`".to_owned()));
        }
        requires::root()?;
        let (kernel, guest) = (guest_kernel()?, recipe.guest());
        let service = programs::service();
        let description = toml::to_string(&guest).expect("a description is made of plain values");
        let first = initramfs::for_root(&kernel.modules);
        let key = Key::new("fresh 1").text(&format!("{recipe:?}")).text(&description).text(root::INIT);
        let key = key.bytes(&first).file(&kernel.image).file(&service);
        // A name keeps one version: guests of different shape must not throw each other's away.
        let kept = format!("{}-{}", recipe.name, guest.disks.len());
        let fresh = cache::kept(&format!("{kept}-fresh"), &key, |folder| {
            fs::copy(&kernel.image, folder.join("vmlinuz")).expect("copy the guest's kernel");
            fs::write(folder.join("initramfs"), &first).expect("write the guest's first file system");
            fs::write(folder.join("guest.toml"), &description).expect("write the guest's description");
            root::disks(folder, recipe, &guest, &service);
        });
        let lab = Lab::with(&[])?;
        // The words show every device: another command line is another machine.
        let key = key
            .text(&machine::shape(&guest))
            .text("saved 3")
            .text(&Tool::new("qemu-system-x86_64").arg("--version").run());
        let saved = cache::kept(&format!("{kept}-saved"), &key, |folder| {
            save(&lab, &guest, &fresh, folder);
        });
        Ok(Self { guest, fresh, saved })
    }

    /// The guest's description.
    pub fn guest(&self) -> &Guest {
        &self.guest
    }

    /// The description as a file for `migrated run`.
    pub fn description(&self) -> PathBuf {
        self.fresh.join("guest.toml")
    }

    /// Copy what a boot needs: disks into `images`, kernel and first file system into `boot`.
    pub fn install_fresh(&self, images: &Path, boot: &Path) {
        copy_disks(&self.guest, &self.fresh, images);
        self.install_boot(boot);
    }

    /// Copy what a restored guest needs, and give its state: disks of the state's instant into `images`.
    pub fn install(&self, images: &Path, boot: &Path) -> PathBuf {
        copy_disks(&self.guest, &self.saved, images);
        self.install_boot(boot);
        self.saved.join("state")
    }

    /// Copy only kernel and first file system: what the destination of a move has beforehand.
    pub fn install_boot(&self, boot: &Path) {
        for name in ["vmlinuz", "initramfs"] {
            fs::copy(self.fresh.join(name), boot.join(name)).expect("copy what a guest boots from");
        }
    }

    /// The first disk as it was before the first boot.
    pub fn fresh_disk(&self) -> PathBuf {
        self.fresh.join(&self.guest.disks[0].image)
    }
}

fn copy_disks(guest: &Guest, from: &Path, to: &Path) {
    for disk in &guest.disks {
        copy_sparse(&from.join(&disk.image), &to.join(&disk.image));
    }
}

/// Copy an image; holes stay holes.
pub fn copy_sparse(from: &Path, to: &Path) {
    Tool::new("cp").args(["--sparse=always", "--reflink=auto"]).arg(from).arg(to).run();
}

/// Boot the guest once, and keep it as it is when its programs listen.
fn save(lab: &Lab, guest: &Guest, fresh: &Path, folder: &Path) {
    copy_disks(guest, fresh, folder);
    let machine = Machine::start(lab, guest, folder, fresh, Start::Boot);
    machine.wait_for_ready();
    machine.save(&folder.join("state"));
    for disk in &guest.disks {
        // What the daemon has noted beside the image is not part of the guest.
        let mut sidecar = folder.join(&disk.image).into_os_string();
        sidecar.push(".blockd");
        fs::remove_file(&sidecar).expect("remove what a daemon noted");
    }
}

#[cfg(test)]
mod tests {
    use super::{Fill, Recipe, root};
    use crate::requires::program;
    use crate::scratch::{Scratch, allocated_bytes};
    use migrated::guest::Guest;

    #[test]
    fn the_product_takes_the_description_of_every_guest() {
        let two = Recipe { second_disk_mib: Some(8), ..Recipe::default() };
        for recipe in [Recipe::default(), Recipe::to_measure(), two] {
            let guest = recipe.guest();
            let text = toml::to_string(&guest).unwrap();
            assert_eq!(Guest::parse(&text).unwrap(), guest, "{text}");
            assert_eq!(guest.check(), Ok(()), "{text}");
        }
    }

    #[test]
    fn a_disk_of_thirds_is_two_thirds_full() {
        crate::require!(program("mke2fs"));
        crate::require!(program("setpriv"));
        let scratch = Scratch::new();
        let recipe = Recipe { disk_mib: 96, fill: Fill::Thirds, ..Recipe::default() };
        // Any program will do.
        root::disks(scratch.path(), &recipe, &recipe.guest(), &crate::initramfs::busybox());
        let allocated_mib = allocated_bytes(&scratch.join("web.raw")) >> 20;
        assert!((60..85).contains(&allocated_mib), "{allocated_mib} MiB");
    }
}
