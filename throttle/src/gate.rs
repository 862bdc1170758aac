//! Enforces limits: says when the reply to a write may go out.

use std::time::Duration;

use crate::Limits;

/// The limits in force on one disk, and the time of the last delayed release.
#[derive(Debug)]
pub struct WriteGate {
    limits: Limits,
    expires_at: Duration,
    free_left: u64,
    last_release: Duration,
}

impl Default for WriteGate {
    fn default() -> Self {
        Self {
            limits: Limits::NONE,
            expires_at: Duration::ZERO,
            free_left: u64::MAX,
            last_release: Duration::ZERO,
        }
    }
}

impl WriteGate {
    /// Replaces the limits in force, from `now` on.
    pub fn set_limits(&mut self, limits: Limits, now: Duration) {
        self.limits = limits;
        self.expires_at = now.saturating_add(limits.valid_for);
        self.free_left = limits.free_writes;
    }

    /// Counts one completed write and returns when its reply may be sent: `now` if undelayed.
    ///
    /// D14: a delayed release comes one delay after the previous release, so that queue depth
    /// does not defeat the limit.
    pub fn handle_write(&mut self, now: Duration) -> Duration {
        if now >= self.expires_at || self.limits.delay.is_zero() {
            return now;
        }
        if self.free_left > 0 {
            self.free_left -= 1;
            return now;
        }
        self.last_release = self.last_release.max(now) + self.limits.delay;
        self.last_release
    }

    /// Forgets queued delays: the caller sends everything it holds back.
    pub fn release_all(&mut self) {
        self.last_release = Duration::ZERO;
    }
}
