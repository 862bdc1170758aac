//! Links that are down for as long as links really are, by a clock that costs nothing: a second, half a minute, five
//! minutes, an hour (S4-01). Users write and read all the while; buffers stay within their bounds, and it goes on.

use std::time::Duration;

use super::simulation::{World, assert_complete};
use crate::link::{Label, Lane};

/// Steps before and between outages: enough that something is under way, too few for all to be through.
const STEPS_BETWEEN: usize = 6;
/// Looks in the course of an outage.
const LOOKS: u32 = 60;
const STEPS_MAX: usize = 20_000;

fn run(seed: u64, outages: &[Duration]) {
    let mut world = World::new(seed, false);
    for (side, label) in
        [Label::Control, Label::Disk(0), Label::Ram(0), Label::Disk(1)].into_iter().enumerate()
    {
        world.open(side % 2, label);
    }
    for outage in outages {
        (0..STEPS_BETWEEN).for_each(|_| world.step());
        assert!(!world.is_quiet(), "seed {seed}: all is through before the link is down for {outage:?}");
        Lane::ALL.into_iter().for_each(|lane| world.cut(lane));
        for _ in 0..LOOKS {
            world.now += *outage / LOOKS;
            world.step();
        }
        assert!(!world.is_quiet(), "seed {seed}: nothing can arrive without a link");
        Lane::ALL.into_iter().for_each(|lane| world.connect(lane));
    }
    for _ in 0..STEPS_MAX {
        world.step();
        if world.is_quiet() {
            return assert_complete(&world);
        }
    }
    panic!("seed {seed}: the channels do not come to their end");
}

#[test]
fn a_link_that_is_down_for_a_second_or_for_an_hour_loses_nothing_and_holds_no_more_than_before() {
    let outages = [1, 30, 300, 3600].map(Duration::from_secs);
    for seed in 0..20 {
        outages.iter().for_each(|outage| run(seed, &[*outage]));
        run(seed, &outages);
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
