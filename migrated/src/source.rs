//! The source's side of a migration, decided: which operation starts when, what a failure leads to, when it is over.
//!
//! ```text
//!       operations' ends, QEMU's and the destination's notices, the link, samples, a cancel, the journal, time
//!            ▼
//!         Source ── enter(phase), start(operation, promise), stop all, note, warn ──► io::source
//! ```
//!
//! Events come in as they are; what they mean in which phase is decided here, by the table in `phase`: what runs beside
//! what, what waits for what, what is promised, and where a failure leads. It does nothing: no sockets, no journal, and no
//! clock; time is an argument.
//!
//! A lost link, a guest that is paused too long, and a daemon that was started anew lead to another attempt: the guest
//! goes on, its disks stay in step, everything else begins again.
//!
//! Invariants: M2 (what was promised is durable before what depends on it is started), M3 (deadlines), M5 (cancel), M8
//! (the guest is given up here only when it runs there).

mod event;
mod notice;

use std::collections::{BTreeSet, VecDeque};
use std::time::Duration;

use crate::phase::{Deadline, LeftBy, OnFailure, OnLostLink, Op, Operation, Outcome, Phase, Promise, Row};
use crate::recover::AtSource;

pub use self::event::{Action, Cause, Event, Failure, Notice, Turn};

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
#[derive(Clone, Debug)]
pub struct Source {
    phase: Phase,
    entered: Duration,
    started: BTreeSet<Op>,
    finished: BTreeSet<Op>,
    disks_nearly_done: bool,
    is_cancelled: bool,
    reasons: Vec<String>,
    outcome: Option<Outcome>,
    limits: Limits,
    /// How often it has begun again.
    retries: u32,
    late_pauses: u32,
    /// It is in the journal, or was about to be.
    has_begun: bool,
    /// Nothing is promised: this host knows why the guest cannot move.
    cannot_move: bool,
    /// The phase that was entered last as far as others have seen.
    shown: Phase,
    /// The operation whose failure is being handled.
    failing: Option<Op>,
    turn: Option<Turn>,
    /// QEMU said that the guest is shutting down.
    has_shut_down: bool,
    /// QEMU said that a disk of the guest's own failed it.
    has_disk_failed: bool,
    actions: VecDeque<Action>,
}

