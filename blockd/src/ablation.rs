//! Switches single invariants off, so that the simulation can prove that it notices.
//!
//! Exists only with the feature `ablation`, which no shipped binary has.

/// Which invariants are not kept.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[allow(clippy::struct_excessive_bools)]
pub struct Without {
    /// D1: overlapping writes may be in flight together.
    pub d1: bool,
    /// D2: a block may be queued and dirty at once.
    pub d2: bool,
    /// D3: the bits of a read-back are cleared after the disk was read, not before.
    pub d3: bool,
    /// D4: what was on the way when the stream was lost is forgotten.
    pub d4: bool,
    /// D10: the intent bit is set at completion only.
    pub d10: bool,
    /// D13: a new session is answered while the old one still has work in hand.
    pub d13: bool,
}
