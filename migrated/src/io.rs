//! All that touches the world: sockets, files, clocks, processes.
#![allow(clippy::disallowed_methods)]

pub mod process;
pub mod log_file;
pub mod inner_path;
pub mod qmp;
pub mod disk;
pub mod tap;
pub mod host;
pub mod machine;
pub mod peer_channel;
pub mod journal_file;
