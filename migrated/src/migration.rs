//! The source's side of a migration, decided: which operation starts when, what a failure leads to, when it is over.
//!
//! ```text
//!            ┌── finished(op) / failed / cancelled / sample / time ──┐
//!            ▼                                                       │
//!        Migration ── start(op) / stop all / entered(phase) ──► io::source
//! ```
//!
//! Operations are the rows of [`PLAN`]: each belongs to a phase, and starts when the operations after which it comes
//! have finished. A phase ends when all its operations have. So what runs beside what, and what waits for what, is
//! read off one table. No sockets and no clock here: time is an argument.
//!
//! A lost link, a guest that is paused too long, and a daemon that was started anew lead to another attempt: the guest
//! goes on, its disks stay in step, everything else begins again.
//!
//! Invariants: M2 (*releasing* divides what rolls back from what goes on), M3 (deadlines from `phase`), M5 (cancel), M8
//! (the guest is given up here only when it runs there).

pub mod plan;

use std::collections::BTreeSet;
use std::collections::VecDeque;
use std::time::Duration;

use crate::phase::{OnFailure, Outcome, Phase};
use crate::recover::AtSource;

pub use self::plan::{Op, PLAN, Planned};

/// What happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// An operation ended well.
    Finished(Op),
    /// An operation ended badly.
    Failed(Op, String),
    /// Something else failed: a process, the peer.
    Broken(String),
    /// The link is over, and with it what the destination had of the memory.
    LinkLost(String),
    /// Somebody wants it to end. Nothing comes of it once *releasing* is journalled.
    Cancelled,
    /// What is left of the disks fits the time that was set.
    DisksNearlyDone,
    /// It does not come nearer to its end, or has taken too long.
    NotConverging(String),
    /// The destination's journal says what it promised.
    Verdict {
        /// It has the guest.
        taken: bool,
    },
}

/// What is to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// A phase has begun.
    Enter(Phase),
    /// Start an operation.
    Start(Op),
    /// Stop all operations that run; nothing is heard of them any more.
    StopAll,
}

/// What bounds a migration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// A paused guest waits at most so long before it goes on at the source (M3).
    pub paused: Duration,
    /// After a lost link a new one is tried for so long.
    pub retry: Duration,
}

/// So often a guest may have been paused in vain before the migration is given up.
pub const LATE_PAUSES_MAX: u32 = 5;

/// One migration.
#[derive(Debug)]
pub struct Migration {
    phase: Phase,
    entered: Duration,
    begun: BTreeSet<Op>,
    finished: BTreeSet<Op>,
    disks_nearly_done: bool,
    cancelled: bool,
    reasons: Vec<String>,
    outcome: Option<Outcome>,
    limits: Limits,
    /// How often it has begun again.
    retries: u32,
    late_pauses: u32,
    /// It came to reservation, or was taken up.
    has_begun: bool,
    actions: VecDeque<Action>,
}

impl Migration {
    /// A migration that begins at `now`.
    pub fn new(limits: Limits, now: Duration) -> Self {
        Self::starting_in(Phase::PreMigration, limits, 0, now)
    }

    /// One that was under way when the daemon before this one ended, as its journal says. None: nothing is open.
    pub fn taken_up(next: AtSource, limits: Limits, now: Duration) -> Option<Self> {
        let (phase, retries) = match next {
            AtSource::Nothing => return None,
            AtSource::Retry => (Phase::Recovering, 1),
            AtSource::Ask => (Phase::InDoubt, 0),
            AtSource::Finish => (Phase::Readdress, 0),
            AtSource::RollBack => (Phase::RollingBack, 0),
        };
        let mut migration = Self::starting_in(phase, limits, retries, now);
        migration.outcome = (next == AtSource::RollBack).then_some(Outcome::RolledBack);
        Some(migration)
    }

