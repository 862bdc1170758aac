//! Decides limits from observations; knows nothing of disks, and never sees a single write.
//!
//! A policy is a value behind [`Policy`]: choosing another needs no change where limits are
//! enforced (S4-39). To add one, write its module, and name it in [`by_name`] and [`NAMES`].

mod none;
mod fixed;
mod paper;

pub use fixed::Fixed;
pub use none::Unthrottled;
pub use paper::{Paper, PaperConfig};

use std::fmt;
use std::time::Duration;

use crate::{Limits, Observation};

/// How long limits hold without another observation: a few missed ones are forgiven, and a
/// controller that died is forgotten before a guest notices more than a hiccup (D5).
pub const VALID_FOR: Duration = Duration::from_secs(5);

/// What [`by_name`] takes, for help and error texts.
pub const NAMES: [&str; 3] = ["none", "fixed:MICROSECONDS", "paper"];

/// Maps what is observed to limits. Called at any interval, also irregular; must not block.
pub trait Policy: Send {
    /// The name by which an operator chooses it.
    fn name(&self) -> &'static str;

    /// Takes one more observation in and answers the limits that should hold from now on.
    fn observe(&mut self, observation: &Observation) -> Limits;

    /// How far it has gone, for reports: 0 while nothing is delayed, and a step more each time
    /// that it became stricter. Steps of different policies do not compare.
    fn level(&self) -> u32;
}

/// Makes the policy that an operator named, with its defaults.
pub fn by_name(name: &str) -> Result<Box<dyn Policy>, UnknownPolicy> {
    if let Some(delay) = name.strip_prefix("fixed:") {
        return match delay.parse() {
            Ok(micros) => Ok(Box::new(Fixed::new(Duration::from_micros(micros)))),
            Err(_) => Err(UnknownPolicy(name.to_owned())),
        };
    }
    match name {
        "none" => Ok(Box::new(Unthrottled)),
        "paper" => Ok(Box::new(Paper::default())),
        _ => Err(UnknownPolicy(name.to_owned())),
    }
}

/// Nothing goes by the name that was given (kept as given).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnknownPolicy(pub String);

impl fmt::Display for UnknownPolicy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "no throttle policy is called {:?}; choose one of: {}", self.0, NAMES.join(", "))
    }
}

impl std::error::Error for UnknownPolicy {}

#[cfg(test)]
mod tests {
    use super::{NAMES, Policy, by_name};
    use crate::{Observation, WriteGate};
    use std::time::Duration;

    #[test]
    fn every_listed_name_makes_the_policy_of_that_name() {
        for listed in NAMES {
            let given = listed.replace("MICROSECONDS", "2048");
            let policy = by_name(&given).expect("a listed name is known");
            assert_eq!(policy.name(), listed.split(':').next().unwrap());
        }
    }

    #[test]
    fn a_name_that_is_not_known_is_answered_with_those_that_are() {
        for bad in ["papre", "", "fixed", "fixed:", "fixed:2ms", "fixed:-1"] {
            let error = by_name(bad).err().expect(bad).to_string();
            assert_eq!(
                error,
                format!(
                    "no throttle policy is called {bad:?}; \
                     choose one of: none, fixed:MICROSECONDS, paper"
                )
            );
        }
    }

    /// Everything that enforces knows: an observation goes to whatever policy there is, and its
    /// answer to the gate. Returns how many of 20,000 writes, one each 100 µs, were delayed.
    fn delayed_under(mut policy: Box<dyn Policy>) -> u64 {
        let mut gate = WriteGate::default();
        for write in 0..20_000u64 {
            let now = Duration::from_micros(100 * write);
            if write % 1000 == 0 {
                let seen = Observation { now, writes_total: gate.writes_total(), ..Default::default() };
                gate.set_limits(policy.observe(&seen), now);
            }
            gate.handle_write(now);
        }
        gate.delayed_writes_total()
    }

    #[test]
    fn s4_39_policies_are_swapped_without_a_change_where_they_are_enforced() {
        let delayed = |name| delayed_under(by_name(name).unwrap());
        assert_eq!(delayed("none"), 0);
        assert_eq!(delayed("fixed:2048"), 20_000);
        assert_eq!(delayed("paper"), 20_000 - 16_384);
    }
}
