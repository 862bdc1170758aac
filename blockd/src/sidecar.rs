//! The sidecar's format.
