//! The tunnel in real network namespaces, and the name update at a real name server.

mod ends;
mod asked;
mod traffic;
mod taken_back;
mod refused;
mod names;
mod seen;
mod strangers;
