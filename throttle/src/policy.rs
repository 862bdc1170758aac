//! Decides limits from observations; knows nothing of disks.

use crate::{Limits, Observation};

/// Maps what is observed to limits. Called at any interval, also irregular; must not block.
pub trait Policy: Send {
    /// The name by which an operator chooses it.
    fn name(&self) -> &'static str;

    /// Takes one more observation in and answers the limits that should hold from now on.
    fn observe(&mut self, observation: &Observation) -> Limits;
}
