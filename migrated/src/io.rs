//! All that touches the world: sockets, files, clocks, processes.
#![allow(clippy::disallowed_methods)]

pub mod peer_channel;
pub mod journal_file;
pub mod qmp;
