//! All that touches the world: sockets, files, clocks, processes.
#![allow(clippy::disallowed_methods)]

pub mod process;
pub mod log_file;
pub mod qmp;
pub mod disk;
pub mod tap;
pub mod machine;
pub mod host;
pub mod peer_channel;
pub mod journal_file;

pub mod registry;
pub mod site;
pub mod api_server;
pub mod daemon;
pub mod api_client;
pub mod follow;
pub mod terminal;
pub mod files;
