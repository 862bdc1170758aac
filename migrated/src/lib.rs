//! Daemon and command line that move a running guest to another host.
//!
//! ```text
//! cli ─► api ─► source (pure) ── action ──► io::source ─► { QMP, blockd, tunnel, peer }   promises are durable before
//!                   ▲                            │                                        what depends on them is said
//!                   └─────────── event ◄─────────┘
//! ```
//!
//! The modules are listed in the order of reading: what is described, what is asked, what is decided, what carries it,
//! and last `io`, which is all that touches the world.

pub mod quantity;
pub mod said;
pub mod heard;
pub mod address;
pub mod domain_name;
pub mod transport;
pub mod guest;
pub mod image;
pub mod config;
pub mod qemu;
pub mod qmp;
pub mod phase;
pub mod report;
pub mod costs;
pub mod status;
pub mod progress;
pub mod render;
pub mod api;
pub mod link;
pub mod ram;
pub mod peer;
pub mod host;
pub mod key_file;
pub mod finding;
pub mod journal;
pub mod recover;
pub mod switchover;
pub mod convergence;
pub mod trouble;
pub mod source;
pub mod destination;

pub mod io;
