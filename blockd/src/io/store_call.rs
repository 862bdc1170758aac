//! Runs a store call to its end on the calling thread.

use std::io;

use crate::extent::Extent;
use crate::store::{BlockStore, Trimmed};
use crate::volume::{StoreAction, StoreOutcome};

/// Runs `action`; `buf` is the op's buffer.
pub fn execute(store: &dyn BlockStore, action: StoreAction, extent: Extent, buf: &mut [u8]) -> StoreOutcome {
    let done = |()| Trimmed::Unspecified;
    let result = match action {
        StoreAction::Read => store.read_at(buf, extent.offset).map(done),
        StoreAction::Write { durable } => store.write_at(buf, extent.offset, durable).map(done),
        StoreAction::Flush => store.flush().map(done),
        StoreAction::Trim => store.trim(extent),
        StoreAction::Zero { allocate } => store.zero(extent, allocate).map(done),
    };
    result.map_err(|error| errno_of(&error))
}

/// The errno behind an error; `EIO` where there is none.
pub fn errno_of(error: &io::Error) -> i32 {
    error.raw_os_error().unwrap_or(libc::EIO)
}
