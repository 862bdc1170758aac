//! The link between two sites: many byte streams over two connections, and all of it without I/O.
//!
//! ```text
//!  channels (offsets, credit, retained bytes)        schedule (who is next, how much)
//!      write ─► Outgoing ──┐                              │
//!      read  ◄─ Incoming ◄─┤ session ── poll_frame ───────┴──► control lane ══ TCP + TLS ══
//!                          │         ◄─ handle_frame ───────── data lane    ══ TCP + TLS ══
//!      goodput ◄── acks ───┘         ── handle_timeout (heartbeat)
//! ```
//!
//! A link outlives its connections: each channel keeps what the other side has not acknowledged. On a new
//! connection both sides say what they have (`Open`, `Ack`, `Reset`, then `Resumed`) and go on from there; users of
//! channels see a stall and no error. Nothing here knows a socket, a clock or a key: see `io::link`.
//!
//! Where one connection cannot carry the data lane's rate, `stripes` spreads it over several, below the session.
//! `addresses` and `redial` say where and when a lane is dialled, `probe` how fast an address is.
//!
//! Memory is bounded whatever the peer does: at most [`session::CHANNELS_MAX`] channels that each side opened live
//! at a time, each with at most [`channel::WINDOW_BYTES_MAX`] received and not read, and at most
//! [`channel::RETAINED_BYTES_MAX`] written and not acknowledged.

use std::fmt;

pub mod fields;
pub mod wire;
pub mod stripes;
pub mod probe;
pub mod hello;
pub mod token;
pub mod doorway;
pub mod channel;
pub mod goodput;
pub mod schedule;
pub mod session;
pub mod addresses;
pub mod redial;
pub mod error;

/// What a channel is for. Decides its connection, its priority and its buffers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Label {
    /// Requests and answers of the two daemons. Goes over the control connection.
    Control,
    /// The replica stream of a disk, by its place in the guest's description.
    Disk(u16),
    /// A stream of the guest's memory.
    Ram(u16),
}

impl Label {
    /// The connection that carries it.
    pub fn lane(self) -> Lane {
        match self {
            Label::Control => Lane::Control,
            Label::Disk(_) | Label::Ram(_) => Lane::Data,
        }
    }

    /// Its kind.
    pub fn class(self) -> Class {
        match self {
            Label::Control => Class::Control,
            Label::Disk(_) => Class::Disk,
            Label::Ram(_) => Class::Ram,
        }
    }
}

impl fmt::Display for Label {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Label::Control => f.write_str("control"),
            Label::Disk(index) => write!(f, "disk {index}"),
            Label::Ram(index) => write!(f, "ram {index}"),
        }
    }
}

/// A kind of channel, for priorities.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Class {
    /// Before everything, always.
    Control,
    /// Disks: bulk and deltas.
    Disk,
    /// Memory.
    Ram,
}

/// One of the two connections of a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Lane {
    /// Carries the control channel and nothing bulky.
    Control,
    /// Carries disks and memory.
    Data,
}

impl Lane {
    /// Both.
    pub const ALL: [Lane; 2] = [Lane::Control, Lane::Data];
}

impl fmt::Display for Lane {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Lane::Control => "control",
            Lane::Data => "data",
        })
    }
}
