//! How hard to compress: the level by which the most of the disk gets across per second.
//!
//! At level L the stream moves `min(compressor's speed at L, link rate × ratio at L)` bytes of disk
//! a second. Two numbers are learnt from every batch: how fast this machine is against the table
//! below, and how well this data compresses; the third, the link's rate, is told
//! ([`super::delivery`]). Incompressible data has a ratio of 1 at every level, so it is stored; now
//! and then a batch is compressed all the same, to notice when that changes.
//!
//! Measures no time itself.

use std::time::Duration;

use clap::ValueEnum;
use serde::{Deserialize, Serialize};

/// Whether to compress at all.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Compression {
    /// Where it gets more across, as hard as is worth it.
    #[default]
    Auto,
    /// Always, as hard as is worth it: where bytes cost more than time.
    On,
    /// Never: where the way there compresses, or the CPU is wanted for something else.
    Off,
}

impl Compression {
    /// The usual.
    pub fn is_auto(&self) -> bool {
        *self == Compression::Auto
    }
}

/// How a batch is encoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effort {
    /// As it is.
    Store,
    /// By zstd at this level.
    Zstd(i32),
}

/// Speed in bytes per second on a plain core, and compression relative to level 3, of 64 KiB
/// pieces of program files; only the proportions matter.
const LADDER: [(Effort, f64, f64); 6] = [
    (Effort::Store, 5.0e9, 0.0),
    (Effort::Zstd(-1), 0.90e9, 0.93),
    (Effort::Zstd(1), 0.64e9, 0.98),
    (Effort::Zstd(3), 0.48e9, 1.00),
    (Effort::Zstd(6), 0.12e9, 1.05),
    (Effort::Zstd(9), 0.06e9, 1.08),
];
/// Weight of the newest batch in the running means.
const WEIGHT: f64 = 0.2;
/// Batches smaller than this say little about speed or ratio, in bytes.
const TELLING_BYTES: usize = 16 << 10;
/// While storing, one batch in so many is compressed to learn the ratio.
const PROBE_EVERY: u32 = 16;

/// What was seen of one batch.
#[derive(Clone, Copy, Debug)]
pub struct Seen {
    /// How it was encoded.
    pub effort: Effort,
    /// Payload before compression, in bytes.
    pub raw_bytes: usize,
    /// Payload as sent, in bytes.
    pub payload_bytes: usize,
    /// Time to encode.
    pub encoding: Duration,
}

/// Chooses the effort batch by batch.
#[derive(Clone, Debug)]
pub struct EffortChooser {
    compression: Compression,
    machine: f64,
    ratio: f64,
    stored_in_a_row: u32,
}

impl Default for EffortChooser {
    fn default() -> Self {
        Self { compression: Compression::Auto, machine: 1.0, ratio: 2.0, stored_in_a_row: 0 }
    }
}

impl EffortChooser {
    /// One that keeps to what was asked for.
    pub fn new(compression: Compression) -> Self {
        Self { compression, ..Self::default() }
    }

    /// The effort for the next batch, over a link of this rate.
    pub fn choose(&mut self, link_bytes_per_s: f64) -> Effort {
        let rungs = match self.compression {
            Compression::Auto => &LADDER[..],
            Compression::On => &LADDER[1..],
            Compression::Off => return Effort::Store,
        };
        let best = rungs.iter().copied().reduce(|best, next| {
            // A harder level has to be worth its CPU time.
            let progress = |rung| self.progress(rung, link_bytes_per_s);
            if progress(&next) > progress(&best) * 1.02 { next } else { best }
        });
        let (effort, ..) = best.expect("the ladder has rungs");
        if effort != Effort::Store {
            self.stored_in_a_row = 0;
            return effort;
        }
        self.stored_in_a_row += 1;
        if self.stored_in_a_row.is_multiple_of(PROBE_EVERY) { Effort::Zstd(-1) } else { Effort::Store }
    }

    /// Learns from a batch that was sent.
    pub fn observe(&mut self, seen: &Seen) {
        if seen.raw_bytes < TELLING_BYTES {
            return;
        }
        if let Some((_, speed, relative)) = LADDER.iter().find(|(effort, ..)| *effort == seen.effort)
            && *relative > 0.0
        {
            let machine = seen.raw_bytes as f64 / seen.encoding.as_secs_f64().max(1e-9) / speed;
            self.machine += WEIGHT * (machine.clamp(0.05, 20.0) - self.machine);
            let ratio = seen.raw_bytes as f64 / seen.payload_bytes.max(1) as f64;
            let at_three = 1.0 + (ratio.clamp(1.0, 100.0) - 1.0) / relative;
            self.ratio += WEIGHT * (at_three - self.ratio);
        }
    }

    /// Bytes of disk per second at a rung of the ladder.
    fn progress(&self, (_, speed, relative): &(Effort, f64, f64), link_bytes_per_s: f64) -> f64 {
        let ratio = 1.0 + (self.ratio - 1.0) * relative;
        (speed * self.machine).min(link_bytes_per_s * ratio)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Sends batches of 256 KiB over a link, with data that compresses `ratio` at level 3.
    fn settle(chooser: &mut EffortChooser, link_bytes_per_s: f64, ratio: f64) -> Effort {
        let mut last = Effort::Store;
        for _ in 0..200 {
            let effort = chooser.choose(link_bytes_per_s);
            let (_, speed, relative) = *LADDER.iter().find(|(rung, ..)| *rung == effort).unwrap();
            let raw_bytes = 256 << 10;
            let payload_bytes = (raw_bytes as f64 / (1.0 + (ratio - 1.0) * relative)) as usize;
            let encoding = raw_bytes as f64 / speed;
            let encoding = Duration::from_secs_f64(encoding);
            chooser.observe(&Seen { effort, raw_bytes, payload_bytes, encoding });
            if chooser.stored_in_a_row == 0 || !chooser.stored_in_a_row.is_multiple_of(PROBE_EVERY) {
                last = effort;
            }
        }
        last
    }

    #[test]
    fn a_thin_link_gets_a_high_level() {
        let level = settle(&mut EffortChooser::default(), 0.6e6, 2.5);
        assert!(matches!(level, Effort::Zstd(6..)), "{level:?}");
    }

    #[test]
    fn a_link_faster_than_the_compressor_gets_data_as_it_is() {
        assert_eq!(settle(&mut EffortChooser::default(), 4e9, 2.5), Effort::Store);
    }

    #[test]
    fn who_wants_it_always_or_never_gets_it_so_whatever_the_link() {
        for link_bytes_per_s in [0.6e6, 4e9] {
            let always = settle(&mut EffortChooser::new(Compression::On), link_bytes_per_s, 2.5);
            assert!(matches!(always, Effort::Zstd(_)), "{always:?}");
            let mut never = EffortChooser::new(Compression::Off);
            let is_stored = (0..100).all(|_| never.choose(link_bytes_per_s) == Effort::Store);
            assert!(is_stored, "not even to look how well it would go");
        }
    }

    #[test]
    fn a_link_between_gets_a_level_between() {
        let level = settle(&mut EffortChooser::default(), 150e6, 2.5);
        assert!(matches!(level, Effort::Zstd(-1..=3)), "{level:?}");
    }

    #[test]
    fn incompressible_data_is_stored_and_a_change_is_noticed() {
        let mut chooser = EffortChooser::default();
        assert_eq!(settle(&mut chooser, 1e6, 1.0), Effort::Store);
        assert!(matches!(settle(&mut chooser, 1e6, 3.0), Effort::Zstd(_)));
    }
}
