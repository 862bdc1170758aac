//! No throttling: whatever is observed, nothing is delayed.

use super::Policy;
use crate::{Limits, Observation};

/// The policy of an operator who would rather wait than slow the guest.
#[derive(Clone, Copy, Debug)]
pub struct Unthrottled;

impl Policy for Unthrottled {
    fn name(&self) -> &'static str {
        "none"
    }

    fn observe(&mut self, _: &Observation) -> Limits {
        Limits::NONE
    }

    fn level(&self) -> u32 {
        0
    }
}
