//! What needs no process, no right and no clock: house rules, the oracle, hostile bytes.

mod house;
mod packaging;
mod oracle;
mod fuzz;
mod versions;
