//! Real guests under `migrated`'s hand: QEMU, disks' daemons and taps as one thing that outlives its keeper.
//!
//! Emulated everywhere: what is tested is how a guest is held, not how fast it runs.

mod ground;
mod lifecycle;
mod moving;
mod network;
mod refusals;
