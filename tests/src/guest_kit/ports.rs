//! Where the programs of a test guest listen; read by them and by whoever talks to them.
//!
//! Plain constants, as the guest's programs are built from this file without the crate around it.

/// TCP and UDP: every line or datagram comes back with the guest's clock behind it.
pub const ECHO: u16 = 7;

/// TCP: the numbers that the first disk has acknowledged, one a line; the second disk's come from the next port.
pub const ACKNOWLEDGED: u16 = 7001;

/// TCP: a command a line, an answer a line.
pub const COMMANDS: u16 = 7003;
