//! The server side of the NBD protocol as its specification (doc/proto.md of the
//! NetworkBlockDevice project) has it, without a socket: bytes in, decisions and bytes out.
//!
//! ```text
//! bytes ─► handshake (frame, options) ─► Outcome::Transmission ─► request ─► … ─► reply ─► bytes
//! ```
//!
//! `wire` names the constants, `frame` lays out structures, `export` says what is served and what
//! was agreed on, `handshake` negotiates with `options` giving the answers (and `option_fields`
//! reading what is asked), `request` makes a `command` of what a client sends, `reply` and
//! `block_status` encode what it gets.
//!
//! Refuses TLS and extended headers: the socket is local, and no request is longer than 32 bits.

pub mod wire;
pub mod error;
pub mod frame;
pub mod export;
mod option_fields;
mod options;
pub mod handshake;
pub mod command;
pub mod request;
pub mod reply;
pub mod block_status;
