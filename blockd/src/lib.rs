//! A userspace block daemon: one process serves one guest disk over NBD and keeps a second copy,
//! elsewhere, in step with it.
//!
//! The modules are listed in the order of the data flow.

pub mod config;
pub mod repeated;
pub mod extent;
pub mod bitmap;
pub mod span_map;
pub mod buffer;
pub mod nbd;
pub mod op;
pub mod server;
pub mod volume;
pub mod store;
pub mod image_format;
pub mod recorder;
pub mod rules;
pub mod order;
pub mod delta;
pub mod pending;
pub mod agreement;
pub mod barrier;
pub mod tracker;
pub mod replica;
pub mod sidecar;
pub mod control;
pub mod io;
