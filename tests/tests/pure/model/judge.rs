//! The oracle of the simulation: looks at everything after each thing that happens.

use std::time::Duration;

use migrated::journal::Step;

use super::simulation::{LIMITS, Simulation};
use super::state::Machine;

/// A source that has to let its guest go on is given so long for it.
const SLACK: Duration = Duration::from_secs(3);

impl Simulation {
    /// Whether everything is as it has to be, now.
    pub fn judge(&mut self) -> Result<(), String> {
        let state = &self.state;
        if state.running().len() > 1 {
            return Err("two run the guest".into());
        }
        if state.source.disk.is_writable() && state.destination.disk.is_writable() {
            return Err("two can write the disk".into());
        }
        if !state.is_whole() {
            return Err(format!("a write is lost, of {}: {state:#?}", state.latest));
        }
        if state.told.forgotten {
            return Err("a memory was given up needlessly".into());
        }
        let is_promised =
            state.source.number > 0 && state.source.journal.last(state.source.number) != Some(Step::Begun);
        let stands = matches!(state.source.machine, Machine::Paused(_)) && state.source.daemon.is_some();
        self.paused_at = match self.paused_at {
            _ if is_promised || !stands => None,
            since => Some(since.unwrap_or(self.now)),
        };
        match self.paused_at {
            Some(since) if self.now > since + LIMITS.paused + SLACK => Err("paused for too long".into()),
            _ => Ok(()),
        }
    }
}
