//! The guest's address follows the guest: a kernel tunnel for those who know the old address, a name update for
//! those who ask for the new one.
//!
//! ```text
//! before                              OLD = the guest's address, G = its MAC
//!   client ──► router A ─ br0 ─ tap ─ guest          LAN neighbour ─► br0 ─ tap ─ guest
//!
//! prepared: the same paths; between the sites a device that nobody uses yet
//!   A: move7 (vxlan), table T: OLD via move7         no rule leads to T
//!   B: move7 (vxlan), table T: OLD on br0,           only what comes out of move7 looks into T
//!      everything else via move7
//!
//! switched, while the guest is paused: one batch at each side
//!   client ──► router A ──(rule: to OLD ► T)──► move7 ═══ WAN ═══ move7 ──(T)──► br0 ─ tap ─ guest
//!   client ◄── router A ◄───────────────────────── move7 ═══ WAN ═══ move7 ◄──(rule: from OLD ► T)── br0 ◄── guest
//!   LAN neighbour of A: asks for OLD, router A answers (proxy ARP, gratuitous ARP);
//!                       still sends to G, the bridge hands it to router A (nft)
//!   guest at B:         asks for its old neighbours, router B answers (proxy ARP);
//!                       still sends to their MACs, the bridge hands it to router B (nft)
//!   client ──► router B ── NEW is translated to OLD ──► br0 ─ tap ─ guest      (where the guest has a new address)
//! ```
//!
//! No route of the main table is touched: a rule in front of it leads to a table of the move's own, so that there
//! is nothing of the administrator's to overwrite and nothing to put back. All names and numbers come from the
//! move's id, so several guests may move between the same two sites at once.
//!
//! What was made is written down where it lives: the tunnel device's alias says which move it serves and what
//! the bridge's settings were before. Device and memory vanish together, and whoever comes after a crash finds
//! out by the id alone.
//!
//! Reading order: a [`Move`] becomes [`Change`]s ([`plan`]), changes are applied and undone ([`io`]). The guest's name
//! stands for itself: what is done to it ([`name`]), by which message ([`update`]), and what is asked ([`question`]).
//!
//! It refuses to decide: when to switch, and whether to switch back, is the caller's business. It knows IPv4 only.

pub mod transfer;
pub mod change;
pub mod filter;
pub mod record;
pub mod plan;
pub mod reason;
pub mod arp;
pub mod surroundings;
pub mod echo;
pub mod name;
pub mod update;
pub mod question;
pub mod io;

pub use change::Change;
pub use io::tunnel::{SwitchReport, Tunnel, TunnelError, remove_leftovers};
pub use name::NameChange;
pub use surroundings::Surroundings;
pub use transfer::{BadMove, Move, Side};
pub use update::{Authority, KeyAlgorithm, TsigKey};
