//! The one clock: time since the process asked first, for all the code that takes `now`.

use std::sync::OnceLock;
use std::time::{Duration, Instant};

/// Monotonic time since the first call in this process.
pub fn now() -> Duration {
    static START: OnceLock<Instant> = OnceLock::new();
    START.get_or_init(Instant::now).elapsed()
}

#[cfg(test)]
mod tests {
    use super::now;

    #[test]
    fn time_never_runs_backwards() {
        let first = now();
        assert!(now() >= first);
    }
}
