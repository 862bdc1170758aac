//! The commit protocol, explored: every loss, repetition, reordering, death and restart of either side at every step,
//! within bounds. And the proof that the model notices when a single rule is not kept.
//!
//! The rules are the product's own: the deciders `source::Source` and `destination::Destination`,
//! `journal::{last_step, verdict, handed_over}`, `recover::{source, destination}`. What stands here is the world around
//! them.

mod state;
mod wire;
mod rules;
mod source;
mod visit;
mod moving;
mod destination;
mod oracle;
mod faults;
mod rest;
mod world;
mod happening;
mod simulation;
mod trouble;
mod judge;
mod carrier;

use stateright::{Checker, HasDiscoveries, Model};

use rules::Rules;
use simulation::Seen;
use world::{Bounds, COMES_TO_REST, NEVER_TWICE, ONE_WRITER, WHOLE, World};

/// Explores until `enough` is found; says how much that was, and what was found against the rules.
fn explore(world: World, enough: HasDiscoveries) -> Vec<String> {
    let checker = world.checker().threads(2).finish_when(enough).spawn_bfs().join();
    let (states, depth) = (checker.unique_state_count(), checker.max_depth());
    println!("{:?}, operator {}: {states} states, {depth} steps deep", world.bounds, world.operator);
    let mut wrong = Vec::new();
    for property in world.properties() {
        match checker.discovery(property.name) {
            Some(path) if property.expectation.discovery_is_failure() => {
                let last = path.last_state().clone();
                let actions: Vec<String> =
                    path.into_actions().iter().map(|action| format!("  {action:?}")).collect();
                let way = rest::told(&world, &last);
                wrong.push(format!("{}:\n{}\n{last:#?}\n{way}", property.name, actions.join("\n")));
            }
            None if !property.expectation.discovery_is_failure() && wrong.is_empty() => {
                wrong.push(format!("{}: never", property.name));
            }
            _ => {}
        }
    }
    wrong
}

#[track_caller]
fn assert_kept(world: World) {
    let wrong = explore(world, HasDiscoveries::AnyFailures);
    assert!(wrong.is_empty(), "{}", wrong.join("\n\n"));
}

/// Two deaths, of anything, at any step, also while it recovers from the first; and two links, so that words of an older one may
/// still arrive.
#[test]
fn the_guest_is_never_lost_and_never_twice_whatever_dies_or_is_cut() {
    let bounds = Bounds { migrations: 1, links: 2, faults: 2, writes: 1 };
    assert_kept(World { rules: Rules::ALL, bounds, operator: false });
}

/// Further than anybody should have to think of: three links, three deaths, and an operator between two deaths.
#[test]
#[ignore = "takes minutes; make soak"]
fn soak_the_guest_is_never_lost_and_never_twice_within_wider_bounds() {
    for (links, faults, operator) in [(3, 2, false), (2, 3, false), (2, 2, true)] {
        let bounds = Bounds { migrations: 1, links, faults, writes: 1 };
        assert_kept(World { rules: Rules::ALL, bounds, operator });
    }
}

/// A second migration after the first: nothing that the first has left harms it.
#[test]
fn a_migration_is_not_misled_by_what_the_one_before_has_left() {
    let bounds = Bounds { migrations: 2, links: 2, faults: 1, writes: 1 };
    assert_kept(World { rules: Rules::ALL, bounds, operator: false });
}

/// An operator takes the guest back at any moment of doubt. What goes wrong then has a name: the destination was
/// alive, and only cut off.
#[test]
fn an_operators_word_harms_only_where_the_destination_was_alive() {
    let bounds = Bounds { migrations: 1, links: 2, faults: 1, writes: 1 };
    assert_kept(World { rules: Rules::ALL, bounds, operator: true });
}