    fn starting_in(phase: Phase, limits: Limits, retries: u32, now: Duration) -> Self {
        let mut migration = Self {
            phase,
            entered: now,
            begun: BTreeSet::new(),
            finished: BTreeSet::new(),
            disks_nearly_done: false,
            cancelled: false,
            reasons: Vec::new(),
            outcome: None,
            limits,
            retries,
            late_pauses: 0,
            has_begun: phase != Phase::PreMigration,
            actions: VecDeque::new(),
        };
        migration.actions.push_back(Action::Enter(phase));
        migration.start_ready();
        migration
    }

    /// Where it is.
    pub fn phase(&self) -> Phase {
        self.phase
    }

    /// Whether it came as far as being journalled.
    pub fn has_begun(&self) -> bool {
        self.has_begun
    }

    /// How it ended, once its phase is final. In doubt is an outcome that may still change.
    pub fn outcome(&self) -> Option<Outcome> {
        if self.phase == Phase::InDoubt { Some(Outcome::InDoubt) } else { self.outcome }
    }

    /// What went wrong, first cause first.
    pub fn reasons(&self) -> &[String] {
        &self.reasons
    }

    /// Takes in what happened.
    pub fn handle(&mut self, event: Event, now: Duration) {
        match event {
            Event::Finished(op) => self.handle_finished(op, now),
            Event::Failed(op, reason) if self.begun.contains(&op) => {
                self.handle_failure(reason, now);
                if self.on_failure() == OnFailure::GoOn {
                    self.handle_finished(op, now);
                }
            }
            // Of an operation that was stopped.
            Event::Failed(..) => {}
            Event::Broken(reason) => self.handle_failure(reason, now),
            Event::LinkLost(_) if self.begins_again() => self.enter(Phase::Recovering, now),
            Event::LinkLost(reason) => self.handle_failure(reason, now),
            Event::Cancelled
                if self.on_failure() == OnFailure::RollBack && self.phase != Phase::RollingBack =>
            {
                self.cancelled = true;
                self.handle_failure("it was cancelled".to_owned(), now);
            }
            Event::Cancelled => {}
            Event::DisksNearlyDone => {
                self.disks_nearly_done = true;
                self.leave_if_done(now);
            }
            Event::NotConverging(reason) if matches!(self.phase, Phase::Bulk | Phase::PreCopy) => {
                self.handle_failure(reason, now);
            }
            // Said a moment before the guest was paused: it is nearly there.
            Event::NotConverging(_) => {}
            Event::Verdict { taken } => self.handle_verdict(taken, now),
        }
    }

    /// What is to be done next, if anything.
    pub fn poll_action(&mut self) -> Option<Action> {
        self.actions.pop_front()
    }

    /// When [`Migration::handle_timeout`] has to be called at the latest.
    pub fn poll_timeout(&self) -> Option<Duration> {
        Some(self.entered + self.deadline()?)
    }

    /// Ends a phase that has lasted too long (M3).
    pub fn handle_timeout(&mut self, now: Duration) {
        if self.poll_timeout().is_some_and(|at| at <= now) {
            if self.phase == Phase::StopAndCopy && self.late_pauses < LATE_PAUSES_MAX {
                self.late_pauses += 1;
                return self.enter(Phase::Recovering, now);
            }
            let waiting: Vec<String> =
                self.begun.difference(&self.finished).map(|op| format!("{op:?}")).collect();
            let deadline = self.deadline().unwrap_or_default();
            let reason = format!(
                "phase {} took longer than {} s, waiting for: {}",
                self.phase.name(),
                deadline.as_secs(),
                waiting.join(", ")
            );
            self.handle_failure(reason, now);
            if self.on_failure() == OnFailure::GoOn {
                self.leave(now);
            }
        }
    }

    fn deadline(&self) -> Option<Duration> {
        match self.phase {
            Phase::StopAndCopy => Some(self.limits.paused),
            Phase::Connect if self.retries > 0 => Some(self.limits.retry),
            // Its failures are repeated, not ended.
            Phase::RollingBack => None,
            phase => phase.row().deadline,
        }
    }

    fn handle_finished(&mut self, op: Op, now: Duration) {
        if self.begun.contains(&op) && self.finished.insert(op) {
            self.start_ready();
            self.leave_if_done(now);
        }
    }

