//! The guest's disks: an ext4 root with its programs and, on demand, with something to move; a raw second one.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use migrated::guest::Guest;

use super::{Fill, Recipe};
use crate::initramfs;
use crate::program::Tool;
use crate::scratch;

/// The guest's first program.
pub const INIT: &str = include_str!("../initramfs/service-init.sh");

const MIB: u64 = 1 << 20;

/// Make all disks of a guest in `folder`.
pub fn disks(folder: &Path, recipe: &Recipe, guest: &Guest, service: &Path) {
    let tree = folder.join("tree");
    fill(&tree, recipe, service);
    let image = folder.join(&guest.disks[0].image);
    // The same bytes each time: no random number of the file system, and no time of now.
    let fixed = ["-U", "6d696772-6174-6564-0000-000000000001", "-E"];
    let seed = "hash_seed=6d696772-6174-6564-0000-000000000002,lazy_itable_init=0,lazy_journal_init=0";
    let make = Tool::new("mke2fs").args(["-q", "-t", "ext4", "-b", "4096"]).args(fixed).arg(seed);
    make.arg("-d").arg(&tree).arg(&image).arg(format!("{}M", recipe.disk_mib)).run();
    fs::remove_dir_all(&tree).expect("remove the tree of a root");
    for (disk, size_mib) in guest.disks.iter().skip(1).zip(recipe.second_disk_mib) {
        let second = File::create(folder.join(&disk.image)).expect("make a second disk");
        second.set_len(size_mib * MIB).expect("set the size of a second disk");
    }
}

fn fill(tree: &Path, recipe: &Recipe, service: &Path) {
    for folder in ["bin", "sbin", "dev", "proc", "sys", "data"] {
        fs::create_dir_all(tree.join(folder)).expect("make the tree of a root");
    }
    fs::copy(initramfs::busybox(), tree.join("bin/busybox")).expect("copy busybox");
    fs::copy(service, tree.join("bin/guest_service")).expect("copy the guest's programs");
    let init = tree.join("sbin/init");
    fs::write(&init, INIT).expect("write an init");
    Tool::new("chmod").arg("755").arg(&init).run();
    if recipe.fill == Fill::Thirds {
        let third_bytes = recipe.disk_mib * MIB / 3;
        copy_files(Path::new("/usr/lib"), &tree.join("data/lib"), third_bytes);
        let noise = tree.join("data/noise");
        File::create(&noise).expect("make a file of noise");
        scratch::fill(&noise, 0, third_bytes, 1);
    }
}

/// Copy files of `from`, in the order of their names, until they have `size_bytes`.
fn copy_files(from: &Path, to: &Path, size_bytes: u64) {
    fs::create_dir_all(to).expect("make a folder of files");
    let (mut folders, mut left_bytes, mut count) = (vec![from.to_owned()], size_bytes, 0u32);
    while let Some(folder) = folders.pop() {
        let Ok(entries) = fs::read_dir(&folder) else { continue };
        let mut paths: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
        paths.sort();
        for path in paths {
            let Ok(metadata) = fs::symlink_metadata(&path) else { continue };
            if metadata.is_dir() {
                folders.push(path);
            } else if metadata.is_file() && metadata.len() <= left_bytes {
                left_bytes -= metadata.len();
                count += 1;
                fs::copy(&path, to.join(count.to_string())).expect("copy a file");
            }
            if left_bytes < MIB {
                return;
            }
        }
    }
}
