//! Memory and disk space for a guest, after all that is promised.
//!
//! ```text
//! a disk at its source   [ in use ][ holes: may grow ]
//! a copy of it here      [ here ]
//! needed                         [ ][ holes / overcommit ]   and its sidecar
//! ```

use super::{Facts, Image, Refusal, Reservations, Wanted};
use crate::guest::Guest;
use crate::peer::DiskSize;

/// Memory in MiB that QEMU and the disks' daemons take beside the guest's own.
const OVERHEAD_MIB: u64 = 64;
/// Room that a disk's sidecar takes: 32 MiB for each TiB of disk, and a little.
const SIDECAR_SHARE: u64 = 1 << 15;
const SIDECAR_MIN_BYTES: u64 = 1 << 20;
const MIB: u64 = 1 << 20;

/// What is kept for the holes of a disk of which so many bytes are in use.
pub fn growth_bytes(size_bytes: u64, used_bytes: u64, overcommit: u64) -> u64 {
    size_bytes.saturating_sub(used_bytes).div_ceil(overcommit.max(1))
}

impl Facts {
    /// Memory in MiB that a further guest may have.
    pub fn memory_free_mib(&self, promised: &Reservations) -> u64 {
        let by_limit = self.memory_limit_mib.saturating_sub(promised.memory_mib());
        let untouched = promised.memory_untouched_mib() + OVERHEAD_MIB;
        by_limit.min(self.memory_available_mib.saturating_sub(untouched))
    }

    /// Bytes of disk that a further guest may have.
    pub fn disk_free_bytes(&self, promised: &Reservations) -> u64 {
        self.disk_available_bytes.saturating_sub(promised.disk_bytes())
    }

    /// Bytes that are to be had for a guest's disks here: what is in use of each and is not here already, and room for its
    /// holes. What is in use is the source's word; a disk that has more runs full, as any may.
    pub fn disk_needed_bytes(&self, disks: &[DiskSize]) -> u64 {
        let needed = |disk: &DiskSize| {
            let sidecar = disk.size_bytes / SIDECAR_SHARE + SIDECAR_MIN_BYTES;
            let used = disk.allocated_bytes.min(disk.size_bytes);
            let here = match self.images.get(&disk.id) {
                Some(Image::Ours { allocated_bytes }) => *allocated_bytes,
                _ => 0,
            };
            let growth = growth_bytes(disk.size_bytes, used.max(here), self.disk_overcommit);
            used.saturating_sub(here).saturating_add(growth).saturating_add(sidecar)
        };
        // Sizes are another host's word: no sum of them may come round to a small one.
        disks.iter().map(needed).fold(0, u64::saturating_add)
    }
}

pub(super) fn memory(facts: &Facts, promised: &Reservations, guest: &Guest) -> Option<Refusal> {
    let available_mib = facts.memory_free_mib(promised);
    (guest.memory_mib > available_mib).then(|| Refusal::Memory {
        needed_mib: guest.memory_mib,
        available_mib,
        holders: promised.holders(),
    })
}

/// Room for the copies of an arriving guest's disks.
pub(super) fn disk(facts: &Facts, promised: &Reservations, wanted: &Wanted<'_>) -> Option<Refusal> {
    let (needed, available) = (facts.disk_needed_bytes(wanted.disks), facts.disk_free_bytes(promised));
    let allocated = wanted.disks.iter().map(|disk| disk.allocated_bytes).fold(0, u64::saturating_add);
    (needed > available).then(|| Refusal::Disk {
        needed_mib: needed.div_ceil(MIB),
        allocated_mib: allocated.div_ceil(MIB),
        available_mib: available / MIB,
        holders: promised.holders(),
    })
}

/// Room for the disks of a guest that is here, to grow.
pub(super) fn growth(facts: &Facts, promised: &Reservations, wanted: &Wanted<'_>) -> Option<Refusal> {
    let (needed, available) = (facts.disk_needed_bytes(wanted.disks), facts.disk_free_bytes(promised));
    (needed > available).then(|| Refusal::Growth {
        needed_mib: needed.div_ceil(MIB),
        available_mib: available / MIB,
        holders: promised.holders(),
    })
}

/// Images whose places cannot be used.
pub(super) fn images(facts: &Facts, guest: &Guest) -> Vec<Refusal> {
    let mut refusals = Vec::new();
    for disk in &guest.disks {
        let image = disk.image.clone();
        match facts.images.get(&disk.id) {
            Some(Image::Taken(reason)) => {
                refusals.push(Refusal::Image { disk: disk.id.clone(), image, reason: reason.clone() });
            }
            Some(Image::Absent) if disk.shared => {
                let reason = "it is shared, and not here".to_owned();
                refusals.push(Refusal::Image { disk: disk.id.clone(), image, reason });
            }
            _ => {}
        }
    }
    refusals
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    const GIB: u64 = 1 << 30;

    fn needed_mib(overcommit: u64, (size_gib, used_mib): (u64, u64), here_mib: Option<u64>) -> u64 {
        let image = here_mib.map_or(Image::Absent, |mib| Image::Ours { allocated_bytes: mib * MIB });
        let facts = Facts {
            disk_overcommit: overcommit,
            images: BTreeMap::from([("root".to_owned(), image)]),
            ..Facts::default()
        };
        let disk =
            DiskSize { id: "root".into(), size_bytes: size_gib * GIB, allocated_bytes: used_mib * MIB };
        let sidecar = disk.size_bytes / SIDECAR_SHARE + SIDECAR_MIN_BYTES;
        (facts.disk_needed_bytes(&[disk]) - sidecar) / MIB
    }

    #[test]
    fn a_disk_needs_its_full_size_unless_more_may_be_promised_than_there_is() {
        let full = 200 * 1024;
        // Nothing said is the same as once.
        assert_eq!([0, 1].map(|overcommit| needed_mib(overcommit, (200, 68), None)), [full, full]);
        assert_eq!(needed_mib(2, (200, 68), None), 68 + (full - 68) / 2);
        assert_eq!(needed_mib(1000, (200, 68), None), 68 + 204);
        // However much: what is in use must fit.
        assert_eq!(needed_mib(u64::MAX, (200, 68), None), 68);
        assert_eq!(needed_mib(1000, (200, full), None), full);
        // More than all is in use, as file systems count their own blocks.
        assert_eq!(needed_mib(4, (1, 1030), None), 1024);
    }

    #[test]
    fn what_is_here_of_a_copy_needs_no_more_room() {
        assert_eq!(needed_mib(1, (1, 100), Some(60)), 1024 - 60);
        assert_eq!(needed_mib(1, (1, 100), Some(160)), 1024 - 160);
        assert_eq!(needed_mib(4, (1, 100), Some(60)), 40 + (1024 - 100) / 4);
        assert_eq!(needed_mib(4, (1, 100), Some(160)), (1024 - 160) / 4);
        assert_eq!(needed_mib(4, (1, 100), Some(1030)), 0);
    }

    #[test]
    fn a_size_that_another_host_says_does_not_come_round_to_a_small_one() {
        let facts = Facts { disk_overcommit: 2, ..Facts::default() };
        let huge = DiskSize { id: "a".into(), size_bytes: u64::MAX, allocated_bytes: u64::MAX };
        assert_eq!(facts.disk_needed_bytes(&[huge.clone(), huge]), u64::MAX);
    }
}