    fn handle_verdict(&mut self, taken: bool, now: Duration) {
        if !matches!(self.phase, Phase::Commitment | Phase::InDoubt | Phase::Resume) {
            return;
        }
        if taken {
            if self.phase != Phase::Resume {
                self.enter(Phase::Resume, now);
            }
        } else {
            self.reasons.push("the destination has not taken the guest".to_owned());
            self.enter(Phase::RollingBack, now);
        }
    }

    /// What a failure leads to now: in commitment back to the source, as long as *releasing* is not journalled (M2).
    fn on_failure(&self) -> OnFailure {
        match self.phase {
            Phase::Commitment if !self.finished.contains(&Op::Release) => OnFailure::RollBack,
            phase => phase.row().on_failure,
        }
    }

    /// Whether a lost link leads to another attempt now. The first one has to come as far as copying: a host that
    /// cannot be reached, or that breaks off while it looks at the guest, refuses.
    fn begins_again(&self) -> bool {
        match self.phase {
            Phase::Connect | Phase::Reservation => self.retries > 0,
            Phase::Commitment => !self.finished.contains(&Op::Release),
            phase => phase.row().begins_again,
        }
    }

    fn handle_failure(&mut self, reason: String, now: Duration) {
        match self.on_failure() {
            OnFailure::Stay => {}
            OnFailure::RollBack if self.phase == Phase::RollingBack => self.reasons.push(reason),
            OnFailure::RollBack => {
                self.reasons.push(reason);
                self.outcome = Some(match self.phase {
                    _ if self.cancelled => Outcome::Cancelled,
                    _ if self.retries > 0 => Outcome::RolledBack,
                    Phase::PreMigration | Phase::Connect | Phase::Reservation => Outcome::Refused,
                    _ => Outcome::RolledBack,
                });
                self.enter(Phase::RollingBack, now);
            }
            OnFailure::Ask if self.phase == Phase::InDoubt => {}
            OnFailure::Ask => {
                self.reasons.push(reason);
                self.enter(Phase::InDoubt, now);
            }
            // The guest is at the destination: what failed is told, the rest is done all the same.
            OnFailure::GoOn => self.reasons.push(reason),
        }
    }

    fn leave_if_done(&mut self, now: Duration) {
        let mut of_phase = PLAN.iter().filter(|planned| planned.phase == self.phase);
        let may_leave = match self.phase {
            Phase::Bulk => self.disks_nearly_done,
            // Left by the verdict alone.
            Phase::Commitment | Phase::InDoubt => false,
            _ => true,
        };
        if may_leave && of_phase.all(|planned| self.finished.contains(&planned.op)) {
            self.leave(now);
        }
    }

    fn leave(&mut self, now: Duration) {
        if let Some(next) = self.phase.row().next.first() {
            self.enter(*next, now);
        }
    }

    fn enter(&mut self, phase: Phase, now: Duration) {
        assert!(self.phase.may_become(phase), "{} after {}", phase.name(), self.phase.name());
        if self.begun.difference(&self.finished).next().is_some() {
            self.actions.push_back(Action::StopAll);
        }
        // What was not started yet is not started any more.
        self.actions.retain(|action| !matches!(action, Action::Start(_)));
        (self.phase, self.entered) = (phase, now);
        self.begun.clear();
        self.finished.clear();
        match phase {
            Phase::Reservation => self.has_begun = true,
            Phase::Recovering => {
                self.retries += 1;
                self.disks_nearly_done = false;
            }
            Phase::Done => self.outcome = Some(Outcome::Moved),
            Phase::RollingBack => self.outcome = Some(self.outcome.unwrap_or(Outcome::RolledBack)),
            _ => {}
        }
        self.actions.push_back(Action::Enter(phase));
        self.start_ready();
    }

    fn start_ready(&mut self) {
        for planned in PLAN.iter().filter(|planned| planned.phase == self.phase) {
            let ready = planned.after.iter().all(|op| self.finished.contains(op));
            if ready && self.begun.insert(planned.op) {
                self.actions.push_back(Action::Start(planned.op));
            }
        }
    }
}

#[cfg(test)]
mod tests;
