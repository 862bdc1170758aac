//! Counters of others, as far as they count for one move: a blockd is older than the move and may be started anew in it;
//! the memory and the link begin anew with each attempt.

use std::collections::BTreeMap;

use blockd::control::Replication;
use serde::{Deserialize, Serialize};

use crate::status::LinkProgress;

/// What one counter has grown by.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Growth {
    total: u64,
    /// What it showed last; none: it has not been looked at, and what it shows then is from before.
    last: Option<u64>,
}

impl Growth {
    /// Of a counter that begins at nothing.
    fn anew(self) -> Self {
        Self { last: Some(0), ..self }
    }

    /// It shows this now. One that shows less than before has been started anew.
    fn push(&mut self, shows: u64) {
        let last = self.last.replace(shows).unwrap_or(shows);
        self.total += if shows < last { shows } else { shows - last };
    }
}

/// What has gone over for one move.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Tally {
    link_sent: Growth,
    segments: Growth,
    resent_segments: Growth,
    memory_raw: Growth,
    memory_sent: Growth,
    disks: BTreeMap<String, DiskTally>,
}

/// What has gone over of a disk.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct DiskTally {
    raw: Growth,
    sent: Growth,
    deltas: Growth,
    delta_bytes: Growth,
    coalesced: Growth,
}

impl Tally {
    /// A link was made; it counts from nothing.
    pub fn handle_new_link(&mut self) {
        for counter in [&mut self.link_sent, &mut self.segments, &mut self.resent_segments] {
            *counter = counter.anew();
        }
    }

    /// What the link that there is has sent.
    pub fn handle_link(&mut self, link: &LinkProgress) {
        self.link_sent.push(link.sent_bytes);
        self.segments.push(link.segments);
        self.resent_segments.push(link.resent_segments);
    }

    /// The memory begins to go, from its first byte.
    pub fn handle_new_memory(&mut self) {
        (self.memory_raw, self.memory_sent) = (self.memory_raw.anew(), self.memory_sent.anew());
    }

    /// Of the memory so many bytes have come from QEMU, and so many went.
    pub fn handle_memory(&mut self, (raw_bytes, sent_bytes): (u64, u64)) {
        self.memory_raw.push(raw_bytes);
        self.memory_sent.push(sent_bytes);
    }

    /// A disk's blockd says this. What it says the first time is from before this move.
    pub fn handle_disk(&mut self, id: &str, found: &Replication) {
        let disk = self.disks.entry(id.to_owned()).or_default();
        disk.raw.push(found.raw_bytes_total);
        disk.sent.push(found.sent_bytes_total);
        disk.deltas.push(found.deltas_total);
        disk.delta_bytes.push(found.delta_bytes_total);
        disk.coalesced.push(found.coalesced_total);
    }

    /// Bytes that went over all links.
    pub fn link_sent_bytes(&self) -> u64 {
        self.link_sent.total
    }

    /// TCP segments that went over all links, and those of them that were sent again.
    pub fn segments(&self) -> (u64, u64) {
        (self.segments.total, self.resent_segments.total)
    }

    /// Bytes of memory, as they came from QEMU and as they went.
    pub fn memory_bytes(&self) -> (u64, u64) {
        (self.memory_raw.total, self.memory_sent.total)
    }

    /// A disk's.
    pub fn disk(&self, id: &str) -> DiskTally {
        self.disks.get(id).cloned().unwrap_or_default()
    }
}

impl DiskTally {
    /// Bytes of it that went, before encoding.
    pub fn raw_bytes(&self) -> u64 {
        self.raw.total
    }

    /// Bytes on the wire.
    pub fn sent_bytes(&self) -> u64 {
        self.sent.total
    }

    /// Deltas recorded.
    pub fn deltas_total(&self) -> u64 {
        self.deltas.total
    }

    /// Their bytes.
    pub fn delta_bytes(&self) -> u64 {
        self.delta_bytes.total
    }

