//! Everything that touches the world: files, sockets, clocks, processes, threads.

pub mod clock;
pub mod control_client;
pub mod control_server;
pub mod file_store;
pub mod memory_store;
pub mod pool;
pub mod ring;
pub mod sidecar_file;
pub mod supervisor;
