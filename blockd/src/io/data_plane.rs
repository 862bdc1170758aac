//! Chooses what moves the bytes: the ring where the kernel allows one, else the pool.

use std::fmt;
use std::io;
use std::os::unix::net::UnixListener;
use std::str::FromStr;
use std::sync::Arc;

use thiserror::Error;
use tracing::info;

use crate::io::mailbox::Receiver;
use crate::io::{pool, ring};
use crate::server::Server;
use crate::store::BlockStore;

/// Which data plane to run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Choice {
    /// The ring if there can be one, else the pool.
    #[default]
    Auto,
    /// The ring; an error where there can be none.
    Ring,
    /// The pool.
    Pool,
}

/// A word that names no data plane.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{0:?} is no data plane: choose auto, ring or pool")]
pub struct UnknownChoice(String);

impl FromStr for Choice {
    type Err = UnknownChoice;

    fn from_str(word: &str) -> Result<Self, UnknownChoice> {
        match word {
            "auto" => Ok(Choice::Auto),
            "ring" => Ok(Choice::Ring),
            "pool" => Ok(Choice::Pool),
            _ => Err(UnknownChoice(word.into())),
        }
    }
}

impl fmt::Display for Choice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Choice::Auto => "auto",
            Choice::Ring => "ring",
            Choice::Pool => "pool",
        })
    }
}

/// Serves on this thread until the mailbox says stop; hands the server back then.
///
/// `store` is the one that the server was made with.
pub fn run(
    choice: Choice,
    server: Server,
    store: Arc<dyn BlockStore>,
    listener: &UnixListener,
    mailbox: &Receiver,
) -> io::Result<Server> {
    if uses_ring(choice)? {
        ring::run(server, store, listener, mailbox)
    } else {
        pool::run(server, store, listener, mailbox)
    }
}

fn uses_ring(choice: Choice) -> io::Result<bool> {
    match (choice, ring::probe()) {
        (Choice::Pool, _) => {
            info!("data plane: thread pool, as configured");
            Ok(false)
        }
        (_, Ok(())) => {
            info!("data plane: io_uring");
            Ok(true)
        }
        (Choice::Auto, Err(error)) => {
            info!("data plane: thread pool, because there is no io_uring here: {error}");
            Ok(false)
        }
        (Choice::Ring, Err(error)) => {
            let hint = "see sysctl kernel.io_uring_disabled and seccomp filters, or choose the pool";
            Err(io::Error::new(error.kind(), format!("no io_uring here: {error}; {hint}")))
        }
    }
}
