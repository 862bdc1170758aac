//! The `blockd` program.
fn main() {}
