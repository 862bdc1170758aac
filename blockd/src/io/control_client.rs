//! control client.
