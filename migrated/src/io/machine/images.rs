//! A look at the images of a guest that is about to start here, before anything of it is started.
//!
//! An image that was a guest's disk before, as its sidecar says, holds what a guest has written, and is not asked for its
//! format again. Of a guest that arrives nothing is looked at: its images are made here, and the source has looked.

use std::fs;
use std::os::unix::fs::FileTypeExt;
use std::path::Path;

use blockd::io::image_ends::ImageEnds;
use blockd::io::sidecar_place::look;

use super::MachineError;
use crate::config::Config;
use crate::guest::{Disk, Guest};
use crate::image::{format_fault, size_fault};
use crate::io::inner_path::inner_path;

/// Refuses a guest whose images are no disks for it; says all that is wrong with all of them.
pub fn check(config: &Config, guest: &Guest) -> Result<(), MachineError> {
    let mut faults = Vec::new();
    for disk in &guest.disks {
        let image = inner_path(&config.images_dir, &disk.image)?;
        let found = faults_of(disk, &image).map_err(MachineError::file("look at", &image))?;
        let named = |fault| format!("disk {}: image {}: {fault}", disk.id, disk.image.display());
        faults.extend(found.into_iter().map(named));
    }
    if faults.is_empty() { Ok(()) } else { Err(MachineError::Images(faults)) }
}

fn faults_of(disk: &Disk, image: &Path) -> std::io::Result<Vec<String>> {
    // What is not there, and what is no image, is refused in the words of who opens it.
    let Ok(found) = fs::metadata(image) else { return Ok(Vec::new()) };
    let is_device = found.file_type().is_block_device();
    if !is_device && !found.is_file() {
        return Ok(Vec::new());
    }
    let ends = ImageEnds::of(image)?;
    let was_a_disk = matches!(look(image, None, None, None), Ok((_, Some(_))));
    let format = ends.format.filter(|_| !was_a_disk);
    Ok(size_fault(ends.size_bytes).into_iter().chain(format_fault(format, disk)).collect())
}
