//! sidecar file.
