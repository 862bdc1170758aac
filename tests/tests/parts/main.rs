//! The programs and their parts in the real world, each alone: processes, sockets, networks, guests that stay where they
//! are. Whole moves are in `moves`.

mod running;

mod control;
mod supervisor;
mod recording;
mod data_plane;
mod foreign_clients;
mod image_in_use;
mod replica_process;
mod guest_disk;
mod bench_smoke;
mod link;
mod tunnel;
mod migrated_cli;
mod odd_disks;
mod check_config;
mod world;
mod guest_kit;
mod machine;
