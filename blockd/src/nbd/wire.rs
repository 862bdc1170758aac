//! NBD wire.
