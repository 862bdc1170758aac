//! file store.
