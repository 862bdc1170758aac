//! QEMU's command line, built from a description: words in order, never read by a shell.
//!
//! ```text
//! Guest + Paths of this host ── words ──► -machine … -blockdev … -device …      the same devices at the same PCI
//!                                                                               places at both hosts (S2-11)
//! ```
//!
//! Disks sit in slots 4 to 15 and cards in slots 16 to 27, whatever else there is, so that a guest with one disk
//! more keeps the places of the others. A comma in a path is doubled, which is QEMU's way to quote it. Every guest
//! starts with its CPU held (`-S`); whoever started it says `cont`.

use std::collections::BTreeSet;
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::guest::{Accel, Guest};

/// Seconds that QEMU waits for a disk's daemon before the guest sees anything of it.
const RECONNECT_DELAY_S: u32 = 300;
const FIRST_DISK_SLOT: usize = 4;
const FIRST_NIC_SLOT: usize = 16;

/// What runs the guest's code, decided.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Accelerator {
    /// The host's processor.
    Kvm,
    /// Emulation.
    Tcg,
}

impl Accelerator {
    /// QEMU's word for it.
    pub fn name(self) -> &'static str {
        match self {
            Accelerator::Kvm => "kvm",
            Accelerator::Tcg => "tcg",
        }
    }
}

impl From<Accelerator> for Accel {
    fn from(accelerator: Accelerator) -> Self {
        match accelerator {
            Accelerator::Kvm => Accel::Kvm,
            Accelerator::Tcg => Accel::Tcg,
        }
    }
}

/// Where a disk's bytes are, for QEMU.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Backing {
    /// At the NBD socket of its blockd.
    Nbd(PathBuf),
    /// In a file that both hosts see.
    File(PathBuf),
    /// On a block device that both hosts see.
    Device(PathBuf),
}

/// The places of this host that a command line names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Paths {
    /// The monitor's socket, made by QEMU.
    pub monitor: PathBuf,
    /// The file that takes the serial console.
    pub console: PathBuf,
    /// The kernel, where the description has one.
    pub kernel: Option<PathBuf>,
    /// Its first file system.
    pub initrd: Option<PathBuf>,
    /// One for each disk of the description, in order.
    pub disks: Vec<Backing>,
    /// A tap for each card of the description, in order.
    pub taps: Vec<String>,
}

/// The words after the program's name. `incoming`: it waits for `migrate-incoming`.
///
/// # Panics
/// If `paths` does not have as many disks and taps as the description.
pub fn words(guest: &Guest, paths: &Paths, accelerator: Accelerator, incoming: bool) -> Vec<OsString> {
    assert_eq!((guest.disks.len(), guest.nics.len()), (paths.disks.len(), paths.taps.len()));
    let mut words = Words(Vec::new());
    words.option("-name", &guest.name);
    words.option("-machine", &guest.machine);
    words.option("-accel", accelerator.name());
    words.option("-cpu", format!("{},enforce", guest.cpu));
    words.option("-m", memory(guest, accelerator));
    words.option("-smp", guest.vcpus.to_string());
    words.flags(&["-nodefaults", "-no-user-config", "-S"]);
    words.option("-display", "none");
    words.option("-sandbox", "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny");
    words.option("-msg", "timestamp=on");
    words.option("-chardev", quoted("socket,id=monitor,server=on,wait=off,path=", &paths.monitor));
    words.option("-mon", "chardev=monitor,mode=control");
    words.option("-chardev", quoted("file,id=console,append=on,path=", &paths.console));
    words.option("-serial", "chardev:console");
    words.boot(guest, paths);
    words.disks(guest, paths);
    words.nics(guest, paths);
    if incoming {
        words.option("-incoming", "defer");
    }
    words.0
}

