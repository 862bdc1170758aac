//! A visit of the source at the destination: the product's decider, and by which link it is.

use std::hash::{Hash, Hasher};
use std::sync::Arc;

use migrated::destination::{Action, Arriving, Destination as Decider, Event, Stage};

use super::state::{GUEST, name};

/// One visit. What the decider wants done next may wait for a step of its own, before which anything may happen.
#[derive(Clone, Debug)]
pub struct Visit {
    /// The link; 0: there is none, or none any more.
    pub link: u8,
    /// The migration whose guest comes, or came; 0: none yet.
    pub number: u8,
    inner: Arc<Inner>,
}

/// Shared by all states in which nothing has happened to it since.
#[derive(Clone, Debug)]
struct Inner {
    next: Option<Action>,
    decider: Decider,
    /// All of it in words: states are compared and hashed by them.
    key: String,
}

impl PartialEq for Visit {
    fn eq(&self, other: &Self) -> bool {
        (self.link, self.number) == (other.link, other.number)
            && (Arc::ptr_eq(&self.inner, &other.inner) || self.inner.key == other.inner.key)
    }
}

impl Eq for Visit {}

impl Hash for Visit {
    fn hash<H: Hasher>(&self, state: &mut H) {
        (self.link, self.number, &self.inner.key).hash(state);
    }
}

/// The guest of a migration, as its decider knows it.
pub fn arriving(number: u8, generation: u8) -> Arriving {
    Arriving {
        migration: name(number).to_owned(),
        guest: GUEST.to_owned(),
        generation: u64::from(generation),
    }
}

impl Visit {
    /// By a link on which nothing was said yet.
    pub fn new(link: u8) -> Self {
        Self::of(link, 0, Decider::new(""))
    }

    /// Of a guest that was taken before the daemon was started.
    pub fn taken_up(number: u8, generation: u8, is_started: bool) -> Self {
        Self::of(0, number, Decider::taken_up("", arriving(number, generation), true, is_started))
    }

    fn of(link: u8, number: u8, decider: Decider) -> Self {
        let key = format!("{decider:?}");
        Self { link, number, inner: Arc::new(Inner { next: None, decider, key }) }
    }

    /// What is to be done next, in a step of its own.
    pub fn next(&self) -> Option<&Action> {
        self.inner.next.as_ref()
    }

    /// How far its guest has come.
    pub fn stage(&self) -> Stage {
        self.inner.decider.stage()
    }

    /// Its guest has not come, or is being started: nothing else is free to begin.
    pub fn is_open(&self) -> bool {
        (Stage::Reserved..=Stage::Taken).contains(&self.stage())
    }

    /// Nothing comes of it any more that would not come of a new one by the same link.
    pub fn is_over(&self) -> bool {
        let has_nothing = matches!(self.stage(), Stage::Nothing | Stage::Running);
        self.next().is_none() && has_nothing
    }

    /// Tells the decider what happened.
    pub fn handle(&mut self, event: Event) {
        Arc::make_mut(&mut self.inner).decider.handle(event);
    }

    /// What the decider wants done.
    pub fn poll(&mut self) -> Option<Action> {
        Arc::make_mut(&mut self.inner).decider.poll_action()
    }

    /// Leaves something to be done in a step of its own, or nothing.
    pub fn rest_with(&mut self, next: Option<Action>) {
        let inner = Arc::make_mut(&mut self.inner);
        inner.key = format!("{next:?} {:?}", inner.decider);
        inner.next = next;
    }
}
