//! What happens at its time in a simulated migration.

use migrated::phase::Op;

use super::wire::Said;
use super::world::{Part, Side};

/// Something that happens at its time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Happening {
    /// An operation of the source goes on; those of an older turn were stopped.
    Goes(u32, Op, Stretch),
    /// What is left of the disks fits.
    NearlyDone(u32),
    /// The last memory, as new as a write, has come by a link.
    Moved(u8, u8),
    /// The destination's QEMU says so.
    Loaded(u8),
    /// The destination says by a link that the guest cannot come.
    Fails(u8),
    /// A word arrives.
    Arrives(Said),
    /// A side finds that a link is dead.
    Notices(Side, u8),
    /// The destination does its next step.
    Step,
    /// The destination has asked whose the guest is.
    Answered,
    /// The guest writes.
    Write,
    /// Somebody sends it.
    Send,
    /// Somebody cancels that.
    Cancel,
    /// The way between the sites is cut, for so many milliseconds.
    Cut(u64),
    /// It is back.
    Mended,
    /// Something dies, for so many milliseconds.
    Dies(Side, Part, u64),
    /// A daemon is started.
    Restarts(Side),
}

/// Which stretch of an operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stretch {
    /// What it does.
    Deed,
    /// Its end.
    End,
    /// It was not answered in time.
    Unanswered,
}
