//! All that touches the world: sockets, files, clocks, processes.
#![allow(clippy::disallowed_methods)]

pub mod keys;
pub mod tls;
pub mod pairing;
pub mod link;
pub mod ram;
