//! The link over real sockets on loopback: what goes through, what cuts do, and everything that is refused.

mod ends;
mod wire;

mod basics;
mod memory;
mod accounts;
mod refusals;
mod cuts;
mod addresses;
mod pairing;
mod relays;
mod stripes;
mod programs;
mod throughput;
