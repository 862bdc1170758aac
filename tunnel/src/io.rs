//! Where changes meet the kernel, and updates a name server.
//!
//! ```text
//!             tunnel ──► apply ─┬─► messages ─► netlink ─► rtnetlink      one message each, one send for a batch
//!               │  │            ├─► gate ─────► netlink ─► nfnetlink
//!               │  │            ├─► nft ───────► the program, its input on stdin
//!               │  │            └─► sysctl ────► /proc/sys
//!               │  └─► announce ─► packet socket ◄─ who_has
//!               └────► probe ────► ICMP socket           dns ─► UDP, TCP
//!                      look ────► messages, netlink
//! ```
//!
//! A socket belongs to the network namespace of the thread that opens it, and `/proc/sys` to that of the thread
//! that reads it: all of this happens in the namespace of the caller's runtime.

#![allow(clippy::disallowed_methods)]

pub mod netlink;
pub mod messages;
pub mod gate;
pub mod nft;
pub mod sysctl;
pub mod apply;
pub mod announce;
pub mod who_has;
pub mod look;
pub mod probe;
pub mod presence;
pub mod tunnel;
pub mod dns;
