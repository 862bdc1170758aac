//! Keeping a second copy in step: one ordered stream from the source's disk to the replica's.
//!
//! ```text
//! tracker ─► source ─► batch ─► encode ─► frame ══ any byte stream ══► frame ─► destination ─► store
//!               ▲                                                                   │
//!               └───────────────── ack: durable up to n, leaves that differ ────────┘
//! ```
//!
//! `frame` lays out frames, `wire` their bodies, `batch` the largest of those, `encoding` chooses how
//! hard to compress, `source` decides what to send next, `destination` what to do with what comes, `trouble` keeps why
//! there is no stream.
//! All without I/O: `crate::io::replica_*` moves the bytes. Normative: `docs/wire.md`.

pub mod frame;
pub mod wire;
pub mod batch;
pub mod delivery;
pub mod encoding;
pub mod source;
pub mod destination;
pub mod trouble;
