//! What this host is and has, looked up.
//!
//! ```text
//! /proc/meminfo ─┐
//! statvfs ───────┤
//! QEMU (asked) ──┼──► Facts
//! KVM (tried) ───┤
//! files, bridges ┘
//! ```
//!
//! What changes with the program alone (QEMU's offers, KVM) is looked up again when that is another file.

pub mod kvm;
mod own_images;
mod program;
pub mod network;
mod offers;

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use blockd::io::sidecar_place;
use blockd::sidecar::{Header, Role};
use thiserror::Error;
use tokio::sync::Mutex;
use tokio::task::spawn_blocking;
use tracing::{info, warn};

use crate::config::Config;
use crate::guest::{Accel, Disk, Guest};
use crate::host::{Facts, Image, Kvm};
use crate::io::inner_path::{PathError, inner_path};
use crate::io::tap::interface_exists;
use crate::peer::DiskSize;
use crate::qemu::Accelerator;

use self::own_images::own_images;
use self::program::FileNow;

/// Why the host cannot be looked at, or does not give what is needed.
#[derive(Debug, Error)]
pub enum HostError {
    /// KVM was asked for by name, and is not to be had.
    #[error("accel = \"kvm\" is not to be had here: {0}; use accel = \"tcg\", or a host with KVM")]
    Accelerator(String),
    /// QEMU cannot be asked.
    #[error("QEMU: {0}")]
    Qemu(String),
    /// A path of the description is not to be had.
    #[error(transparent)]
    Path(#[from] PathError),
    /// A file or folder cannot be looked at.
    #[error("cannot look at {}: {cause}", path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// What the system said.
        cause: std::io::Error,
    },
}

impl HostError {
    fn file(path: &Path) -> impl FnOnce(std::io::Error) -> Self {
        move |cause| Self::File { path: path.into(), cause }
    }
}

const MIB: u64 = 1 << 20;
/// What the host keeps for itself in MiB where the configuration says nothing.
const HOST_MEMORY_MIB: u64 = 512;

/// The QEMU with which /dev/kvm was tried, and that device.
type Tried = [Option<FileNow>; 2];

/// One /dev/kvm a host, tried once for each QEMU.
static KVM: Mutex<Option<(Tried, Kvm)>> = Mutex::const_new(None);

/// Whether KVM is to be had; tried at the first call, which takes up to two seconds.
pub async fn kvm(config: &Config) -> Kvm {
    let qemu = &config.programs.qemu;
    let mut tried = KVM.lock().await;
    let now = [FileNow::of_program(qemu), FileNow::at(Path::new("/dev/kvm"))];
    if let Some((with, kvm)) = &*tried
        && *with == now
    {
        return kvm.clone();
    }
    let kvm = kvm::probe(qemu).await;
    match &kvm {
        Kvm::Usable => info!("guests run on KVM"),
        other => warn!(
            found = ?other,
            "guests do not run on KVM here; they are emulated, which is slow, unless they ask for KVM by name"
        ),
    }
    *tried = Some((now, kvm.clone()));
    kvm
}

/// What runs a guest that asks for `accel`.
pub async fn accelerator(config: &Config, accel: Accel) -> Result<Accelerator, HostError> {
    let kvm = if accel == Accel::Tcg { Kvm::Untried } else { kvm(config).await };
    let chosen = Facts { kvm: kvm.clone(), ..Facts::default() }.accelerator(accel);
    if let (Accel::Kvm, Kvm::Doubtful(reason)) = (accel, &kvm) {
        warn!(reason, "KVM was asked for by name; an ordinary guest may hang on it");
    }
    chosen.map_err(HostError::Accelerator)
}

/// Everything that a decision about `guest` needs. `name_of` its disks is [`Guest::disk_name`].
pub async fn facts(config: &Config, guest: &Guest) -> Result<Facts, HostError> {
    // Who asks for emulation need not wait until KVM was tried.
    let kvm = if guest.accel == Accel::Tcg { Kvm::Untried } else { kvm(config).await };
    let offers = offers::ask(&config.programs.qemu, !matches!(kvm, Kvm::Absent(_))).await?;
    let (config, guest) = (config.clone(), guest.clone());
    let looked_up = spawn_blocking(move || {
        Ok::<_, HostError>(Facts {
            qemu_version: offers.version,
            machines: offers.machines,
            cpus: offers.cpus,
            flags: offers.flags,
            kvm,
            boot_digests: boot_digests(&config, &guest),
            images: images(&config, &guest),
            ..room(&config)?
        })
    });
    looked_up.await.unwrap_or_else(|error| Err(HostError::Qemu(format!("cannot look at the host: {error}"))))
}

/// What the room for a guest of this host depends on, and the sizes of its disks: QEMU is not asked.
pub async fn facts_to_start(config: &Config, guest: &Guest) -> Result<(Facts, Vec<DiskSize>), HostError> {
    let (config, guest) = (config.clone(), guest.clone());
    let looked_up = spawn_blocking(move || {
        let (images, sizes) = own_images(&config, &guest);
        Ok::<_, HostError>((Facts { images, ..room(&config)? }, sizes))
    });
    looked_up.await.unwrap_or_else(|error| Err(HostError::Qemu(format!("cannot look at the host: {error}"))))
}

