//! The images of a guest that is started here: each has to be there, and may grow.

use std::collections::BTreeMap;
use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt;

use crate::config::Config;
use crate::guest::Guest;
use crate::host::Image;
use crate::io::inner_path::inner_path;
use crate::peer::DiskSize;

/// What is there by disk, and the sizes of those that are files of its own.
pub(super) fn own_images(config: &Config, guest: &Guest) -> (BTreeMap<String, Image>, Vec<DiskSize>) {
    let mut sizes = Vec::new();
    let mut found = BTreeMap::new();
    for disk in &guest.disks {
        let looked = inner_path(&config.images_dir, &disk.image).map(|path| fs::metadata(&path));
        let image = match looked {
            Err(error) => Image::Taken(error.to_string()),
            Ok(Err(error)) if error.kind() == ErrorKind::NotFound && disk.shared => Image::Absent,
            Ok(Err(error)) if error.kind() == ErrorKind::NotFound => Image::Taken(
                "it is not in images_dir; make it, as by `truncate -s 10G`, or correct the description"
                    .into(),
            ),
            Ok(Err(error)) => Image::Taken(format!("it cannot be looked at: {error}")),
            Ok(Ok(file)) => {
                let allocated_bytes = file.blocks() * 512;
                // A device has its room already.
                if file.is_file() && !disk.shared {
                    sizes.push(DiskSize { id: disk.id.clone(), size_bytes: file.len(), allocated_bytes });
                }
                Image::Ours { allocated_bytes }
            }
        };
        found.insert(disk.id.clone(), image);
    }
    (found, sizes)
}
