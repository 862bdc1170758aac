//! Disks that misbehave, under a real file system, so that the daemon meets them as it would in the field.
//!
//! ```text
//! image ─ ext4 ─ loop (O_DIRECT) ─ FUSE file (nbdfuse) ─ nbdkit, filters `delay` and `error` ─ backing file
//! image ─ tmpfs of a few MB                                                    (for "no space left")
//! image ─ ext2, exFAT or ramfs                                                 (for what they lack)
//! loop device with sectors of 512 or 4096 bytes                                (as an image itself)
//! ```
//!
//! The whole I/O path is the kernel's; only the lowest step is slow or fails. Mounting needs root: callers ask
//! [`crate::requires`] first. The file system has no journal, so that an error of the disk hits the write that
//! it belongs to and does not turn the file system read-only.

use std::fs;
use std::path::{Path, PathBuf};

use crate::program::{Program, Tool};
use crate::scratch::Scratch;
use crate::wait::{PATIENCE, wait_until};

/// A small file system in memory that runs out of space.
#[derive(Debug)]
pub struct SmallDisk {
    mount: Mount,
}

impl SmallDisk {
    /// Mount one of `size_bytes` in the scratch directory.
    pub fn new(scratch: &Scratch, size_bytes: u64) -> Self {
        let directory = scratch.join("small");
        fs::create_dir(&directory).expect("create a mount point");
        let options = format!("size={size_bytes}");
        Tool::new("mount").args(["-t", "tmpfs", "-o", &options, "small"]).arg(&directory).run();
        Self { mount: Mount { directory } }
    }

    /// Where files of this disk live.
    pub fn path(&self) -> &Path {
        &self.mount.directory
    }
}

/// A file system on a disk whose writes and reads are slow, or fail on demand.
#[derive(Debug)]
pub struct FaultyDisk {
    // Dropped in this order: file system and loop device, the FUSE mount, the server of the disk.
    files: Mount,
    _fuse: Mount,
    _server: Program,
    faults: PathBuf,
}

/// Files that have requests fail as long as they are there.
pub const READS: &str = "fail-reads";
/// Likewise.
pub const WRITES: &str = "fail-writes";

impl FaultyDisk {
    /// A disk of `size_bytes` on which every write and read takes `delay_ms` longer.
    pub fn new(scratch: &Scratch, size_bytes: u64, delay_ms: u32) -> Self {
        let (fuse, files) = (scratch.join("fuse"), scratch.join("files"));
        fs::create_dir(&fuse).expect("create a mount point");
        fs::create_dir(&files).expect("create a mount point");
        let (backing, faults) = (scratch.sparse("backing", size_bytes), scratch.path().to_owned());
        let disk = fuse.join("disk");
        let server = Program::start(
            "nbdfuse",
            serve_words(&disk, &backing, &faults, delay_ms),
            &scratch.join("fuse.log"),
        );
        wait_until(PATIENCE, "nbdfuse to mount its file", || disk.exists());
        let fuse = Mount { directory: fuse };
        Tool::new("mkfs.ext4").args(["-q", "-F", "-O", "^has_journal", "-E", "nodiscard"]).arg(&disk).run();
        let device = Tool::new("losetup").args(["--find", "--show", "--direct-io=on"]).arg(&disk).run();
        let mounted = Tool::new("mount").args(["-o", "errors=continue", device.trim()]).arg(&files).output();
        // Detached now, the device goes by itself with the last mount of it.
        Tool::new("losetup").args(["--detach", device.trim()]).run();
        assert!(mounted.status.success(), "mount {device}: {mounted:?}");
        Self { files: Mount { directory: files }, _fuse: fuse, _server: server, faults }
    }

    /// Where files of this disk live.
    pub fn path(&self) -> &Path {
        &self.files.directory
    }

    /// What is read from `file` from now on comes from the disk, and not from memory.
    pub fn drop_cache(&self, file: &Path) {
        let file = format!("if={}", file.display());
        Tool::new("dd").args([&file, "iflag=nocache", "count=0", "status=none"]).run();
    }

    /// From now on every write that reaches the disk fails with EIO, or no longer.
    pub fn fail_writes(&self, fail: bool) {
        if fail {
            fs::write(self.faults.join(WRITES), "").expect("switch faults on");
        } else {
            fs::remove_file(self.faults.join(WRITES)).expect("switch faults off");
        }
    }
}

