//! The meeting point of the guest's writes and the replica's stream.
//!
//! ```text
//! data plane ── begin, finish ──► Recording { tracker, source } ◄── poll, handle_* ── sender
//!                                                               ◄── handle_frame ──── receiver
//! ```
//!
//! One lock, held for microseconds and never over I/O. A write wakes the sender only when there is
//! something worth sending. Nothing here waits for the replica.

use std::ops::{Deref, DerefMut};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use throttle::Meter;

use crate::replica::source::Source;
use crate::tracker::Tracker;

/// A recorded disk: what changed, and what of it goes next.
pub struct Recording {
    /// Every change from start to acknowledgement.
    pub tracker: Tracker,
    /// The stream.
    pub source: Source,
    /// Deltas recorded, second by second.
    pub deltas: Meter,
    sender_waits: bool,
}

struct Shared {
    recording: Mutex<Recording>,
    changed: Condvar,
    progress: Condvar,
}

/// A handle to a recording; clones refer to the same.
#[derive(Clone)]
pub struct Recorder(Arc<Shared>);

impl std::fmt::Debug for Recorder {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("Recorder")
    }
}

impl Recorder {
    /// A recording of a disk.
    pub fn new(tracker: Tracker, source: Source) -> Self {
        let recording =
            Mutex::new(Recording { tracker, source, deltas: Meter::default(), sender_waits: false });
        Self(Arc::new(Shared { recording, changed: Condvar::new(), progress: Condvar::new() }))
    }

    /// The recording, for a moment.
    pub fn lock(&self) -> Guard<'_> {
        // A panic elsewhere under this lock ends the process: the supervisor starts it anew.
        Guard(self.0.recording.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Wakes the sender.
    pub fn wake(&self) {
        self.0.changed.notify_all();
    }

    /// Wakes the sender if it waits for a change like the one just recorded.
    pub fn wake_for_change(&self, mut guard: Guard<'_>) {
        let Recording { tracker, source, sender_waits, .. } = &mut *guard.0;
        if *sender_waits && source.wakes_for_change(tracker) {
            *sender_waits = false;
            self.0.changed.notify_all();
        }
    }

    /// Says that the stream got on.
    pub fn announce_progress(&self) {
        self.0.progress.notify_all();
    }

    /// Gives the lock up until the stream got on, or for at most `timeout`.
    pub fn wait_for_progress<'a>(&'a self, guard: Guard<'a>, timeout: Duration) -> Guard<'a> {
        let waited = self.0.progress.wait_timeout(guard.0, timeout);
        Guard(waited.unwrap_or_else(PoisonError::into_inner).0)
    }

    /// Gives the lock up until something worth sending changed, or for at most `timeout`.
    pub fn wait<'a>(&'a self, mut guard: Guard<'a>, timeout: Duration) -> Guard<'a> {
        guard.0.sender_waits = true;
        let waited = self.0.changed.wait_timeout(guard.0, timeout);
        let (mut guard, _) = waited.unwrap_or_else(PoisonError::into_inner);
        guard.sender_waits = false;
        Guard(guard)
    }
}

/// Exclusive access to a recording.
pub struct Guard<'a>(MutexGuard<'a, Recording>);

impl Deref for Guard<'_> {
    type Target = Recording;
    fn deref(&self) -> &Recording {
        &self.0
    }
}

impl DerefMut for Guard<'_> {
    fn deref_mut(&mut self) -> &mut Recording {
        &mut self.0
    }
}
