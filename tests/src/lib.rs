//! Simulation, oracle, foreign clients, benchmarks and house rules.

pub mod requires;
pub mod binaries;
pub mod sim;
pub mod house;
pub mod wait;
pub mod scratch;
pub mod watchdog;
pub mod program;
pub mod disk;
pub mod daemon;
pub mod lab;
pub mod numbered;
pub mod initramfs;
pub mod qmp;
pub mod guest_kit;
pub mod guest;
pub mod prober;
pub mod oracle;
pub mod relay;
pub mod netns;
pub mod site;
pub mod router_vm;
pub mod wan;
pub mod world;
pub mod hosts;
pub mod bench;
