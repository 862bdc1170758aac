//! Simulation, oracle, foreign clients, benchmarks and house rules.
