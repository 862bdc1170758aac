//! How other threads reach the server, which belongs to the data plane's thread alone.
//!
//! ```text
//! any thread ── command ──► queue ──► data plane: command(&mut server, now)
//!                  └─ eventfd, once per burst ─► wakes it
//! ```
//!
//! A command runs between two turns of the loop and must not block. Posting never blocks.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::time::Duration;

use nix::sys::eventfd::{EfdFlags, EventFd};
use thiserror::Error;

use crate::server::Server;

/// What another thread wants done to the server.
pub type Command = Box<dyn FnOnce(&mut Server, Duration) + Send>;

/// The data plane has ended and will do nothing more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("the data plane has stopped")]
pub struct Stopped;

enum Letter {
    Command(Command),
    Stop,
}

/// The bell of one mailbox: rung once, however many letters lie in it.
struct Bell {
    fd: EventFd,
    rung: AtomicBool,
}

/// Posts commands; clone it for every thread that needs one.
#[derive(Clone)]
pub struct Mailbox {
    letters: mpsc::Sender<Letter>,
    bell: Arc<Bell>,
}

/// The data plane's end.
pub struct Receiver {
    letters: mpsc::Receiver<Letter>,
    bell: Arc<Bell>,
}

/// What the letters asked of the data plane itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wish {
    /// Go on.
    GoOn,
    /// End.
    Stop,
}

/// A mailbox and its receiver.
pub fn channel() -> io::Result<(Mailbox, Receiver)> {
    let (sender, receiver) = mpsc::channel();
    let fd = EventFd::from_value_and_flags(0, EfdFlags::EFD_CLOEXEC)?;
    let bell = Arc::new(Bell { fd, rung: AtomicBool::new(false) });
    Ok((Mailbox { letters: sender, bell: Arc::clone(&bell) }, Receiver { letters: receiver, bell }))
}

impl Mailbox {
    /// Has `command` run soon, without waiting for it.
    pub fn post(&self, command: impl FnOnce(&mut Server, Duration) + Send + 'static) -> Result<(), Stopped> {
        self.send(Letter::Command(Box::new(command)))
    }

    /// Has `question` run, and waits for what it returns.
    pub fn ask<T: Send + 'static>(
        &self,
        question: impl FnOnce(&mut Server, Duration) -> T + Send + 'static,
    ) -> Result<T, Stopped> {
        let (answer, wait) = mpsc::sync_channel(1);
        self.post(move |server, now| {
            // Whoever asked may have gone away in the meantime: then nobody needs the answer.
            let _ = answer.send(question(server, now));
        })?;
        wait.recv().map_err(|_| Stopped)
    }

    /// Ends the data plane: it finishes the store calls that are running and drops its connections.
    pub fn stop(&self) -> Result<(), Stopped> {
        self.send(Letter::Stop)
    }

    fn send(&self, letter: Letter) -> Result<(), Stopped> {
        self.letters.send(letter).map_err(|_| Stopped)?;
        // Release: whoever takes the bell down again sees the letter.
        if !self.bell.rung.swap(true, Ordering::AcqRel) {
            // An eventfd's write fails only when its counter is full, and then it is readable.
            let _ = self.bell.fd.write(1);
        }
        Ok(())
    }
}

impl Receiver {
    /// Runs every command that has been posted. Call when the bell's descriptor was readable and
    /// has been read.
    pub fn open(&self, server: &mut Server, now: Duration) -> Wish {
        // Down before looking: a letter posted from here on rings again.
        self.bell.rung.swap(false, Ordering::AcqRel);
        while let Ok(letter) = self.letters.try_recv() {
            match letter {
                Letter::Command(command) => command(server, now),
                Letter::Stop => return Wish::Stop,
            }
        }
        Wish::GoOn
    }

    /// Silences the bell, for a data plane that polls for it.
    pub fn silence(&self) -> io::Result<()> {
        self.bell.fd.read()?;
        Ok(())
    }

    /// Rings without a letter, so that a read of the bell that is under way ends.
    pub fn ring(&self) {
        let _ = self.bell.fd.write(1);
    }
}

impl AsFd for Receiver {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.bell.fd.as_fd()
    }
}

impl AsRawFd for Receiver {
    fn as_raw_fd(&self) -> RawFd {
        self.bell.fd.as_raw_fd()
    }
}
