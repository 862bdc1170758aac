//! A file system of its own for one of a site's folders: it runs full, it is frozen, or the disk below it fails.
//!
//! ```text
//! /site/images ─ ext4 ─ loop ─┬─ /site/images.volume/disk                                          (plain)
//!                             └─ FUSE file (nbdfuse) ─ nbdkit, `delay` and `error` ─ the same      (faulty)
//! ```
//!
//! It is mounted in the site alone, and gone with it, also when the test is killed: to look at a file of it from
//! outside there is [`Site::seen`]. It has no journal, so that an error of the disk hits what it belongs to.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use super::{Inmate, Site};
use crate::disk::{READS, WRITES, serve_words};
use crate::program::Tool;
use crate::wait::{PATIENCE, wait_until};

/// A file system in a site's folder.
#[derive(Debug)]
pub struct Volume {
    /// The folder, as the site sees it.
    folder: PathBuf,
    /// Where what is below it lies, as the site sees it.
    below: PathBuf,
    _server: Option<Inmate>,
}

impl Volume {
    /// One of `size_mib` for a folder of the site that is there, and empty.
    pub fn plain(site: &Site, folder: &str, size_mib: u64) -> Self {
        let volume = Self::bare(site, folder, size_mib);
        let disk = volume.below.join("disk");
        volume.mount(site, &disk.display().to_string(), "off");
        volume
    }

    /// The same, on a disk on which every read and write takes longer, and fails on demand.
    pub fn faulty(site: &Site, folder: &str, size_mib: u64, delay: Duration) -> Self {
        let mut volume = Self::bare(site, folder, size_mib);
        let (fuse, backing) = (volume.below.join("fuse"), volume.below.join("disk"));
        let disk = fuse.join("disk");
        site.tool("mkdir").arg(&fuse).run();
        let words = serve_words(&disk, &backing, &volume.below, delay.as_millis() as u32);
        volume._server = Some(site.start("nbdfuse", words, format!("{folder}.fuse.log")));
        wait_until(PATIENCE, "nbdfuse to mount its file", || {
            site.run("test", ["-e".as_ref(), disk.as_os_str()]).status.success()
        });
        volume.mount(site, &disk.display().to_string(), "on");
        volume
    }

    fn bare(site: &Site, folder: &str, size_mib: u64) -> Self {
        let below = site.inside(format!("{folder}.volume"));
        site.shell(&format!("mkdir {0}; truncate -s {size_mib}M {0}/disk", below.display()));
        Self { folder: site.inside(folder), below, _server: None }
    }

    /// The loop device is the host's, and goes by itself with the last mount of it.
    fn mount(&self, site: &Site, disk: &str, direct: &str) {
        site.shell(&format!("mkfs.ext4 -q -F -m 0 -O ^has_journal -E nodiscard {disk}"));
        let seen = format!("/proc/{}/root{disk}", site.pid());
        let direct = format!("--direct-io={direct}");
        let device = Tool::new("losetup").args(["--find", "--show", &direct, &seen]).run();
        let device = device.trim();
        let number: u32 =
            device.trim_start_matches("/dev/loop").parse().expect("the number of a loop device");
        let mounted = site
            .tool("sh")
            .args(["-euc", "rm -f $0; mknod $0 b 7 $1; mount -t ext4 -o errors=continue $0 $2"])
            .args([device, &number.to_string()])
            .arg(&self.folder)
            .output();
        Tool::new("losetup").args(["--detach", device]).run();
        assert!(mounted.status.success(), "mount {device}: {mounted:?}");
    }

    /// Has the files read from the disk again, not from memory.
    pub fn drop_cache(&self, site: &Site) {
        let folder = self.folder.display();
        let drop = "dd if={} iflag=nocache count=0 status=none";
        // What failed before is told to the first who asks.
        site.shell(&format!("sync -f {folder} || sync -f {folder}; find {folder} -type f -exec {drop} ';'"));
    }

    /// Somebody else takes all the room that there is.
    pub fn fill(&self, site: &Site) {
        let ballast = format!("of={}", self.folder.join("ballast").display());
        // The last blocks go one by one.
        for (block, how) in [("bs=64k", "conv=fsync"), ("bs=512", "oflag=append")] {
            let words = ["if=/dev/zero", block, how, "conv=notrunc", &ballast];
            let output = site.run("dd", words);
            assert!(!output.status.success(), "it ran full: {output:?}");
        }
    }

    /// There is room again.
    pub fn make_room(&self, site: &Site) {
        site.tool("rm").arg(self.folder.join("ballast")).run();
    }

    /// Writes wait until it is thawed; what is read is answered.
    pub fn freeze(&self, site: &Site) {
        site.tool("fsfreeze").arg("--freeze").arg(&self.folder).run();
    }

    /// What waited goes on.
    pub fn thaw(&self, site: &Site) {
        site.tool("fsfreeze").arg("--unfreeze").arg(&self.folder).run();
    }

    /// From now on every read of the disk fails, or no longer.
    pub fn fail_reads(&self, site: &Site, fail: bool) {
        self.switch(site, READS, fail);
    }

    /// Likewise every write.
    pub fn fail_writes(&self, site: &Site, fail: bool) {
        self.switch(site, WRITES, fail);
    }

    fn switch(&self, site: &Site, what: &str, fail: bool) {
        let file = site.seen_as(&self.below.join(what));
        if fail {
            fs::write(file, "").expect("switch faults on");
        } else {
            fs::remove_file(file).expect("switch faults off");
        }
    }
}
