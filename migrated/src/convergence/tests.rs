//! The clocks of a migration, driven by looks a second apart.

use super::*;

const MIN: u64 = 60;
const MIB: u64 = 1 << 20;

fn seconds(count: u64) -> Duration {
    Duration::from_secs(count)
}

fn bulk(disk_left_bytes: u64) -> Observation {
    Observation {
        phase: Phase::Bulk,
        is_link_up: true,
        is_suspended: false,
        disk_left_bytes,
        ram_left_bytes: 512 * MIB,
        ram_passes: 0,
        ram_dirty_bytes_per_s: 0,
        goodput_bytes_per_s: MIB,
        limit_bytes_per_s: None,
    }
}

fn pass(ram_passes: u64, ram_left_bytes: u64) -> Observation {
    let ram_dirty_bytes_per_s = 2 * MIB;
    Observation { phase: Phase::PreCopy, ram_left_bytes, ram_passes, ram_dirty_bytes_per_s, ..bulk(0) }
}

fn usual(wish: TimeLimit) -> Convergence {
    Convergence::new(seconds(10 * MIN), seconds(20), wish)
}

/// Looks once a second until something is said that is no bound; when, and what.
fn run(
    clocks: &mut Convergence,
    from: u64,
    looks: impl Iterator<Item = Observation>,
) -> Option<(u64, Verdict)> {
    (from..).zip(looks).find_map(|(second, look)| {
        let word = clocks.handle_sample(&look, seconds(second))?;
        (!matches!(word, Verdict::Bounded(_))).then_some((second, word))
    })
}

#[test]
fn what_comes_nearer_all_the_time_is_never_given_up() {
    let mut clocks = usual(TimeLimit::None);
    let day = (0..24 * 60 * MIN).map(|second| bulk((100_000 - second) * MIB));
    assert_eq!(run(&mut clocks, 0, day), None);
}

#[test]
fn disks_that_are_written_as_fast_as_they_are_copied_are_given_up() {
    let mut clocks = usual(TimeLimit::None);
    let looks =
        (0..2000).map(|second| bulk(if second < 100 { 500 - second } else { 401 + second % 3 } * MIB));
    let (second, word) = run(&mut clocks, 0, looks).expect("it never ends");
    assert_eq!(second, 99 + 10 * MIN + 1);
    let Verdict::GiveUp(why) = word else { panic!("{word:?}") };
    assert!(why.contains("10 min") && why.contains("writes to its disks") && why.contains("--cold"), "{why}");
}

#[test]
fn a_very_thin_link_has_time_for_what_is_acknowledged_at_once() {
    let thin = |left| Observation { goodput_bytes_per_s: 8000, ..bulk(left) };
    let looks = (0..20_000).map(|second| thin((100 - second / 2000) * 16 * MIB));
    assert_eq!(run(&mut usual(TimeLimit::None), 0, looks), None);
    let (second, _) =
        run(&mut usual(TimeLimit::None), 0, std::iter::repeat_n(thin(MIB), 20_000)).expect("it never ends");
    assert_eq!(second, STEPS_BYTES / 8000 + 1);
}

#[test]
fn passes_over_the_memory_have_to_become_smaller_once_qemu_has_all_of_the_downtime() {
    // A first pass of an hour, as on a thin link; then passes of a minute that end with nothing and begin with as much
    // as the one before.
    let first = (0..60 * MIN).map(|second| pass(1, (4000 - second) * MIB));
    let later = (2..).flat_map(|number| (0..60).map(move |second| pass(number, (60 - second) * MIB)));
    let mut clocks = usual(TimeLimit::None);
    let (second, word) = run(&mut clocks, 0, first.chain(later)).expect("it never ends");
    // The passes up to the one with the full share count, and ten minutes more.
    assert_eq!(second, 60 * MIN + (PASSES_TO_FULL_SHARE - 2) * 60 + 10 * MIN + 1);
    assert!(matches!(word, Verdict::GiveUp(why) if why.contains("16.8 Mbit/s of memory")));

    // The same with passes that shrink goes on.
    let shrinking = (2..40).flat_map(|number| {
        let begins = 4000 * 9u64.pow(number as u32 - 1) / 10u64.pow(number as u32 - 1);
        (0..60).map(move |second| pass(number.min(40), begins.saturating_sub(second) * MIB))
    });
    let mut clocks = usual(TimeLimit::None);
    assert_eq!(run(&mut clocks, 0, shrinking.take(16 * 60)), None);
}

#[test]
fn a_link_that_is_down_counts_for_nothing() {
    let mut clocks = usual(TimeLimit::Given(seconds(5 * MIN)));
    let down = Observation { is_link_up: false, ..bulk(MIB) };
    let times = std::iter::repeat_n::<Observation>;
    let looks = times(bulk(MIB), 60).chain(times(down, 7200)).chain(times(bulk(MIB), 600));
    let (second, word) = run(&mut clocks, 0, looks).expect("it never ends");
    assert_eq!(second, 7200 + 5 * MIN + 1);
    assert!(matches!(word, Verdict::GiveUp(why) if why.contains("5 min") && why.contains("--time-limit")));
}

#[test]
fn the_limit_follows_from_bytes_and_rate_and_is_said_when_these_are_known() {
    let mut clocks = usual(TimeLimit::Computed);
    let mut said = Vec::new();
    let unknown = Observation { goodput_bytes_per_s: 0, ..bulk(1000 * MIB) };
    for (second, look) in [unknown; 5].into_iter().chain([bulk(1000 * MIB); 5]).enumerate() {
        said.extend(clocks.handle_sample(&look, seconds(second as u64)).map(|word| (second, word)));
    }
    let limit = seconds(5) + BASE + seconds(1512) * FACTOR;
    assert_eq!(said, [(5, Verdict::Bounded(limit))]);
    // Less bandwidth, more time; more bandwidth, no less.
    let slower = Observation { limit_bytes_per_s: Some(MIB / 2), ..bulk(1000 * MIB) };
    let bounded = clocks.handle_sample(&slower, seconds(10));
    let longer = seconds(10) + BASE + seconds(3024) * FACTOR;
    assert_eq!(bounded, Some(Verdict::Bounded(longer)));
    assert_eq!(clocks.handle_sample(&bulk(900 * MIB), seconds(11)), None);
    assert_eq!(clocks.limit(), Some(longer));
}

#[test]
fn a_suspended_guest_waits_for_its_link_for_a_while_only() {
    let down = Observation { is_link_up: false, ..bulk(MIB) };
    let suspended = Observation { is_suspended: true, ..down };
    let mut clocks = usual(TimeLimit::Computed);
    assert_eq!(run(&mut clocks, 0, std::iter::repeat_n(down, 1000)), None);
    let mut clocks = usual(TimeLimit::Computed);
    let flapping = [bulk(MIB), suspended].into_iter().cycle().take(1000);
    assert_eq!(run(&mut clocks, 0, flapping.map(|look| Observation { is_suspended: true, ..look })), None);
    let (second, word) =
        run(&mut clocks, 1000, std::iter::repeat_n(suspended, 100)).expect("it waits for ever");
    assert_eq!(second, 999 + 21);
    assert!(matches!(word, Verdict::LinkGone(_)));
    // Nobody waits where it goes on already.
    let recovering = Observation { phase: Phase::Recovering, ..suspended };
    assert_eq!(run(&mut usual(TimeLimit::Computed), 0, std::iter::repeat_n(recovering, 100)), None);
}
