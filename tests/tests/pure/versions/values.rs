//! What the fixtures hold, as values.

pub mod disk;
pub mod link;
pub mod peer;
pub mod state;
