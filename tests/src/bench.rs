//! Side by side: the daemon against `qemu-nbd` and `nbdkit`, the price of what only the daemon does, whole moves of
//! guests against QEMU's own, and the link against one stream of iperf3.
//!
//! ```text
//! bin/bench ─► suite ─► comparison ─► servers ─► client ─► load      one course a load, pairs interleaved
//!                   ├─► costs, stream (the daemon alone, recording or not)
//!                   ├─► moves ─► ours · stage, peer ─► sample        one world a move, pairs interleaved
//!                   └─► link ──► end × 2, iperf3 · clear             one world, pairs interleaved
//!
//! part ─ Asked ─► session ─► piece by piece (limit) ─ record ─► results: bench/RESULTS.jsonl
//! records ─► tables of each part (statistics) ─► report: bench/RESULTS.md
//!        └─► against: another file of records
//! ```
//!
//! A piece is one pair of one course, and the unit in which the benchmark is stopped and goes on. The tables are made
//! of records alone.
//!
//! A figure is the median of the ratios of runs that stood next to each other in time, with the interval that
//! holds it with 95 %. What the machine does besides hits both runs of a pair alike.

pub mod statistics;
pub mod record;
pub mod report;
pub mod results;
pub mod against;
pub mod limit;
pub mod machine;
pub mod session;
pub mod load;
pub mod client;
pub mod servers;
pub mod comparison;
pub mod costs;
pub mod stream;
pub mod moves;
pub mod link;
pub mod wish;
pub mod suite;
pub mod trial;
