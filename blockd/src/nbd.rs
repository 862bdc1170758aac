//! The NBD protocol as its specification (doc/proto.md of the NetworkBlockDevice project) has it,
//! without a socket: bytes in, decisions and bytes out.
//!
//! `wire` names the constants and lays out structures, `handshake` negotiates, `request` reads
//! what a client asks for, `reply` encodes what it gets.

pub mod handshake;
pub mod reply;
pub mod request;
pub mod wire;
