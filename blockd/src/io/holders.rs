//! Who else has an image, as far as the kernel tells.
//!
//! ```text
//! /proc/PID/fd, fdinfo ───── processes that have it open, and whether for writing
//! /sys/block/loop* ───────── loop devices that are made of it
//! /sys/dev/block, mountinfo  what lies on a device: mounts, LVM, RAID
//! ```
//!
//! A look at one moment, and no promise: processes of another user, another container or another host are not seen.
//! So it may name who holds a lock, and it may find who took none; that nobody is found proves nothing.

use std::fmt;
use std::fs::{self, Metadata};
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::process;

/// What an open mode is masked with (`O_ACCMODE`), and the value that means reading alone.
const ACCESS_MODE: u32 = 0o3;
const READ_ONLY: u32 = 0o0;
/// A descriptor that only names the file (`O_PATH`).
const PATH_ONLY: u32 = 0o10_000_000;

/// Somebody who has the image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Holder {
    /// In words, for an operator to find it.
    pub name: String,
    /// Whether it may write.
    pub writes: bool,
}

/// Several of them in one sentence; fit for "in use by …".
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Holders(pub Vec<Holder>);

impl fmt::Display for Holders {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            return f.write_str("somebody who is not seen from here (another user, container or host)");
        }
        let names: Vec<&str> = self.0.iter().map(|holder| holder.name.as_str()).collect();
        f.write_str(&names.join(", "))
    }
}

impl Holders {
    /// Everybody but this process who has the file or device at `image`.
    pub fn of(image: &Path) -> Self {
        let Ok(found) = fs::metadata(image) else { return Self::default() };
        let mut holders = processes(&found);
        if found.file_type().is_block_device() {
            holders.extend(on_device(found.rdev()));
        } else {
            holders.extend(loop_devices(&found));
        }
        Self(holders)
    }

    /// Those of them who may write.
    pub fn writers(self) -> Self {
        Self(self.0.into_iter().filter(|holder| holder.writes).collect())
    }
}

fn is_same(one: &Metadata, other: &Metadata) -> bool {
    if one.file_type().is_block_device() {
        return other.file_type().is_block_device() && one.rdev() == other.rdev();
    }
    (one.dev(), one.ino()) == (other.dev(), other.ino())
}

fn processes(image: &Metadata) -> Vec<Holder> {
    let pids = entries("/proc").filter_map(|path| path.file_name()?.to_str()?.parse::<u32>().ok());
    pids.filter(|pid| *pid != process::id()).filter_map(|pid| in_process(pid, image)).collect()
}

fn in_process(pid: u32, image: &Metadata) -> Option<Holder> {
    let mut writes = None;
    for link in entries(format!("/proc/{pid}/fd")) {
        let info = fs::read_to_string(link.to_string_lossy().replace("/fd/", "/fdinfo/"));
        let Some(opened) = info.ok().as_deref().and_then(Opened::read) else { continue };
        // The number comes first: to look at a file of a dead network file system may never come back.
        let may_be = image.file_type().is_block_device() || opened.inode.is_none_or(|it| it == image.ino());
        if may_be && fs::metadata(&link).is_ok_and(|other| is_same(image, &other)) {
            *writes.get_or_insert(false) |= opened.writes;
        }
    }
    let command = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
    writes.map(|writes| Holder { name: format!("process {pid} ({})", command.trim_end()), writes })
}

/// What `/proc/PID/fdinfo/N` says of a descriptor.
#[derive(Debug, PartialEq, Eq)]
struct Opened {
    writes: bool,
    /// Kernels before 5.14 do not say it.
    inode: Option<u64>,
}

impl Opened {
    /// None for a descriptor that only names its file, and for what cannot be read.
    fn read(text: &str) -> Option<Self> {
        let field = |name: &str| text.lines().find_map(|line| line.strip_prefix(name)).map(str::trim);
        let flags = u32::from_str_radix(field("flags:")?, 8).ok()?;
        let inode = field("ino:").and_then(|number| number.parse().ok());
        (flags & PATH_ONLY == 0).then_some(Self { writes: flags & ACCESS_MODE != READ_ONLY, inode })
    }
}

fn loop_devices(image: &Metadata) -> Vec<Holder> {
    let holder = |device: PathBuf| {
        let backing = fs::read_to_string(device.join("loop/backing_file")).ok()?;
        let other = fs::metadata(backing.trim_end_matches('\n')).ok()?;
        let name = format!("/dev/{}", device.file_name()?.to_string_lossy());
        let name = format!("the loop device {name} (unmount what is on it, then losetup --detach {name})");
        let writes = fs::read_to_string(device.join("ro")).is_ok_and(|flag| flag.trim() == "0");
        is_same(image, &other).then_some(Holder { name, writes })
    };
    entries("/sys/block").filter_map(holder).collect()
}

