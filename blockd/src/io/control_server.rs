//! control server.
