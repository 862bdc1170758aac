//! The first file system of a test guest: busybox, the modules that find the disk, the writer, and an init.
//!
//! ```text
//! kernel ─► /init (script) ─ insmod virtio … ─┬─ disk=raw   guest_writer write /dev/vda
//!                                             └─ disk=root  mount /dev/vda, switch_root, /sbin/init from the disk
//! ```
//!
//! [`Archive`] and the lists of modules serve any small machine that boots without a disk.
//!
//! The archive is written here (the "newc" format of cpio), as it is a dozen lines and no tool makes a device
//! node without root. Module order matters: `virtio_ring` comes before `virtio`.

use std::fs;
use std::path::{Path, PathBuf};

use crate::program::Tool;

/// The bus of all virtio devices, below `kernel/` of a kernel's modules, in the order in which it has to be loaded.
pub const VIRTIO_MODULES: [&str; 5] = [
    "drivers/virtio/virtio_ring.ko",
    "drivers/virtio/virtio.ko",
    "drivers/virtio/virtio_pci_legacy_dev.ko",
    "drivers/virtio/virtio_pci_modern_dev.ko",
    "drivers/virtio/virtio_pci.ko",
];

/// What finds the disk; after the bus.
pub const DISK_MODULES: [&str; 1] = ["drivers/block/virtio_blk.ko"];

/// What finds the network card; after the bus.
pub const NETWORK_MODULES: [&str; 3] =
    ["net/core/failover.ko", "drivers/net/net_failover.ko", "drivers/net/virtio_net.ko"];

/// What feels the power button.
pub const BUTTON_MODULES: [&str; 2] = ["drivers/acpi/button.ko", "drivers/input/evdev.ko"];

const INIT: &str = include_str!("initramfs/init.sh");
const ROOT_INIT: &str = include_str!("initramfs/root-init.sh");

/// Write the archive to `target`, with the modules from `modules` (`/lib/modules/<release>`).
pub fn build(target: &Path, modules: &Path, writer: &Path) {
    let mut archive = Archive::with_busybox();
    archive.file("bin/guest_writer", &read(writer));
    let names = archive.modules(modules, &[&VIRTIO_MODULES[..], &DISK_MODULES].concat());
    archive.file("init", INIT.replace("@MODULES@", &names).as_bytes());
    fs::write(target, archive.finish()).expect("write an initramfs");
}

/// The archive for a guest that has its root, and all its programs, on the disk; it also finds its network card.
pub fn for_root(modules: &Path) -> Vec<u8> {
    let mut archive = Archive::with_busybox();
    let wanted = [&VIRTIO_MODULES[..], &DISK_MODULES, &NETWORK_MODULES, &BUTTON_MODULES].concat();
    let names = archive.modules(modules, &wanted);
    archive.file("init", INIT.replace("@MODULES@", &names).as_bytes());
    archive.finish()
}

/// Make an ext4 image of `size_bytes` that the guest can have its root on.
pub fn build_root(image: &Path, size_bytes: u64, writer: &Path) {
    let tree = image.with_extension("tree");
    for folder in ["bin", "sbin", "dev", "proc", "sys", "data"] {
        fs::create_dir_all(tree.join(folder)).expect("make the tree of a root");
    }
    fs::copy(busybox(), tree.join("bin/busybox")).expect("copy busybox");
    fs::copy(writer, tree.join("bin/guest_writer")).expect("copy the writer");
    let init = tree.join("sbin/init");
    fs::write(&init, ROOT_INIT).expect("write an init");
    Tool::new("chmod").arg("755").arg(&init).run();
    let size = format!("{}k", size_bytes >> 10);
    let make = Tool::new("mke2fs").args(["-q", "-t", "ext4", "-b", "4096", "-d"]);
    make.arg(&tree).arg(image).arg(size).run();
    fs::remove_dir_all(&tree).expect("remove the tree of a root");
}

/// The static busybox of Debian's busybox-static.
pub fn busybox() -> PathBuf {
    PathBuf::from("/bin/busybox")
}

fn read(path: &Path) -> Vec<u8> {
    fs::read(path).unwrap_or_else(|error| panic!("read {}: {error}", path.display()))
}

/// A cpio archive in the making.
#[derive(Debug, Default)]
pub struct Archive {
    bytes: Vec<u8>,
    entries: u32,
}

impl Archive {
    /// The usual folders, a console and busybox.
    pub fn with_busybox() -> Self {
        let mut archive = Self::default();
        for folder in ["bin", "dev", "proc", "sys", "modules", "root"] {
            archive.folder(folder);
        }
        archive.entry("dev/console", 0o020_600, (5, 1), &[]);
        archive.file("bin/busybox", &read(&busybox()));
        archive
    }

    /// Add a folder; those above it come first.
    pub fn folder(&mut self, name: &str) {
        self.entry(name, 0o040_755, (0, 0), &[]);
    }

    /// Add a file that may be executed.
    pub fn file(&mut self, name: &str, content: &[u8]) {
        self.entry(name, 0o100_755, (0, 0), content);
    }

    /// Add modules of a kernel as `modules/<name>.ko`, and give their names in the same order, for an `insmod` each.
    /// `modules` is the kernel's folder (`/lib/modules/<release>`), `wanted` are paths below its `kernel/`.
    pub fn modules(&mut self, modules: &Path, wanted: &[&str]) -> String {
        let mut names = Vec::new();
        for path in wanted {
            let (_, name) = path.rsplit_once('/').expect("a module lies in a folder");
            self.file(&format!("modules/{name}"), &read(&modules.join("kernel").join(path)));
            names.push(name);
        }
        names.join(" ")
    }

    fn entry(&mut self, name: &str, mode: u32, device: (u32, u32), content: &[u8]) {
        self.entries += 1;
        let size = u32::try_from(content.len()).expect("a file of an initramfs is small");
        let name_size = name.len() as u32 + 1;
        // ino mode uid gid nlink mtime filesize devmajor devminor rdevmajor rdevminor namesize check
        let fields = [self.entries, mode, 0, 0, 1, 0, size, 0, 0, device.0, device.1, name_size, 0];
        self.bytes.extend_from_slice(b"070701");
        for field in fields {
            self.bytes.extend_from_slice(format!("{field:08x}").as_bytes());
        }
        self.bytes.extend_from_slice(name.as_bytes());
        self.bytes.push(0);
        self.align();
        self.bytes.extend_from_slice(content);
        self.align();
    }

    /// The bytes of the whole archive.
    pub fn finish(mut self) -> Vec<u8> {
        self.entry("TRAILER!!!", 0, (0, 0), &[]);
        self.bytes
    }

    fn align(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }
}

#[cfg(test)]
mod tests {
    use super::Archive;

    #[test]
    fn an_archive_has_the_bytes_of_the_newc_format() {
        let mut archive = Archive::default();
        archive.file("a", b"xyz");
        let bytes = archive.finish();
        let head = "070701\
                    00000001000081ed000000000000000000000001000000000000000300000000000000000000000000000000\
                    0000000200000000";
        assert_eq!(&bytes[..110], head.as_bytes());
        assert_eq!(&bytes[110..116], b"a\0xyz\0");
        assert!(bytes.windows(11).any(|window| window == b"TRAILER!!!\0"));
        assert_eq!(bytes.len() % 4, 0);
    }
}
