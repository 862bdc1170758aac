//! Side by side: the daemon against `qemu-nbd` and `nbdkit`, the price of what only the daemon does, whole moves of
//! guests against QEMU's own, and the link against one stream of iperf3.
//!
//! ```text
//! bin/bench ─► comparison ─► servers ─► client ─► load            one row a load, pairs interleaved
//!          └─► costs ──────► (the daemon alone, recording or not)
//!          ├─► moves ─► ours · stage, peer ─► sample              one world a move, pairs interleaved
//!          ├─► link ──► end × 2, iperf3 · clear              one world, pairs interleaved
//!          all ─► statistics (median of ratios, interval) ─► report ─► bench/RESULTS.md
//! ```
//!
//! A figure is the median of the ratios of runs that stood next to each other in time, with the interval that
//! holds it with 95 %. What the machine does besides hits both runs of a pair alike.

pub mod statistics;
pub mod stream;
pub mod load;
pub mod client;
pub mod servers;
pub mod comparison;
pub mod costs;
pub mod report;
pub mod moves;
pub mod link;
