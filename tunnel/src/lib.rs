//! The network side of a guest move.
