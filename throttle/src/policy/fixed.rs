//! A constant delay for each write, chosen by the operator; looks at nothing.

use std::time::Duration;

use super::{Policy, VALID_FOR};
use crate::{Limits, Observation};

/// Every write is delayed by the same time, as long as observations keep coming.
#[derive(Clone, Copy, Debug)]
pub struct Fixed {
    delay: Duration,
}

impl Fixed {
    /// Lets through at most one write a `delay`. Zero delays nothing.
    pub fn new(delay: Duration) -> Self {
        Self { delay }
    }
}

impl Policy for Fixed {
    fn name(&self) -> &'static str {
        "fixed"
    }

    fn observe(&mut self, _: &Observation) -> Limits {
        Limits { free_writes: 0, delay: self.delay, valid_for: VALID_FOR }
    }

    fn level(&self) -> u32 {
        u32::from(!self.delay.is_zero())
    }
}

#[cfg(test)]
mod tests {
    use super::{Fixed, Policy, VALID_FOR};
    use crate::{Limits, Observation};
    use std::time::Duration;

    #[test]
    fn the_limits_are_the_same_whatever_is_observed() {
        let mut policy = Fixed::new(Duration::from_micros(700));
        let expected = Limits { free_writes: 0, delay: Duration::from_micros(700), valid_for: VALID_FOR };
        for writes_total in [0, 1, u64::MAX] {
            let seen = Observation { writes_total, backlog_bytes: writes_total, ..Default::default() };
            assert_eq!(policy.observe(&seen), expected);
        }
        assert_eq!((policy.level(), Fixed::new(Duration::ZERO).level()), (1, 0));
    }
}
