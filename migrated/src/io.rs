//! All that touches the world: sockets, files, clocks, processes.
#![allow(clippy::disallowed_methods)]

pub mod qmp;
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
