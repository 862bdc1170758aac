//! What the parts of a daemon share: the migrations and the guests of this host, each behind its own lock.
//!
//! ```text
//! migration ── update, enter ──► Migrations ◄── list, cancel ── api
//! machine   ── claim, save ────► Guests     ◄── list, claim ─── api
//! ```
//!
//! Locks are held for a look or a change of values, never while something is awaited. Decides nothing about a
//! migration but whether a cancel still comes in time (M5).

mod kept;
mod guests;
mod migrations;

pub use guests::{Claim, GuestRecord, Guests, Known, Task};
pub use kept::Folder;
pub use migrations::{CancelRequested, MigrationHandle, Migrations};