/// What this host has for any guest.
fn room(config: &Config) -> Result<Facts, HostError> {
    let memory = Memory::read()?;
    let limit = config.limits.memory_mib.unwrap_or(memory.total_mib.saturating_sub(HOST_MEMORY_MIB));
    let bridge = |(name, here): (&String, &String)| (name.clone(), (here.clone(), interface_exists(here)));
    Ok(Facts {
        architecture: std::env::consts::ARCH.to_owned(),
        memory_available_mib: memory.available_mib,
        memory_limit_mib: limit,
        disk_available_bytes: disk_available_bytes(config)?,
        disk_overcommit: config.limits.disk_overcommit,
        bridges: config.bridges.iter().map(bridge).collect(),
        ..Facts::default()
    })
}

/// QEMU's version, as it says it itself.
pub async fn qemu_version(config: &Config) -> Result<String, HostError> {
    Ok(offers::ask(&config.programs.qemu, false).await?.version)
}

/// Digests (BLAKE3, hex) of a guest's boot files, kernel first, by their paths in the description; or why there is
/// none. Reads the files: not for a thread that must not wait.
pub fn boot_digests(config: &Config, guest: &Guest) -> Vec<(PathBuf, Result<String, String>)> {
    let Some(boot) = &guest.boot else { return Vec::new() };
    let digest = |inner: &PathBuf| {
        let digest =
            inner_path(&config.boot_dir, inner).map_err(|error| error.to_string()).and_then(|path| {
                let mut hasher = blake3::Hasher::new();
                let hashed = fs::File::open(&path).and_then(|file| hasher.update_reader(file).map(drop));
                hashed.map(|()| hasher.finalize().to_hex().to_string()).map_err(|error| match error.kind() {
                    std::io::ErrorKind::NotFound => "it is not here".to_owned(),
                    _ => format!("it cannot be read: {error}"),
                })
            });
        (inner.clone(), digest)
    };
    std::iter::once(&boot.kernel).chain(&boot.initrd).map(digest).collect()
}

/// Memory in MiB that a process has touched; 0 for one that is gone.
pub fn resident_mib(pid: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    field_kib(&status, "VmRSS:").unwrap_or_default() / 1024
}

/// The size of an image and what of it is not a hole, in bytes.
pub fn image_bytes(config: &Config, disk: &Disk) -> Result<(u64, u64), HostError> {
    let path = inner_path(&config.images_dir, &disk.image)?;
    let found = fs::metadata(&path).map_err(HostError::file(&path))?;
    Ok((found.len(), found.blocks() * 512))
}

struct Memory {
    total_mib: u64,
    available_mib: u64,
}

impl Memory {
    fn read() -> Result<Self, HostError> {
        let path = Path::new("/proc/meminfo");
        let text = fs::read_to_string(path).map_err(HostError::file(path))?;
        let mib = |field: &str| field_kib(&text, field).unwrap_or_default() / 1024;
        Ok(Self { total_mib: mib("MemTotal:"), available_mib: mib("MemAvailable:") })
    }
}

fn field_kib(text: &str, field: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(field))?;
    line.trim().strip_suffix("kB")?.trim().parse().ok()
}

fn disk_available_bytes(config: &Config) -> Result<u64, HostError> {
    let folder = &config.images_dir;
    let found = nix::sys::statvfs::statvfs(folder).map_err(|error| HostError::file(folder)(error.into()))?;
    let free = found.blocks_available() as u64 * found.fragment_size() as u64;
    Ok(free.saturating_sub(config.limits.disk_reserve_mib * MIB))
}

fn images(config: &Config, guest: &Guest) -> BTreeMap<String, Image> {
    guest.disks.iter().map(|disk| (disk.id.clone(), image(config, guest, disk))).collect()
}

/// What is at an image's place. An image without a sidecar of this very disk is somebody's data; whether one with a
/// sidecar may be written over is blockd's to say (D13), which looks at all of it.
fn image(config: &Config, guest: &Guest, disk: &Disk) -> Image {
    let path = match inner_path(&config.images_dir, &disk.image) {
        Ok(path) => path,
        Err(error) => return Image::Taken(error.to_string()),
    };
    let Ok(found) = fs::metadata(&path) else { return Image::Absent };
    let is_device = found.file_type().is_block_device();
    if !is_device && !found.is_file() {
        return Image::Taken("this is neither a file nor a block device".into());
    }
    let allocated_bytes = found.blocks() * 512;
    let name = guest.disk_name(disk);
    match sidecar_place::look(&path, None, Some(&name), None).map(|(_, found)| found) {
        Ok(None) if disk.shared => Image::Ours { allocated_bytes },
        Ok(Some(header)) if disk.shared => Image::Taken(format!(
            "this is the disk {} of a guest, and not one that guests share",
            header.disk_id
        )),
        Ok(Some(header)) => ours(guest, disk, &header, allocated_bytes),
        Ok(None) => Image::Taken(
            "there is an image already that no migration has made; name another one, or remove it yourself"
                .into(),
        ),
        Err(error) => {
            let error = anyhow::Error::from(error);
            Image::Taken(format!("there is an image already, and its sidecar cannot be read: {error:#}"))
        }
    }
}

fn ours(guest: &Guest, disk: &Disk, header: &Header, allocated_bytes: u64) -> Image {
    let owner = &header.disk_id;
    if *owner != guest.disk_name(disk) {
        return Image::Taken(format!(
            "there is an image already, of the disk {owner}; name another one, or remove it yourself"
        ));
    }
    match header.role {
        Role::Replica | Role::Fenced => Image::Ours { allocated_bytes },
        Role::Primary | Role::Promoted => Image::Taken(format!(
            "this is the disk {owner} itself, generation {}, and was not given up; a copy would destroy it",
            header.generation
        )),
    }
}
