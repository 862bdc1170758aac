//! What the command line means.
