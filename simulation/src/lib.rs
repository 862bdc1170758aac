//! A whole replicated disk in one thread, with faults, from one seed.
//!
//! ```text
//! guest ─ NBD bytes ─► Server ─► Volume ─► async disk            async disk ◄─ Destination
//!                                   └─ Tracker ─ Source ══ stream, cut anywhere ══►┘
//! ```
//!
//! The product's own code runs on both sides: server, volume, tracker, source, destination. Only
//! the world is made up: disks whose calls end in any order, block by block, and that forget what
//! was not flushed when their host crashes; processes that die at any moment; a stream that is cut
//! at any byte and whose two ends notice at different times; a guest that writes, trims, zeroes and
//! flushes, overlapping itself. Every choice comes from the seed, so a failing seed replays.
//!
//! The oracle: every write that was answered is on the source's disk; a barrier that was passed
//! is durable at the replica; and at the end the seal succeeds and both disks are the same.

pub mod disk;
pub mod guest;
pub mod kept;
pub mod link;
pub mod replica_host;
pub mod rng;
pub mod source_host;
pub mod world;

pub use kept::Kept;
pub use world::{Outcome, run};
