//! The limit of a piece: what takes too long is given up, whatever it waits for.
//!
//! A piece hangs in a system call or in a wait of its own, so it cannot be asked to end. A thread beside it acts when the
//! time is over; that action ends the program.

use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::thread;
use std::time::Duration;

/// Watches as long as it lives.
#[derive(Debug)]
pub struct Limit {
    // Dropped with this value, which wakes the thread.
    _alive: Sender<()>,
}

impl Limit {
    /// Do `action` if this value still lives after `span`.
    pub fn watch(span: Duration, action: impl FnOnce() + Send + 'static) -> Self {
        let (alive, ended) = mpsc::channel();
        thread::spawn(move || {
            if ended.recv_timeout(span) == Err(RecvTimeoutError::Timeout) {
                action();
            }
        });
        Self { _alive: alive }
    }
}

#[cfg(test)]
mod tests {
    use super::Limit;
    use std::sync::mpsc;
    use std::time::Duration;

    #[test]
    fn what_lives_too_long_is_acted_upon_and_what_has_ended_is_not() {
        let (say, said) = mpsc::channel();
        let too_long = Limit::watch(Duration::ZERO, {
            let say = say.clone();
            move || say.send("too long").expect("somebody listens")
        });
        assert_eq!(said.recv(), Ok("too long"));
        drop(too_long);
        let in_time = Limit::watch(Duration::from_secs(3600), move || say.send("never").expect("listens"));
        drop(in_time);
        // The thread ends, and with it the last sender.
        assert!(said.recv().is_err());
    }
}
