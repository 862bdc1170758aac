//! Disks beside the common case: file systems that lack something, devices with large sectors, images with several names.

mod file_systems;
mod names;
mod sectors;

/// One mebibyte.
const MIB: u64 = 1 << 20;