/// What the kernel has on a device or its partitions.
fn on_device(number: u64) -> Vec<Holder> {
    let device = PathBuf::from(format!("/sys/dev/block/{}", devices(number)));
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let partitions = entries(&device).filter(|entry| entry.join("partition").exists());
    let mut holders = Vec::new();
    for part in std::iter::once(device.clone()).chain(partitions) {
        let number = fs::read_to_string(part.join("dev")).unwrap_or_default();
        let mounted = mount_points(&mounts, number.trim());
        holders.extend(mounted.map(|place| format!("the file system mounted at {place}")));
        let above = entries(part.join("holders"));
        holders.extend(above.filter_map(|path| Some(format!("/dev/{}", path.file_name()?.to_str()?))));
    }
    holders.into_iter().map(|name| Holder { name, writes: true }).collect()
}

fn devices(number: u64) -> String {
    format!("{}:{}", nix::sys::stat::major(number), nix::sys::stat::minor(number))
}

/// Where a device is mounted, of the lines of a mountinfo (proc(5)): `ID PARENT MAJOR:MINOR ROOT PLACE …`.
fn mount_points<'a>(mountinfo: &'a str, device: &'a str) -> impl Iterator<Item = &'a str> {
    mountinfo.lines().filter_map(move |line| {
        let mut fields = line.split(' ').skip(2);
        let is_it = fields.next()? == device;
        let place = fields.nth(1)?;
        is_it.then_some(place)
    })
}

/// A folder's entries; none where it cannot be read.
fn entries(folder: impl AsRef<Path>) -> impl Iterator<Item = PathBuf> {
    let found: Vec<PathBuf> = match fs::read_dir(folder) {
        Ok(entries) => entries.filter_map(io::Result::ok).map(|entry| entry.path()).collect(),
        Err(_) => Vec::new(),
    };
    found.into_iter()
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::process::{Child, Command, Stdio};

    use super::*;
    use crate::io::scratch::Scratch;

    /// A process that has a file open as the shell's redirection says, until it is dropped.
    struct Opener(Child);

    impl Opener {
        fn start(redirection: &str, image: &Path) -> Self {
            let script = format!("exec 3{redirection}'{}'; echo; read wait", image.display());
            let mut shell = Command::new("sh");
            shell.args(["-c", &script]).stdin(Stdio::piped()).stdout(Stdio::piped());
            let mut child = shell.spawn().unwrap();
            child.stdout.as_mut().unwrap().read_exact(&mut [0]).unwrap();
            Self(child)
        }
    }

    impl Drop for Opener {
        fn drop(&mut self) {
            drop(self.0.stdin.take());
            self.0.wait().unwrap();
        }
    }

    #[test]
    fn a_process_is_named_and_whether_it_may_write() {
        let scratch = Scratch::new();
        let (image, other) = (scratch.path("image"), scratch.path("other"));
        for path in [&image, &other] {
            std::fs::write(path, "x").unwrap();
        }
        std::fs::hard_link(&image, scratch.path("link")).unwrap();
        let own = std::fs::OpenOptions::new().write(true).open(&image).unwrap();
        assert_eq!(Holders::of(&image).writers(), Holders::default(), "this process is nobody else");
        drop(own);
        let (_stranger, reader) = (Opener::start("<>", &other), Opener::start("<", &image));
        let found = Holders::of(&image);
        assert_eq!(found.0.len(), 1, "{found}");
        assert!(found.to_string().contains(&format!("process {} (sh)", reader.0.id())), "{found}");
        assert_eq!(found.writers(), Holders::default());
        for redirection in ["<>", ">>"] {
            // By whatever name it was opened.
            let _writer = Opener::start(redirection, &scratch.path("link"));
            assert_eq!(Holders::of(&image).writers().0.len(), 1, "{redirection}");
        }
        assert!(Holders::of(&scratch.path("nothing")).to_string().contains("not seen from here"));
    }

    #[test]
    fn flags_are_read_as_the_kernel_writes_them() {
        let read = |flags: &str| Opened::read(&format!("pos:\t0\nflags:\t{flags}\nmnt_id:\t29\nino:\t42\n"));
        for (flags, writes) in [("0100000", false), ("0100001", true), ("02140002", true), ("0140000", false)]
        {
            assert_eq!(read(flags), Some(Opened { writes, inode: Some(42) }), "{flags}");
        }
        assert_eq!(read("010000000"), None, "it only names the file");
        assert_eq!(Opened::read("pos:\t0\n"), None);
        assert_eq!(Opened::read("flags:\t02\n"), Some(Opened { writes: true, inode: None }));
    }

    #[test]
    fn a_device_is_found_among_the_mounts_by_its_number() {
        let text =
            "36 35 98:0 / /mnt1 rw,noatime - ext3 /dev/root rw\n37 35 98:01 / /mnt2 rw - ext4 /dev/x rw\n";
        assert_eq!(mount_points(text, "98:0").collect::<Vec<_>>(), ["/mnt1"]);
        assert_eq!(mount_points(text, "8:0").count(), 0);
    }
}
