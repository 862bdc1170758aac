//! Everything that touches the world: files, sockets, clocks, processes, threads.

// Clocks, sleeps and sockets are forbidden everywhere else; here they live.
#![allow(clippy::disallowed_methods)]

pub mod clock;
pub mod lock;
pub mod listen;
pub mod mailbox;
pub mod memory_store;
pub mod holders;
pub mod file_store;
pub mod image_ends;
pub mod store_call;
pub mod ring;
pub mod pool;
pub mod data_plane;
pub mod sidecar_file;
pub mod sidecar_place;
pub mod revoke;
pub mod read_back;
pub mod replica_source;
pub mod replica_destination;
pub mod control_server;
pub mod control_client;
pub mod confine;
pub mod daemon;
pub mod supervisor;

#[cfg(test)]
mod scratch;
