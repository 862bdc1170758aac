//! Whose turn it is: emulated guests are heavy, and two worlds with guests keep a small machine busy.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

/// Worlds with guests that stand at the same time, of one test program.
const AT_A_TIME: usize = 2;

static STANDING: Mutex<usize> = Mutex::new(0);
static ONE_IS_GONE: Condvar = Condvar::new();

/// The right to a world with guests, given back when it is dropped.
#[derive(Debug)]
pub struct Turn(());

impl Turn {
    /// Wait for it, as long as others take.
    pub fn wait() -> Self {
        let mut standing = ONE_IS_GONE
            .wait_while(lock(), |standing| *standing >= AT_A_TIME)
            .unwrap_or_else(PoisonError::into_inner);
        *standing += 1;
        Self(())
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        *lock() -= 1;
        ONE_IS_GONE.notify_one();
    }
}

fn lock() -> MutexGuard<'static, usize> {
    // A number cannot be half changed by a test that panics.
    STANDING.lock().unwrap_or_else(PoisonError::into_inner)
}
