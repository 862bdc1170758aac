//! What needs no process, no right and no clock: house rules, simulations, models, the oracle, hostile bytes.

mod house;
mod packaging;
mod simulation;
mod model;
mod oracle;
mod fuzz;
mod versions;
