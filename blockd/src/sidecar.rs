//! What one disk remembers beside its image: who it is, what it may be, what its copy lacks.
//!
//! ```text
//! 0        header, slot A ┐ written in turn, each with a sequence number and a checksum:
//! 4096     header, slot B ┘ a torn write leaves the other
//! 8192     one bit for each block of 4 KiB: set before the block is written,
//!          cleared when the replica has acknowledged it (D10)
//! ```
//!
//! Pure: the format, the rules of who may start as what (D11), and the bitmap's arithmetic. The
//! file itself is `io::sidecar_file`. A sidecar that cannot be understood is refused, never
//! guessed at and never replaced: it may be all that says that this disk lives elsewhere now.

mod bits;
mod header;
mod named;
mod revoke;
mod startup;

use std::ops::Range;

pub use bits::{VecIntentMap, WordBits, word_count};
pub use header::{
    DISK_ID_BYTES_MAX, HEADER_BYTES, Header, InvalidName, PLACE_BYTES_MAX, Role, Unreadable, check_disk_id,
    newest,
};
pub use named::{Ambiguous, Verdict, verdict};
pub use revoke::{NotNewer, revoked};
pub use startup::{Asked, ImageState, Refusal, Start, startup};

/// Where the bitmap begins in the file, in bytes.
pub const BITMAP_OFFSET: u64 = 2 * HEADER_BYTES as u64;

/// The set of blocks that the replica may lack.
pub trait IntentMap: Send {
    /// Adds blocks. In a file: kept from here on, also if the process is killed.
    fn set(&mut self, blocks: Range<u64>);

    /// Takes blocks out.
    fn clear(&mut self, blocks: Range<u64>);

    /// The first run of blocks at or after `from` that are in the set, or none.
    fn next_run(&self, from: u64) -> Option<Range<u64>>;

    /// Adds every block of the disk.
    fn fill(&mut self);
}

/// What the bits in a sidecar are worth at a start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Recovery {
    /// The process died, the host did not: the bits are exact.
    KeepBits,
    /// Any block may differ: all bits count as set.
    AllBits {
        /// Why, for the log.
        reason: &'static str,
    },
}

impl Recovery {
    /// Bits set in memory survive the process, not the host: they count within one boot only.
    pub fn of(header: Option<&Header>, boot_id: [u8; 16]) -> Self {
        match header {
            None => Recovery::AllBits { reason: "there was no sidecar" },
            Some(header) if header.boot_id != boot_id => {
                Recovery::AllBits { reason: "the host was restarted since" }
            }
            Some(_) => Recovery::KeepBits,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bits_count_only_within_the_boot_that_set_them() {
        let header = Header::new("disk", 1 << 20, Role::Primary, [7; 16]).unwrap();
        assert_eq!(Recovery::of(Some(&header), [7; 16]), Recovery::KeepBits);
        assert!(matches!(Recovery::of(Some(&header), [8; 16]), Recovery::AllBits { .. }));
        assert!(matches!(Recovery::of(None, [7; 16]), Recovery::AllBits { .. }));
    }
}
