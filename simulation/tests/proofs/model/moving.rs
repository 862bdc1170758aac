//! A migration at its source, explored: the product's decider, and the operations that it has started.

use std::collections::BTreeSet;
use std::hash::{Hash, Hasher};
use std::sync::Arc;
use std::time::Duration;

use migrated::phase::{Op, Outcome, Phase};
use migrated::recover::AtSource;
use migrated::source::{Action, Event, Limits, Source as Decider};

use super::state::Doing;

/// Any: how long something takes is not explored, only that it takes too long.
const LIMITS: Limits = Limits { paused: Duration::from_secs(20), retry: Duration::from_secs(120) };

/// Later than any deadline.
const TOO_LATE: Duration = Duration::from_secs(1 << 30);

/// One migration.
#[derive(Clone, Debug)]
pub struct Moving(Arc<Inner>);

/// Shared by all states in which nothing has happened to it since.
#[derive(Clone, Debug)]
struct Inner {
    decider: Decider,
    /// Started, and not ended.
    under_way: BTreeSet<Op>,
    /// All of it in words: states are compared and hashed by them.
    key: String,
}

/// All of it in words, but for what is only told: nothing is decided by it, and it would tell states apart that are one.
fn key(inner: &Inner) -> String {
    let words = format!("{:?} {:?}", inner.under_way, inner.decider);
    let words = without(&words, " reasons: ", " outcome: ");
    without(&words, " turn: ", " has_shut_down: ")
}

fn without(words: &str, from: &str, to: &str) -> String {
    let (before, rest) = words.split_once(from).expect("a field of the decider");
    let (_, after) = rest.split_once(to).expect("the field after it");
    format!("{before}{to}{after}")
}

impl PartialEq for Moving {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0) || self.0.key == other.0.key
    }
}

impl Eq for Moving {}

impl Hash for Moving {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.key.hash(state);
    }
}

impl Moving {
    /// One that has just been asked for.
    pub fn new() -> Self {
        Self::of(Decider::new(LIMITS, Duration::ZERO))
    }

    /// One that a daemon takes up; none: nothing is open.
    pub fn taken_up(next: AtSource) -> Option<Self> {
        Decider::taken_up(next, LIMITS, Duration::ZERO).map(Self::of)
    }

    fn of(decider: Decider) -> Self {
        Self(Arc::new(Inner { decider, under_way: BTreeSet::new(), key: String::new() }))
    }

    /// Tells the decider what happened.
    pub fn handle(&mut self, event: Event) {
        let inner = Arc::make_mut(&mut self.0);
        if let Event::Finished(op) | Event::Failed(op, _) = &event {
            inner.under_way.remove(op);
        }
        inner.decider.handle(event, Duration::ZERO);
    }

    /// The phase has lasted too long.
    pub fn handle_timeout(&mut self) {
        Arc::make_mut(&mut self.0).decider.handle_timeout(TOO_LATE);
    }

    /// What the decider wants done.
    pub fn poll(&mut self) -> Option<Action> {
        let inner = Arc::make_mut(&mut self.0);
        let action = inner.decider.poll_action();
        match action {
            Some(Action::Start(op, _)) => drop(inner.under_way.insert(op)),
            Some(Action::StopAll) => inner.under_way.clear(),
            None => inner.key = key(inner),
            _ => {}
        }
        action
    }

    /// Whether an operation was started and has not ended.
    pub fn awaits(&self, op: Op) -> bool {
        self.0.under_way.contains(&op)
    }

    /// Whether any of these was.
    pub fn awaits_any(&self, ops: &[Op]) -> Option<Op> {
        ops.iter().copied().find(|op| self.awaits(*op))
    }

    /// Where it is.
    pub fn phase(&self) -> Phase {
        self.0.decider.phase()
    }

    /// How it has ended, if it has.
    pub fn end(&self) -> Option<Outcome> {
        self.0.decider.outcome().filter(|_| self.phase().is_final())
    }

    /// What its daemon is about, in the words of the world.
    pub fn doing(&self) -> Doing {
        match self.phase() {
            Phase::PreMigration | Phase::Connect | Phase::Reservation => Doing::Calling,
            Phase::Bulk | Phase::PreCopy => Doing::Copying,
            Phase::StopAndCopy => Doing::Pausing { loaded: !self.awaits(Op::AwaitLoaded) },
            Phase::Releasing => Doing::Pausing { loaded: true },
            Phase::Commitment => Doing::HandingOver,
            Phase::InDoubt => Doing::Asking,
            Phase::Resume => Doing::Awaiting,
            Phase::Readdress => Doing::Finishing,
            Phase::Recovering => Doing::RollingBack { again: true },
            Phase::RollingBack => Doing::RollingBack { again: false },
            Phase::Done | Phase::RolledBack => Doing::Idle,
        }
    }
}