/// Each rule left out: the property that it is there for no longer holds.
#[test]
fn leaving_out_any_one_rule_is_noticed() {
    let kept = Rules::ALL;
    let all = [
        ("verdict_is_journalled", Rules { verdict_is_journalled: false, ..kept }, NEVER_TWICE),
        ("refusals_hold", Rules { refusals_hold: false, ..kept }, NEVER_TWICE),
        ("fence_when_running", Rules { fence_when_running: false, ..kept }, COMES_TO_REST),
        ("ask_after_releasing", Rules { ask_after_releasing: false, ..kept }, NEVER_TWICE),
        ("started_before_it_runs", Rules { started_before_it_runs: false, ..kept }, WHOLE),
        ("fence_before_handing_back", Rules { fence_before_handing_back: false, ..kept }, ONE_WRITER),
        ("done_when_the_source_knows", Rules { done_when_the_source_knows: false, ..kept }, NEVER_TWICE),
        ("asks_again", Rules { asks_again: false, ..kept }, COMES_TO_REST),
        (
            "operators_word_is_carried_out",
            Rules { operators_word_is_carried_out: false, ..kept },
            COMES_TO_REST,
        ),
        ("ask_whose_guest_it_is", Rules { ask_whose_guest_it_is: false, ..kept }, NEVER_TWICE),
    ];
    let bounds = Bounds { migrations: 1, links: 2, faults: 2, writes: 1 };
    for (name, rules, expected) in all {
        println!("without {name}:");
        let operator = [
            rules.ask_whose_guest_it_is,
            rules.done_when_the_source_knows,
            rules.operators_word_is_carried_out,
        ]
        .contains(&false);
        let wrong = explore(World { rules, bounds, operator }, HasDiscoveries::AnyOf([expected].into()));
        let found = wrong.iter().any(|wrong| wrong.starts_with(expected));
        assert!(found, "nobody noticed that {name} is left out");
    }
}

fn number_from_env(name: &str) -> Option<u64> {
    std::env::var(name)
        .ok()
        .map(|text| text.parse().unwrap_or_else(|_| panic!("{name} must be a whole number")))
}

/// S2-23, S2-47. `SIM_SEEDS=n` runs n seeds; `SIM_SEED=s` replays one.
#[test]
fn every_seed_ends_with_one_guest_that_has_all_its_writes() {
    let seeds = match number_from_env("SIM_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..number_from_env("SIM_SEEDS").unwrap_or(5000),
    };
    let mut total = Seen::default();
    for seed in seeds.clone() {
        let seen = simulation::run(seed, Rules::ALL).unwrap_or_else(|wrong| {
            panic!(
                "seed {seed}: {wrong}\nreplay: SIM_SEED={seed} cargo test --workspace --test proofs every_seed"
            )
        });
        total.moved += seen.moved;
        total.back += seen.back;
        total.again += seen.again;
        total.in_doubt += seen.in_doubt;
        total.handed_back += seen.handed_back;
        total.faults += seen.faults;
        total.cancelled += seen.cancelled;
    }
    let count = seeds.end - seeds.start;
    println!("{count} seeds: {total:?}");
    let is_lively = total.faults > count
        && total.in_doubt > count / 20
        && total.handed_back > count / 100
        && total.cancelled > count / 100;
    assert!(count == 1 || is_lively, "the worlds are too quiet");
}

/// The simulation is no better than what it notices.
#[test]
fn seeds_notice_rules_that_are_left_out() {
    let kept = Rules::ALL;
    let all = [
        ("verdict_is_journalled", Rules { verdict_is_journalled: false, ..kept }),
        ("fence_before_handing_back", Rules { fence_before_handing_back: false, ..kept }),
        ("started_before_it_runs", Rules { started_before_it_runs: false, ..kept }),
    ];
    for (name, rules) in all {
        let found =
            (0..20_000).find_map(|seed| simulation::run(seed, rules).err().map(|wrong| (seed, wrong)));
        let (seed, wrong) = found.unwrap_or_else(|| panic!("nobody noticed that {name} is left out"));
        println!("without {name}: seed {seed}: {}", wrong.lines().next().unwrap_or_default());
    }
}
