//! "Never none for ever": from every state, once nothing more goes wrong, everything comes to rest, and the guest runs
//! at one side.
//!
//! Checkers look for liveness along paths, and miss what goes round in circles. Here it is a property of each state:
//! all that was under way is lost, the links are cut a last time, and from there on daemons are restarted, links are
//! made, and what is said arrives. No cancel, no operator, no further fault.

use std::cell::RefCell;
use std::collections::HashSet;
use std::hash::{BuildHasher, RandomState};

use super::rules::Rules;
use super::state::State;
use super::wire::Wire;
use super::world::{Action, Side, World, may_connect, reaches};

/// More steps than any way to rest has.
const STEPS_MAX: usize = 200;

/// What comes first where a daemon has something to do and something to hear.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum First {
    /// What it does by itself.
    Deeds,
    /// What it hears, and new links.
    Words,
}

const ORDERS: [First; 2] = [First::Deeds, First::Words];

thread_local! {
    /// What is known to come to rest: thousands of states differ in nothing but what is under way.
    static KNOWN: RefCell<(RandomState, HashSet<u64>)> = RefCell::default();
}

/// Whether it does.
pub fn comes_to_rest(world: &World, state: &State) -> bool {
    let state = cut(state, &world.rules);
    let key = |hasher: &RandomState| hasher.hash_one((world.rules, &state));
    if KNOWN.with_borrow(|(hasher, known)| known.contains(&key(hasher))) {
        return true;
    }
    let rests = ORDERS.iter().all(|order| way_to_rest(world, state.clone(), *order).1);
    if rests {
        KNOWN.with_borrow_mut(|(hasher, known)| known.insert(key(hasher)));
    }
    rests
}

/// Everything that was under way is lost, and everybody notices.
fn cut(state: &State, rules: &Rules) -> State {
    let mut state = state.clone();
    state.faults = 0;
    if state.source.linked {
        state.source_loses_its_link();
    }
    state.destination_loses_links(state.links, rules);
    forget_links(&mut state);
    state
}

fn forget_links(state: &mut State) {
    state.wire = Wire::default();
    (state.links, state.destination.ended) = (0, 0);
    for visit in &mut state.destination.visits {
        visit.link = 0;
    }
}

/// What happens, and whether the guest runs at one side in the end.
fn way_to_rest(world: &World, mut state: State, first: First) -> (Vec<Action>, bool) {
    let mut way = Vec::new();
    while way.len() < STEPS_MAX {
        let Some(action) = next(world, &mut state, first) else {
            let rests = state.is_at_rest_on(Side::Source) || state.is_at_rest_on(Side::Destination);
            return (way, rests && (state.told.forsaken || state.told.risked || state.is_whole()));
        };
        world.apply(&mut state, action);
        way.push(action);
    }
    (way, false)
}

fn next(world: &World, state: &mut State, first: First) -> Option<Action> {
    let mut deeds = Vec::new();
    world.orderly(state, &mut deeds);
    let said = state.wire.all().find(|said| reaches(state, *said));
    let said = said.filter(|_| deeds.is_empty() || first == First::Words);
    if let Some(said) = said {
        state.wire.forget(said);
        return Some(Action::Hear(said));
    }
    if may_connect(state) && (deeds.is_empty() || first == First::Words) {
        forget_links(state);
        return Some(Action::Connect);
    }
    let asks_again = world.rules.asks_again && state.source_waits_for_an_answer();
    deeds.first().copied().or(asks_again.then_some(Action::AskAgain))
}

/// The same from a state as it is found, for whoever reads a failure.
pub fn told(world: &World, state: &State) -> String {
    let ways = ORDERS.map(|first| {
        let (way, rests) = way_to_rest(world, cut(state, &world.rules), first);
        let way: Vec<String> = way.iter().map(|action| format!("  {action:?}")).collect();
        format!(
            "with nothing more going wrong, {first:?} first (comes to rest: {rests}):\n{}",
            way.join("\n")
        )
    });
    ways.join("\n")
}
