//! NBD handshake.
