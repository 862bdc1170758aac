//! NBD reply.
