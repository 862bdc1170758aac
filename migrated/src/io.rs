//! All that touches the world: sockets, files, clocks, processes.
#![allow(clippy::disallowed_methods)]
