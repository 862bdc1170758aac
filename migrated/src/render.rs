//! What people and programs see of the daemon's answers: values in, lines out.
//!
//! ```text
//! Status ─► tty (bars) · plain (a line, a page) · json (a line)       lists ─► table
//! ```
//!
//! Draws nothing and decides nothing: where lines go, and when, is up to the command line.

pub mod plain;
pub mod table;
pub mod tty;
pub mod json;
