//! The world of the end-to-end tests keeps its promises (S0-14, S0-15, S4-03, S4-58, S4-60, S4-61).

use std::time::Duration;

use tests::require;
use tests::wan::{End, WanProfile};
use tests::world::{Plan, World};

/// The least round trip, in milliseconds, of a few pings from the client.
fn least_round_trip_ms(world: &World, address: &str) -> f64 {
    let said = world.client.shell(&format!("ping -n -q -c 5 -i 0.05 {address}"));
    // rtt min/avg/max/mdev = 41.410/43.269/44.358/1.321 ms
    let least = said.rsplit_once("= ").and_then(|(_, numbers)| numbers.split('/').next()?.parse().ok());
    least.unwrap_or_else(|| panic!("ping said: {said}"))
}

#[test]
fn all_places_reach_each_other_and_the_way_is_as_long_as_the_profile_says() {
    let world = require!(World::new(WanProfile::new(100, Duration::from_millis(40))));
    for address in ["10.1.0.1", "10.1.0.50", "10.2.0.1", End::SiteB.address()] {
        // Less can't be: netem holds each packet for the whole delay.
        let least = least_round_trip_ms(&world, address);
        assert!(least >= 40.0, "{address}: {least} ms");
    }
}

#[test]
fn a_world_without_a_profile_is_direct_and_can_have_a_network_of_control_between_the_sites() {
    let world = require!(World::with(Plan { control_network: true, ..Plan::default() }));
    least_round_trip_ms(&world, "10.2.0.1");
    world.site_a.shell("ping -n -q -c 1 198.51.100.2");
}
