//! The oracle of the simulation: looks at everything after each thing that happens.

use std::time::Duration;

use migrated::journal::Step;
use migrated::phase::Phase;
use migrated::source::Source;

use super::simulation::{LIMITS, Simulation};
use super::state::Machine;

/// A source that has to let its guest go on is given so long for it.
const SLACK: Duration = Duration::from_secs(3);

/// Once the source has decided so, its guest runs again within this (S2-47).
const GOES_ON_WITHIN: Duration = Duration::from_secs(1);

/// A cancel that was accepted has ended the migration within this (S2-23).
const CANCELLED_WITHIN: Duration = Duration::from_secs(2);

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
        self.judge_the_way_back()?;
        match self.paused_at {
            Some(since) if self.now > since + LIMITS.paused + SLACK => Err("paused for too long".into()),
            _ => Ok(()),
        }
    }

    fn judge_the_way_back(&mut self) -> Result<(), String> {
        if self.seen.misled > 0 {
            return Err("a cancel was neither accepted nor refused".into());
        }
        let phase = self.migration.as_ref().map(Source::phase);
        let goes_back = matches!(phase, Some(Phase::Recovering | Phase::RollingBack));
        let stands = matches!(self.state.source.machine, Machine::Paused(_));
        self.goes_on_since = (goes_back && stands).then(|| self.goes_on_since.unwrap_or(self.now));
        if self.goes_on_since.is_some_and(|since| self.now > since + GOES_ON_WITHIN) {
            return Err("the guest does not go on at its source within a second".into());
        }
        // Whatever else ends it: the daemon after this one rolls back by itself.
        self.cancelled_at = self.cancelled_at.filter(|_| phase == Some(Phase::RollingBack));
        match self.cancelled_at {
            Some(since) if self.now > since + CANCELLED_WITHIN => Err("a cancel takes too long".into()),
            _ => Ok(()),
        }
    }
}