/// The guest's memory, for `-m`.
///
/// Under emulation it has 8 KiB more than was asked for. To find the dirty pages of memory that comes in whole pieces
/// of 256 KiB, QEMU before 9.0 takes a short cut that leaves the emulated CPU's TLB as it was: later writes to the same
/// pages go unnoticed, and the destination gets old ones (fixed by "physmem: Fix migration dirty bitmap coherency with
/// TCG memory access"). For any other size it takes the long way, which is right. KVM has no such TLB.
fn memory(guest: &Guest, accelerator: Accelerator) -> String {
    let extra_kib = match accelerator {
        Accelerator::Tcg => 8,
        Accelerator::Kvm => 0,
    };
    format!("size={}K", guest.memory_mib * 1024 + extra_kib)
}

/// The block node of a disk.
pub fn node_name(disk: &str) -> String {
    format!("disk-{disk}")
}

/// The devices that a guest has by these words, by their names in QEMU. Those of the board have none.
pub fn device_names(guest: &Guest) -> BTreeSet<String> {
    let (disks, nics) = (guest.disks.iter().map(|disk| &disk.id), guest.nics.iter().map(|nic| &nic.id));
    disks.chain(nics).cloned().collect()
}

struct Words(Vec<OsString>);

impl Words {
    fn option(&mut self, option: &str, value: impl Into<OsString>) {
        self.0.extend([option.into(), value.into()]);
    }

    fn flags(&mut self, flags: &[&str]) {
        self.0.extend(flags.iter().map(OsString::from));
    }

    fn boot(&mut self, guest: &Guest, paths: &Paths) {
        let Some(boot) = &guest.boot else { return };
        for (option, path) in [("-kernel", &paths.kernel), ("-initrd", &paths.initrd)] {
            if let Some(path) = path {
                self.option(option, path);
            }
        }
        if !boot.append.is_empty() {
            self.option("-append", &boot.append);
        }
    }

    fn disks(&mut self, guest: &Guest, paths: &Paths) {
        for (index, (disk, backing)) in guest.disks.iter().zip(&paths.disks).enumerate() {
            let node = node_name(&disk.id);
            let node = match backing {
                Backing::Nbd(socket) => quoted(
                    &format!(
                        "driver=nbd,node-name={node},reconnect-delay={RECONNECT_DELAY_S},discard=unmap,\
                         server.type=unix,server.path="
                    ),
                    socket,
                ),
                Backing::File(path) => quoted(
                    &format!("driver=file,node-name={node},cache.direct=on,discard=unmap,filename="),
                    path,
                ),
                Backing::Device(path) => quoted(
                    &format!("driver=host_device,node-name={node},cache.direct=on,discard=unmap,filename="),
                    path,
                ),
            };
            self.option("-blockdev", node);
            let device = format!(
                "virtio-blk-pci,drive={},id={},addr={:#x},bootindex={},werror=stop,rerror=stop",
                node_name(&disk.id),
                disk.id,
                FIRST_DISK_SLOT + index,
                index + 1
            );
            self.option("-device", device);
        }
    }

    /// Without an option ROM: its size is part of what migrates, and differs between versions of QEMU.
    fn nics(&mut self, guest: &Guest, paths: &Paths) {
        for (index, (nic, tap)) in guest.nics.iter().zip(&paths.taps).enumerate() {
            self.option("-netdev", format!("tap,id=net-{},ifname={tap},script=no,downscript=no", nic.id));
            let device = format!(
                "virtio-net-pci,netdev=net-{},id={},mac={},addr={:#x},romfile=",
                nic.id,
                nic.id,
                nic.mac,
                FIRST_NIC_SLOT + index
            );
            self.option("-device", device);
        }
    }
}

/// `prefix` and a path whose commas are doubled.
fn quoted(prefix: &str, path: &Path) -> OsString {
    let mut bytes = prefix.as_bytes().to_vec();
    for byte in path.as_os_str().as_bytes() {
        bytes.push(*byte);
        if *byte == b',' {
            bytes.push(b',');
        }
    }
    OsString::from_vec(bytes)
}

