//! Links that are down for as long as links really are, by a clock that costs nothing: a second, half a minute, five
//! minutes, an hour (S4-01). Users write and read all the while; buffers stay within their bounds, and it goes on.

use std::time::Duration;

use super::simulation::{World, assert_complete};
use crate::link::{Label, Lane};

/// Steps before an outage: enough that something is under way, too few for it to be through.
const STEPS_BEFORE: usize = 2;
/// Looks in the course of an outage.
const LOOKS: u32 = 60;
const STEPS_MAX: usize = 20_000;

/// Returns in how many outages something was under way.
fn run(seed: u64, outages: &[Duration]) -> usize {
    let mut world = World::new(seed, false);
    let mut met = 0;
    for outage in outages {
        for (side, label) in
            [Label::Control, Label::Disk(0), Label::Ram(0), Label::Disk(1)].into_iter().enumerate()
        {
            world.open(side % 2, label);
        }
        (0..STEPS_BEFORE).for_each(|_| world.step());
        Lane::ALL.into_iter().for_each(|lane| world.cut(lane));
        for _ in 0..LOOKS {
            world.now += *outage / LOOKS;
            world.step();
        }
        met += usize::from(!world.is_quiet());
        Lane::ALL.into_iter().for_each(|lane| world.connect(lane));
    }
    for _ in 0..STEPS_MAX {
        world.step();
        if world.is_quiet() {
            assert_complete(&world);
            return met;
        }
    }
    panic!("seed {seed}: the channels do not come to their end");
}

#[test]
fn a_link_that_is_down_for_a_second_or_for_an_hour_loses_nothing_and_holds_no_more_than_before() {
    let outages = [1, 30, 300, 3600].map(Duration::from_secs);
    for seed in 0..20 {
        let alone: usize = outages.iter().map(|outage| run(seed, &[*outage])).sum();
        assert!(alone > 0, "seed {seed}: nothing was under way in any outage");
        assert!(run(seed, &outages) > 0, "seed {seed}: nothing was under way in any outage of a row");
    }
}

#[test]
fn a_link_that_flaps_every_two_seconds_for_a_minute_gets_everything_across() {
    for seed in 0..20 {
        let mut world = World::new(seed, false);
        world.open(0, Label::Disk(0));
        world.open(1, Label::Ram(0));
        for _ in 0..15 {
            world.step();
            Lane::ALL.into_iter().for_each(|lane| world.cut(lane));
            world.now += Duration::from_secs(2);
            world.step();
            Lane::ALL.into_iter().for_each(|lane| world.connect(lane));
            world.now += Duration::from_secs(2);
        }
        let is_through = (0..STEPS_MAX).any(|_| {
            world.step();
            world.is_quiet()
        });
        assert!(is_through, "seed {seed}: the channels do not come to their end");
        assert_complete(&world);
    }
}
