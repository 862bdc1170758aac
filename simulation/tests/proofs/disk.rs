//! The seeded simulation: thousands of small worlds, each replayable from its seed; and the proof
//! that it notices when a single invariant is not kept.
//!
//! `SIM_SEEDS=n` runs n seeds; `SIM_SEED=s` replays one.

use simulation::{self as sim, Kept};

fn number_from_env(name: &str) -> Option<u64> {
    std::env::var(name)
        .ok()
        .map(|text| text.parse().unwrap_or_else(|_| panic!("{name} must be a whole number")))
}

fn run(seed: u64, kept: Kept) -> Result<sim::Outcome, String> {
    let world = std::panic::catch_unwind(|| sim::run(seed, kept));
    world.unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().map_or("a panic", String::as_str);
        Err(text.to_owned())
    })
}

/// S4-15, S4-25, D1 to D8, D10, D13.
#[test]
fn every_seed_ends_with_two_equal_disks() {
    let seeds = match number_from_env("SIM_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..number_from_env("SIM_SEEDS").unwrap_or(2000),
    };
    let mut total = sim::Outcome::default();
    for seed in seeds.clone() {
        match run(seed, Kept::ALL) {
            Ok(outcome) => {
                total.faults += outcome.faults;
                total.barriers += outcome.barriers;
                total.deltas += outcome.deltas;
            }
            Err(wrong) => {
                panic!(
                    "seed {seed}: {wrong}\nreplay: SIM_SEED={seed} cargo test --workspace --test proofs every_seed"
                )
            }
        }
    }
    let count = seeds.end - seeds.start;
    println!(
        "{count} seeds: {} faults, {} barriers passed, {} deltas",
        total.faults, total.barriers, total.deltas
    );
    assert!(count == 1 || (total.faults > count && total.barriers > count / 10), "the worlds are too quiet");
}

#[test]
#[expect(
    clippy::disallowed_methods,
    reason = "the name of its thread is what silences the panics of the search"
)]
fn switching_off_any_one_invariant_is_noticed() {
    let search = std::thread::Builder::new().name(QUIET.into());
    let search = search.spawn(|| Kept::one_less().map(first_failure));
    hush_panics_of_the_search();
    let found = search.expect("a thread can be started").join().expect("panics are caught");
    let missed: Vec<&str> = found.into_iter().filter(|(_, found)| !found).map(|(name, _)| name).collect();
    assert!(missed.is_empty(), "the simulation did not notice the loss of {missed:?}");
}

const QUIET: &str = "search";

/// Looks for a seed that fails without an invariant; says which.
fn first_failure((name, kept): (&'static str, Kept)) -> (&'static str, bool) {
    let found = (0..4000).find_map(|seed| run(seed, kept).err().map(|wrong| (seed, wrong)));
    if let Some((seed, wrong)) = &found {
        println!("without {name}: seed {seed}: {wrong}");
    }
    (name, found.is_some())
}

/// The search provokes panics by the thousand: nobody wants to read their backtraces.
fn hush_panics_of_the_search() {
    let usual = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        if std::thread::current().name() != Some(QUIET) {
            usual(panic);
        }
    }));
}