/// The name of a tap in at most 15 bytes: something readable, and a digest that tells guests, cards and hosts on
/// the same machine apart.
pub fn tap_name(runtime_dir: &Path, guest: &str, nic: &str) -> String {
    let mut hasher = blake3::Hasher::new();
    for part in [runtime_dir.as_os_str(), OsStr::new(guest), OsStr::new(nic)] {
        hasher.update(&(part.len() as u64).to_le_bytes());
        hasher.update(part.as_bytes());
    }
    let digest = hasher.finalize().to_hex();
    let start: String = guest.chars().filter(char::is_ascii_alphanumeric).take(4).collect();
    format!("t{start}-{}", &digest[..8])
}

#[cfg(test)]
mod tests {
    use std::path::{Path, PathBuf};

    use super::{Accelerator, Backing, Paths, tap_name, words};
    use crate::guest::Guest;

    fn guest() -> Guest {
        Guest::parse(
            "name = \"web\"\nmemory_mib = 256\n[boot]\nkernel = \"k\"\nappend = \"a, b; $(c)\"\n\
             [[disk]]\nid = \"root\"\nimage = \"r\"\n[[disk]]\nid = \"log\"\nimage = \"l\"\nshared = true\n\
             [[nic]]\nid = \"net0\"\nmac = \"52:54:00:12:34:56\"\nbridge = \"lan\"\n",
        )
        .unwrap()
    }

    fn paths() -> Paths {
        Paths {
            monitor: "/run/a,b/qmp".into(),
            console: "/state/console.log".into(),
            kernel: Some("/boot/k".into()),
            initrd: None,
            disks: vec![Backing::Nbd("/run/a,b/root.nbd".into()), Backing::File("/images/l".into())],
            taps: vec!["tweb-01234567".into()],
        }
    }

    fn text(incoming: bool) -> Vec<String> {
        let words = words(&guest(), &paths(), Accelerator::Tcg, incoming);
        words.into_iter().map(|word| word.into_string().unwrap()).collect()
    }

    fn values<'a>(words: &'a [String], option: &str) -> Vec<&'a str> {
        let at = words.iter().enumerate().filter(|(_, word)| *word == option);
        at.map(|(index, _)| words[index + 1].as_str()).collect()
    }

    #[test]
    fn disks_wait_for_their_daemon_and_stop_the_guest_at_an_error() {
        let words = text(false);
        let nodes = values(&words, "-blockdev");
        assert_eq!(
            nodes[0],
            "driver=nbd,node-name=disk-root,reconnect-delay=300,discard=unmap,server.type=unix,\
             server.path=/run/a,,b/root.nbd"
        );
        assert!(
            nodes[1].starts_with("driver=file,") && nodes[1].ends_with("filename=/images/l"),
            "{}",
            nodes[1]
        );
        let devices = values(&words, "-device");
        let disk = "virtio-blk-pci,drive=disk-root,id=root,addr=0x4,bootindex=1,werror=stop,rerror=stop";
        assert_eq!(devices[0], disk);
        assert!(devices[1].contains("id=log,addr=0x5,bootindex=2"), "{}", devices[1]);
        assert!(devices[2].contains("mac=52:54:00:12:34:56,addr=0x10,romfile="), "{}", devices[2]);
    }

    #[test]
    fn what_the_guest_says_stays_one_word() {
        let words = text(false);
        assert_eq!(values(&words, "-append"), ["a, b; $(c)"]);
        assert_eq!(values(&words, "-cpu"), ["qemu64,enforce"]);
    }

    #[test]
    fn source_and_destination_differ_only_by_waiting() {
        let (source, destination) = (text(false), text(true));
        assert_eq!(destination.strip_prefix(source.as_slice()).unwrap(), ["-incoming", "defer"]);
    }

    #[test]
    fn taps_have_short_names_that_differ() {
        let runtime = PathBuf::from("/run/migrated");
        let long = "a-very-long-name-of-a-guest.with.dots";
        let names = [
            tap_name(&runtime, long, "net0"),
            tap_name(&runtime, long, "net1"),
            tap_name(&runtime, "a-ver", "net0"),
            tap_name(Path::new("/run/other"), long, "net0"),
        ];
        assert!(names.iter().all(|name| name.len() <= 15 && name.starts_with("taver-")), "{names:?}");
        assert!((1..names.len()).all(|at| !names[..at].contains(&names[at])), "{names:?}");
    }
}
