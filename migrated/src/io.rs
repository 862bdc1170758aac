//! All that touches the world: sockets, files, clocks, processes.
#![allow(clippy::disallowed_methods)]

pub mod run_as;
pub mod process;
pub mod log_file;
pub mod hold;
pub mod inner_path;
pub mod qmp;
pub mod disk;
pub mod tap;
pub mod host;
pub mod machine;

pub mod carrier;
pub mod keys;
pub mod tls;
pub mod pairing;
pub mod link;
pub mod ram;
pub mod link_stdio;

pub mod peer_channel;
pub mod journal_file;
pub mod tsig_key;
pub mod zones;
pub mod fitness;

pub mod registry;
pub mod site;
pub mod source;
pub mod destination;
pub mod api_server;
pub mod daemon;
pub mod api_client;
pub mod follow;
pub mod terminal;
pub mod files;