/// The words of an nbdfuse that makes the file `disk` of the file `backing`: slow, and failing as the files [`READS`] and
/// [`WRITES`] in the folder `faults` say.
pub fn serve_words(disk: &Path, backing: &Path, faults: &Path, delay_ms: u32) -> Vec<String> {
    let text = |path: &Path| path.to_string_lossy().into_owned();
    let mut words: Vec<String> = vec![text(disk), "--command".into()];
    words.extend(["nbdkit", "-s", "--exit-with-parent"].map(String::from));
    words.extend(["--filter=error", "--filter=delay", "file"].map(String::from));
    words.push(text(backing));
    words.push(format!("delay-write={delay_ms}ms"));
    words.push(format!("delay-read={delay_ms}ms"));
    for (call, file) in [("pread", READS), ("pwrite", WRITES)] {
        words.extend([format!("error-{call}=EIO"), format!("error-{call}-rate=100%")]);
        words.push(format!("error-{call}-file={}", text(&faults.join(file))));
    }
    words
}

#[derive(Debug)]
struct Mount {
    directory: PathBuf,
}

impl Drop for Mount {
    fn drop(&mut self) {
        // Lazily: a daemon under test may still hold a file for the moment that its death takes.
        let output = Tool::new("umount").arg("--lazy").arg(&self.directory).output();
        if !output.status.success() {
            eprintln!("umount {}: {output:?}", self.directory.display());
        }
    }
}

/// A file as a block device.
#[derive(Debug)]
pub struct LoopDevice {
    path: PathBuf,
}

impl LoopDevice {
    /// Attach `file` as a device with logical blocks of `sector_bytes`.
    pub fn new(file: &Path, sector_bytes: u32) -> Self {
        let sector_bytes = sector_bytes.to_string();
        let words = ["--find", "--show", "--sector-size", &sector_bytes];
        let path = Tool::new("losetup").args(words).arg(file).run();
        Self { path: PathBuf::from(path.trim()) }
    }

    /// The device.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for LoopDevice {
    fn drop(&mut self) {
        Tool::new("losetup").arg("--detach").arg(&self.path).output();
    }
}

/// A kind of file system that lacks what others have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lacking {
    /// ext2: no fallocate.
    Ext2,
    /// exFAT, by its FUSE program: no fallocate, no hard links, no rename that replaces nothing, no attributes, no holes.
    ExFat,
    /// ramfs: no fallocate, no attributes.
    Memory,
}

impl Lacking {
    /// All of them.
    pub const ALL: [Lacking; 3] = [Lacking::Ext2, Lacking::ExFat, Lacking::Memory];
    /// The programs that make them.
    pub const PROGRAMS: [&str; 4] = ["losetup", "mkfs.ext2", "mkfs.exfat", "mount.exfat-fuse"];
}

/// A small disk with a file system that lacks something.
#[derive(Debug)]
pub struct PlainDisk {
    // Dropped in this order.
    mount: Mount,
    _device: Option<LoopDevice>,
}

impl PlainDisk {
    /// Make one of `size_bytes` in the scratch directory, and mount it there.
    pub fn new(scratch: &Scratch, kind: Lacking, size_bytes: u64) -> Self {
        let directory = scratch.join(&format!("{kind:?}"));
        fs::create_dir(&directory).expect("create a mount point");
        let device = || {
            let file = scratch.sparse(&format!("{kind:?}.disk"), size_bytes);
            match kind {
                Lacking::Ext2 => Tool::new("mkfs.ext2").args(["-q", "-F", "-b", "1024"]).arg(&file).run(),
                _ => Tool::new("mkfs.exfat").arg(&file).run(),
            };
            LoopDevice::new(&file, 512)
        };
        let device = (kind != Lacking::Memory).then(device);
        let source = device.as_ref().map_or(Path::new("none"), |device| &device.path);
        match kind {
            Lacking::Ext2 => Tool::new("mount").arg(source).arg(&directory).run(),
            Lacking::ExFat => Tool::new("mount.exfat-fuse").arg(source).arg(&directory).run(),
            Lacking::Memory => Tool::new("mount").args(["-t", "ramfs", "none"]).arg(&directory).run(),
        };
        Self { mount: Mount { directory }, _device: device }
    }

    /// Where files of this disk live.
    pub fn path(&self) -> &Path {
        &self.mount.directory
    }
}
