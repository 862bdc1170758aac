//! The first file system of a test guest: busybox, the modules that find the disk, the writer, and an init.
//!
//! ```text
//! kernel ─► /init (script) ─ insmod virtio … ─┬─ disk=raw   guest_writer write /dev/vda
//!                                             └─ disk=root  mount /dev/vda, switch_root, /sbin/init from the disk
//! ```
//!
//! The archive is written here (the "newc" format of cpio), as it is a dozen lines and no tool makes a device
//! node without root. Module order matters: `virtio_ring` comes before `virtio`.

use std::fs;
use std::path::{Path, PathBuf};

use crate::program::Tool;

/// What finds the disk, in the order in which it has to be loaded.
const MODULES: [&str; 6] = [
    "virtio/virtio_ring.ko",
    "virtio/virtio.ko",
    "virtio/virtio_pci_legacy_dev.ko",
    "virtio/virtio_pci_modern_dev.ko",
    "virtio/virtio_pci.ko",
    "block/virtio_blk.ko",
];

const INIT: &str = include_str!("initramfs/init.sh");
const ROOT_INIT: &str = include_str!("initramfs/root-init.sh");

/// Write the archive to `target`, with the modules from `modules` (`/lib/modules/<release>`).
pub fn build(target: &Path, modules: &Path, writer: &Path) {
    let mut archive = Archive::default();
    for folder in ["bin", "dev", "proc", "sys", "modules", "root"] {
        archive.entry(folder, 0o040_755, (0, 0), &[]);
    }
    archive.entry("dev/console", 0o020_600, (5, 1), &[]);
    archive.file("bin/busybox", &read(&busybox()));
    archive.file("bin/guest_writer", &read(writer));
    for module in MODULES {
        let (_, name) = module.split_once('/').expect("a module lies in a folder");
        archive.file(&format!("modules/{name}"), &read(&modules.join("kernel/drivers").join(module)));
    }
    let names: Vec<&str> = MODULES.iter().map(|module| module.split_once('/').expect("a folder").1).collect();
    archive.file("init", INIT.replace("@MODULES@", &names.join(" ")).as_bytes());
    fs::write(target, archive.finish()).expect("write an initramfs");
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
struct Archive {
    bytes: Vec<u8>,
    entries: u32,
}

impl Archive {
    fn file(&mut self, name: &str, content: &[u8]) {
        self.entry(name, 0o100_755, (0, 0), content);
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

    fn finish(mut self) -> Vec<u8> {
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
