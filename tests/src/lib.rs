//! Simulation, oracle, foreign clients, benchmarks and house rules.

pub mod requires;
pub mod binaries;
pub mod sim;
pub mod house;
