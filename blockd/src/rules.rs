//! The invariants of a recorded disk that can be left out one at a time, so that the simulation can prove that it notices.
//!
//! A daemon keeps [`Rules::ALL`]: nothing that an operator, a peer or a guest says leads to others.

/// Which invariants are kept. Their numbers are those of ARCHITECTURE.md.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(clippy::struct_excessive_bools)]
pub struct Rules {
    /// Overlapping writes go to the disk one after another.
    pub d1: bool,
    /// A block is queued or dirty, never both.
    pub d2: bool,
    /// The bits of a read-back are cleared before the disk is read.
    pub d3: bool,
    /// What was on the way when the stream was lost is dirty again.
    pub d4: bool,
    /// The intent bit is set before a write starts.
    pub d10: bool,
}

impl Rules {
    /// All of them.
    pub const ALL: Self = Self { d1: true, d2: true, d3: true, d4: true, d10: true };
}

impl Default for Rules {
    fn default() -> Self {
        Self::ALL
    }
}
