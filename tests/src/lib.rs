//! Simulation, oracle, foreign clients, benchmarks and house rules.

pub mod sim;
