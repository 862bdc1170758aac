//! Whole migrations: real guests between two sites over a real WAN, with users who must not notice.
//!
//! What the other tests of a guest that moves take for granted is in `tests/world.rs`: that no process of one site can
//! open a file of the other (S0-14), and that the sites share no layer 2 (S0-15).

use tests::hosts::settings::Settings;
use tests::wan::WanProfile;
use tests::world::Plan;

mod wan;
mod kinds;
mod cancelled;
mod bandwidth;
mod refused;
mod reserved;
mod strangers;
mod failures;
mod faults;
mod in_doubt;
mod restarts;
mod itself;
mod operator;
mod afterwards;
mod back_and_forth;
mod home;
mod planes;
mod shown;
mod looked;
mod same_network;
mod cuts;
mod ways;
mod paused;
mod methods;
mod disks;
mod qemu_deaths;
mod random;
mod clocks;

/// The words of the main job.
const MAIN_JOB: [&str; 3] = ["--wan", "web", "site-b"];

/// A rate at which each phase lasts long enough to be met in it.
const SLOWLY: [&str; 2] = ["--bandwidth", "300kB"];

/// A world with links like this.
fn over(profile: WanProfile) -> Plan {
    Plan { profile: Some(profile), ..Plan::default() }
}

/// Memory begins at once, whatever is left of the disks: so that a test need not wait for them.
fn memory_at_once() -> Settings {
    Settings { migration: "ram_start_ms = 3600000".to_owned(), ..Settings::default() }
}
