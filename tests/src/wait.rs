//! The one place where tests wait for something outside of them.
//!
//! A test never sleeps for a guessed time: it names a condition and a limit, and goes on the moment that the
//! condition holds. Between two looks the thread rests in `poll(2)`, with nothing to poll, for a few
//! milliseconds. The limit only decides when to give up, so a slow machine is slow and not red.

use std::time::{Duration, Instant};

use nix::poll::{PollTimeout, poll};

/// How long a test waits for a daemon, a guest or a tool before it gives up.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// Pause between two looks at a condition.
const LOOK_EVERY: Duration = Duration::from_millis(5);

/// Wait until `look` gives something, at most `limit`; panics with `what` otherwise.
pub fn wait_for<T>(limit: Duration, what: &str, look: impl FnMut() -> Option<T>) -> T {
    found_within(limit, look).unwrap_or_else(|| panic!("waited {limit:?} in vain for {what}"))
}

/// Wait until `holds` is true, at most `limit`; panics with `what` otherwise.
pub fn wait_until(limit: Duration, what: &str, mut holds: impl FnMut() -> bool) {
    wait_for(limit, what, || holds().then_some(()));
}

/// Wait until `look` gives something, at most `limit`.
pub fn found_within<T>(limit: Duration, mut look: impl FnMut() -> Option<T>) -> Option<T> {
    let deadline = Instant::now() + limit;
    loop {
        let found = look();
        if found.is_some() || Instant::now() >= deadline {
            return found;
        }
        rest(LOOK_EVERY);
    }
}

/// Let a part of the system run for `span`. For pacing load, never for waiting for a result.
pub fn rest(span: Duration) {
    let timeout = PollTimeout::try_from(span).unwrap_or(PollTimeout::MAX);
    // A signal ends the rest early, which is harmless to both callers.
    let _ = poll(&mut [], timeout);
}
