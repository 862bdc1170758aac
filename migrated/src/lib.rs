//! Daemon and command line that move a running guest to another host.