impl Source {
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
        let mut source = Self::starting_in(phase, limits, retries, now);
        source.outcome = (next == AtSource::RollBack).then_some(Outcome::RolledBack);
        Some(source)
    }

    fn starting_in(phase: Phase, limits: Limits, retries: u32, now: Duration) -> Self {
        let mut source = Self {
            phase,
            entered: now,
            started: BTreeSet::new(),
            finished: BTreeSet::new(),
            disks_nearly_done: false,
            is_cancelled: false,
            reasons: Vec::new(),
            outcome: None,
            limits,
            retries,
            late_pauses: 0,
            has_begun: phase != Phase::PreMigration,
            cannot_move: false,
            shown: phase,
            failing: None,
            turn: None,
            has_shut_down: false,
            has_disk_failed: false,
            actions: VecDeque::new(),
        };
        source.actions.push_back(Action::Enter(phase));
        source.start_ready();
        source
    }

    /// Where it is.
    pub fn phase(&self) -> Phase {
        self.phase
    }

    /// How it ended, once its phase is final. In doubt is an outcome that may still change.
    pub fn outcome(&self) -> Option<Outcome> {
        if self.phase == Phase::InDoubt { Some(Outcome::InDoubt) } else { self.outcome }
    }

    /// True where nobody can say yet how it ends, and no deadline ends it.
    pub fn is_in_doubt(&self) -> bool {
        self.phase == Phase::InDoubt
    }

    /// What the destination has of the disks is worth keeping for another attempt: it was not an order that ended this one.
    pub fn keeps_copies(&self) -> bool {
        self.outcome() == Some(Outcome::RolledBack)
    }

    /// What went wrong, first cause first.
    pub fn reasons(&self) -> &[String] {
        &self.reasons
    }

    /// Takes in what happened.
    pub fn handle(&mut self, event: Event, now: Duration) {
        match event {
            Event::Finished(op) => self.handle_finished(op, now),
            // One that is not under way was stopped: what it says is not heard.
            Event::Failed(op, failure) if self.started.contains(&op) => self.handle_failed(op, failure, now),
            Event::Failed(..) => {}
            Event::CannotMove => self.cannot_move = true,
            Event::Broken(reason) => self.handle_failure(reason, now),
            Event::LinkLost(reason) => self.handle_lost_link(reason, now),
            Event::Notice(notice) => self.handle_notice(notice, now),
            Event::Cancelled if self.may_turn_back() => {
                self.is_cancelled = true;
                self.handle_failure("it was cancelled".to_owned(), now);
            }
            Event::Cancelled => {}
            Event::DisksNearlyDone => {
                self.disks_nearly_done = true;
                self.leave_if_done(now);
            }
            Event::NotConverging(reason) if self.row().must_converge() => {
                self.handle_failure(reason, now);
            }
            // Said a moment before the guest was paused: it is nearly there.
            Event::NotConverging(_) => {}
            Event::Verdict { taken } => self.handle_verdict(taken, now),
        }
    }

    /// What led back, or to doubt, first.
    pub fn turn(&self) -> Option<&Turn> {
        self.turn.as_ref()
    }

    /// What is to be done next, if anything.
    pub fn poll_action(&mut self) -> Option<Action> {
        let action = self.actions.pop_front();
        if let Some(Action::Enter(phase)) = action {
            self.shown = phase;
        }
        action
    }

    /// When [`Source::handle_timeout`] has to be called at the latest.
    pub fn poll_timeout(&self) -> Option<Duration> {
        Some(self.entered + self.deadline()?)
    }

    /// Ends a phase that has lasted too long (M3).
    pub fn handle_timeout(&mut self, now: Duration) {
        if self.poll_timeout().is_none_or(|at| at > now) {
            return;
        }
        if matches!(self.row().deadline, Deadline::OfAPause(_)) && self.late_pauses < LATE_PAUSES_MAX {
            self.late_pauses += 1;
            return self.enter(Phase::Recovering, now);
        }
        let waiting: Vec<&str> = self.started.difference(&self.finished).map(|op| op.name()).collect();
        let reason = format!(
            "phase {} took longer than {} s, waiting for: {}",
            self.phase.name(),
            self.deadline().unwrap_or_default().as_secs(),
            waiting.join(", ")
        );
        self.handle_failure(reason, now);
        if self.row().on_failure == OnFailure::GoOn {
            self.leave(now);
        }
    }

    fn row(&self) -> &'static Row {
        self.phase.row()
    }

    fn deadline(&self) -> Option<Duration> {
        match self.row().deadline {
            Deadline::None => None,
            Deadline::After(limit) => Some(limit),
            Deadline::OfTheFirstAttempt(limit) => {
                Some(if self.retries > 0 { self.limits.retry } else { limit })
            }
            Deadline::OfAPause(_) => Some(self.limits.paused),
        }
    }

    /// Before the commit point, and not on the way back already.
    fn may_turn_back(&self) -> bool {
        matches!(self.row().on_failure, OnFailure::Refuse | OnFailure::RollBack)
    }

    fn handle_finished(&mut self, op: Op, now: Duration) {
        if self.started.contains(&op) && self.finished.insert(op) {
            self.start_ready();
            self.leave_if_done(now);
        }
    }

    fn handle_failed(&mut self, op: Op, failure: Failure, now: Duration) {
        let Failure { why, cause } = failure;
        match cause {
            Cause::Qemu if self.row().cancellable => {}
            // What needs the link cannot go on without; how the link ended says more.
            Cause::Link(how) if self.may_turn_back() => {
                self.note(format!("{} ended with the link: {why}", op.name()));
                self.handle_lost_link(how, now);
            }
            _ => {
                self.note(format!("{} failed: {why}", op.name()));
                self.failing = Some(op);
                self.handle_failure(why, now);
                self.failing = None;
                if self.row().on_failure == OnFailure::GoOn {
                    self.handle_finished(op, now);
                }
            }
        }
    }

    fn handle_verdict(&mut self, taken: bool, now: Duration) {
        let row = self.row();
        // The guest was handed over: only then is there something to be said about it.
        if row.on_failure != OnFailure::Ask {
            return;
        }
        if !taken {
            self.reasons.push("the destination has not taken the guest".to_owned());
            self.enter(Phase::RollingBack, now);
        } else if row.left_by == LeftBy::Verdict {
            self.enter(Phase::Resume, now);
        }
    }

    fn handle_lost_link(&mut self, reason: String, now: Duration) {
        let begins_again = match self.row().on_lost_link {
            OnLostLink::Fail => false,
            OnLostLink::BeginAgain => true,
            OnLostLink::BeginAgainOnceCopied => self.retries > 0,
        };
        if begins_again { self.enter(Phase::Recovering, now) } else { self.handle_failure(reason, now) }
    }

    fn handle_failure(&mut self, reason: String, now: Duration) {
        match self.row().on_failure {
            OnFailure::Stay if self.phase.is_final() => {}
            OnFailure::Ask if self.phase == Phase::InDoubt => {}
            OnFailure::Stay | OnFailure::GoOn => self.reasons.push(reason),
            OnFailure::Refuse | OnFailure::RollBack => {
                self.reasons.push(reason);
                let is_refusal = self.row().on_failure == OnFailure::Refuse && self.retries == 0;
                self.outcome = Some(match is_refusal {
                    _ if self.is_cancelled => Outcome::Cancelled,
                    true => Outcome::Refused,
                    false => Outcome::RolledBack,
                });
                self.enter(Phase::RollingBack, now);
            }
            OnFailure::Ask => {
                self.reasons.push(reason);
                self.enter(Phase::InDoubt, now);
            }
        }
    }

    fn leave_if_done(&mut self, now: Duration) {
        let may_leave = match self.row().left_by {
            LeftBy::Operations => true,
            LeftBy::DisksNearlyDone => self.disks_nearly_done,
            LeftBy::Verdict | LeftBy::Nothing => false,
        };
        let have_ended = self.row().operations.iter().all(|operation| self.finished.contains(&operation.op));
        if may_leave && have_ended {
            self.leave(now);
        }
    }

    fn leave(&mut self, now: Duration) {
        if let Some(next) = self.row().next.first() {
            self.enter(*next, now);
        }
    }

    fn enter(&mut self, phase: Phase, now: Duration) {
        assert!(self.phase.may_become(phase), "{} after {}", phase.name(), self.phase.name());
        if self.started.difference(&self.finished).next().is_some() {
            self.actions.push_back(Action::StopAll);
        }
        if matches!(phase, Phase::RollingBack | Phase::InDoubt) && self.turn.is_none() {
            let reason = self.reasons.last().cloned().unwrap_or_default();
            self.turn = Some(Turn { phase: self.shown, op: self.failing, reason });
        }
        // What was not started yet is not started any more.
        self.actions.retain(|action| !matches!(action, Action::Start(..)));
        (self.phase, self.entered) = (phase, now);
        self.started.clear();
        self.finished.clear();
        match phase {
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
        for operation in self.row().operations {
            let ready = operation.after.iter().all(|op| self.finished.contains(op));
            if ready && self.started.insert(operation.op) {
                let promise = self.promise_of(operation);
                self.has_begun |= promise.is_some();
                self.actions.push_back(Action::Start(operation.op, promise));
            }
        }
    }

    /// What an operation promises now. What has not begun, and what cannot, is in no journal.
    fn promise_of(&self, operation: &Operation) -> Option<Promise> {
        operation.promise.filter(|promise| match promise {
            Promise::IfPossible(_) => self.has_begun,
            Promise::Before(_) | Promise::After(_) => !self.cannot_move,
        })
    }

    fn note(&mut self, what: String) {
        self.actions.push_back(Action::Note(what));
    }
}

#[cfg(test)]
mod tests;
