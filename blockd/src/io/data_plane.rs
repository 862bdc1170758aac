//! What moves the bytes: the ring where the kernel allows one, else the pool.

use std::fmt;
use std::io;
use std::os::unix::net::UnixListener;
use std::sync::Arc;

use crate::io::mailbox::Receiver;
use crate::io::ring::Ring;
use crate::io::{pool, ring};
use crate::server::Server;
use crate::store::BlockStore;

/// A data plane that can begin. A ring is made early, while the daemon still has the rights that this takes.
pub enum Prepared {
    /// io_uring.
    Ring(Box<Ring>),
    /// A few threads.
    Pool,
}

impl Prepared {
    /// The ring, or why there can be none here. To be made by the thread that will run it.
    pub fn ring() -> io::Result<Self> {
        Ring::new().map(Box::new).map(Prepared::Ring)
    }
}

impl fmt::Display for Prepared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Prepared::Ring(_) => "ring",
            Prepared::Pool => "pool",
        })
    }
}

/// Serves on this thread until the mailbox says stop; hands the server back then.
///
/// `store` is the one that the server was made with.
pub fn run(
    prepared: Prepared,
    server: Server,
    store: Arc<dyn BlockStore>,
    listener: &UnixListener,
    mailbox: &Receiver,
) -> io::Result<Server> {
    match prepared {
        Prepared::Ring(ring) => ring::run(*ring, server, store, listener, mailbox),
        Prepared::Pool => pool::run(server, store, listener, mailbox),
    }
}
