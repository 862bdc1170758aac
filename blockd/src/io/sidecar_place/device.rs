//! What identifies a block device from one boot to the next, as the kernel says it in sysfs.
//!
//! In this order, and the first that is there:
//!
//! | device | identity |
//! |---|---|
//! | device mapper (LVM, multipath, crypt) | `dm/uuid` |
//! | partition | that of the whole disk, and the partition's number |
//! | loop | the file behind it, and where in it the device begins |
//! | software RAID | `md/uuid`, where the kernel has it |
//! | SCSI, NVMe | `wwid`, or `device/wwid` |
//! | virtio and others | `serial` or `device/serial`, and `device/model` |
//! | any other | the path by which it is named |
//!
//! Never a name of the kernel's own (`sdb`, `253:3`), which is another device's after the next boot, and never the last
//! part of a path: `/dev/vg1/root` and `/dev/vg2/root` are two disks.

use std::fs;
use std::path::Path;

/// What identifies a device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// In words of the device's own.
    pub text: String,
    /// It is the path, for want of anything better.
    pub is_path: bool,
}

/// What identifies the device with these numbers, that is named by the absolute path `named`; `sys` is where sysfs is.
pub fn identify(sys: &Path, (major, minor): (u64, u64), named: &Path) -> Identity {
    let folder = sys.join(format!("dev/block/{major}:{minor}"));
    // The link is resolved, so that what is above a partition is its disk.
    let folder = fs::canonicalize(&folder).unwrap_or(folder);
    match of_folder(&folder) {
        Some(text) => Identity { text, is_path: false },
        None => Identity { text: format!("path-{}", named.display()), is_path: true },
    }
}

fn of_folder(folder: &Path) -> Option<String> {
    if let Some(uuid) = said(folder, "dm/uuid") {
        return Some(format!("dm-{uuid}"));
    }
    if let Some(number) = said(folder, "partition") {
        return Some(format!("{}-part{number}", of_folder(folder.parent()?)?));
    }
    if let Some(file) = said(folder, "loop/backing_file") {
        let begin = said(folder, "loop/offset").filter(|offset| offset != "0");
        return Some(format!("loop-{file}{}", begin.map_or(String::new(), |begin| format!("@{begin}"))));
    }
    if let Some(uuid) = said(folder, "md/uuid") {
        return Some(format!("md-{uuid}"));
    }
    if let Some(wwid) = said(folder, "wwid").or_else(|| said(folder, "device/wwid")) {
        return Some(format!("wwid-{wwid}"));
    }
    let serial = said(folder, "serial").or_else(|| said(folder, "device/serial"))?;
    let model = said(folder, "device/model").map_or(String::new(), |model| format!("{model}-"));
    Some(format!("serial-{model}{serial}"))
}

fn said(folder: &Path, attribute: &str) -> Option<String> {
    let text = fs::read_to_string(folder.join(attribute)).ok()?;
    Some(text.trim().to_owned()).filter(|text| !text.is_empty())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;
    use crate::io::scratch::Scratch;

    /// A sysfs of one device with these attributes.
    fn identified(attributes: &[(&str, &str)]) -> Identity {
        let scratch = Scratch::new();
        put(&scratch, "block/x", attributes);
        link(&scratch, "block/x");
        identify(&scratch.path("sys"), (8, 1), Path::new("/dev/vg1/root"))
    }

    fn put(scratch: &Scratch, device: &str, attributes: &[(&str, &str)]) {
        let folder = scratch.path("sys/devices").join(device);
        fs::create_dir_all(&folder).unwrap();
        for (name, value) in attributes {
            fs::create_dir_all(folder.join(name).parent().unwrap()).unwrap();
            fs::write(folder.join(name), format!("{value}\n")).unwrap();
        }
    }

    fn link(scratch: &Scratch, device: &str) {
        fs::create_dir_all(scratch.path("sys/dev/block")).unwrap();
        symlink(scratch.path("sys/devices").join(device), scratch.path("sys/dev/block/8:1")).unwrap();
    }

    #[test]
    fn a_device_is_known_by_the_first_thing_that_is_its_own() {
        let all = [
            ("dm/uuid", "LVM-abc", "dm-LVM-abc"),
            ("loop/backing_file", "/srv/a b.raw", "loop-/srv/a b.raw"),
            ("md/uuid", "1:2", "md-1:2"),
            ("wwid", "nvme.1", "wwid-nvme.1"),
            ("device/wwid", "naa.5", "wwid-naa.5"),
            ("serial", "S1", "serial-S1"),
            ("device/serial", "S2", "serial-S2"),
        ];
        for first in 0..all.len() {
            let attributes: Vec<_> = all[first..].iter().map(|(name, value, _)| (*name, *value)).collect();
            assert_eq!(identified(&attributes), Identity { text: all[first].2.into(), is_path: false });
        }
        let with_model = identified(&[("serial", "S1"), ("device/model", "Disk 9")]);
        assert_eq!(with_model.text, "serial-Disk 9-S1");
        let part_of_file = identified(&[("loop/backing_file", "/a"), ("loop/offset", "1048576")]);
        assert_eq!(part_of_file.text, "loop-/a@1048576");
    }

    #[test]
    fn what_says_nothing_of_itself_is_known_by_its_path() {
        for attributes in [&[][..], &[("serial", ""), ("dm/uuid", " ")], &[("size", "8")]] {
            let found = identified(attributes);
            assert_eq!(found, Identity { text: "path-/dev/vg1/root".into(), is_path: true });
        }
    }

    #[test]
    fn a_partition_is_a_part_of_its_disk() {
        let scratch = Scratch::new();
        put(&scratch, "block/x", &[("wwid", "naa.5"), ("size", "8")]);
        put(&scratch, "block/x/x2", &[("partition", "2")]);
        link(&scratch, "block/x/x2");
        let found = identify(&scratch.path("sys"), (8, 1), Path::new("/dev/x2"));
        assert_eq!(found.text, "wwid-naa.5-part2");
    }
}