    /// Queued blocks that a later delta made needless.
    pub fn coalesced_total(&self) -> u64 {
        self.coalesced.total
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    /// A link that has sent so many bytes in as many segments, of which every fifth went twice.
    fn link(sent_bytes: u64) -> LinkProgress {
        LinkProgress {
            sent_bytes,
            segments: sent_bytes,
            resent_segments: sent_bytes / 5,
            ..LinkProgress::default()
        }
    }

    fn found(raw_mib: u64, sent_mib: u64, deltas_total: u64) -> Replication {
        Replication {
            raw_bytes_total: raw_mib * MIB,
            sent_bytes_total: sent_mib * MIB,
            deltas_total,
            delta_bytes_total: deltas_total * 4096,
            coalesced_total: deltas_total / 2,
            ..Replication::default()
        }
    }

    #[test]
    fn what_a_blockd_has_sent_for_an_earlier_move_is_not_this_ones() {
        let mut tally = Tally::default();
        tally.handle_disk("vda", &found(3_000, 1_600, 70));
        assert_eq!(tally.disk("vda").raw_bytes(), 0);
        tally.handle_disk("vda", &found(3_200, 1_900, 76));
        let disk = tally.disk("vda");
        assert_eq!((disk.raw_bytes(), disk.sent_bytes()), (200 * MIB, 300 * MIB));
        assert_eq!((disk.deltas_total(), disk.delta_bytes(), disk.coalesced_total()), (6, 6 * 4096, 3));
        assert_eq!(tally.disk("vdb"), DiskTally::default());
    }

    #[test]
    fn a_blockd_that_is_started_anew_counts_on() {
        let mut tally = Tally::default();
        for (raw_mib, sent_mib, deltas) in [(100, 50, 9), (140, 70, 12), (10, 5, 2), (25, 15, 4)] {
            tally.handle_disk("vda", &found(raw_mib, sent_mib, deltas));
        }
        let disk = tally.disk("vda");
        assert_eq!((disk.raw_bytes() / MIB, disk.sent_bytes() / MIB, disk.deltas_total()), (65, 35, 7));
    }

    #[test]
    fn all_links_and_all_attempts_count() {
        let mut tally = Tally::default();
        for last in [46, 26] {
            tally.handle_new_link();
            tally.handle_link(&link(20));
            tally.handle_link(&link(last));
            tally.handle_new_memory();
            tally.handle_memory((30, 10));
            tally.handle_memory((40, last));
        }
        // The last look at a link that is gone is as good as none.
        tally.handle_link(&link(26));
        assert_eq!((tally.link_sent_bytes(), tally.memory_bytes()), (72, (80, 72)));
    }

    #[test]
    fn a_link_that_has_sent_more_than_the_one_before_it_counts_whole() {
        let mut tally = Tally::default();
        for sent_bytes in [5, 500] {
            tally.handle_new_link();
            tally.handle_link(&link(sent_bytes));
        }
        assert_eq!(tally.link_sent_bytes(), 505);
        assert_eq!(tally.segments(), (505, 505 / 5));
    }

    #[test]
    fn what_is_kept_is_gone_on_with() {
        let mut tally = Tally::default();
        tally.handle_new_link();
        tally.handle_link(&link(8));
        tally.handle_disk("vda", &found(5, 5, 1));
        tally.handle_disk("vda", &found(6, 6, 2));
        let mut after: Tally = serde_json::from_str(&serde_json::to_string(&tally).unwrap()).unwrap();
        after.handle_new_link();
        after.handle_link(&link(9));
        // What its blockd has sent while no daemon looked counts too.
        after.handle_disk("vda", &found(9, 8, 2));
        let disk = after.disk("vda");
        assert_eq!((after.link_sent_bytes(), disk.raw_bytes() / MIB, disk.sent_bytes() / MIB), (17, 4, 3));
    }
}
