//! What the decider is told, and what it says: events in, actions out.

use crate::phase::{Op, Phase, Promise};

/// What happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// An operation ended well, and its promise is durable.
    Finished(Op),
    /// An operation ended badly, and why.
    Failed(Op, Failure),
    /// Looking at the guest has found that it cannot move. What else stands in the way is collected; nothing is begun.
    CannotMove,
    /// Something else failed that the migration cannot go on without.
    Broken(String),
    /// The link is over, and with it what the destination had of the memory.
    LinkLost(String),
    /// QEMU or the destination said something.
    Notice(Notice),
    /// Somebody wants it to end. Nothing comes of it once *releasing* is being journalled.
    Cancelled,
    /// What is left of the disks fits the time that was set.
    DisksNearlyDone,
    /// It does not come nearer to its end, or has taken too long.
    NotConverging(String),
    /// The destination's journal says what it promised; or an operator does, who knows that it is gone for good.
    Verdict {
        /// It has the guest.
        taken: bool,
    },
}

/// Why an operation failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// In words.
    pub why: String,
    /// What it comes of.
    pub cause: Cause,
}

/// What the failure of an operation comes of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Cause {
    /// QEMU is gone. Who notices its end says why.
    Qemu,
    /// The link is over; the words say how it ended.
    Link(String),
    /// Anything else.
    Other,
}

/// Something that was said without being asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Notice {
    /// QEMU: the guest stands still.
    Stop,
    /// QEMU: the guest goes on.
    Resume,
    /// QEMU: a request of the guest to its own disk failed; the words say which, and what to do.
    DiskFailed(String),
    /// QEMU: the guest is switching itself off.
    Shutdown,
    /// QEMU: the guest has restarted itself.
    Reset,
    /// QEMU is gone.
    QemuEnded,
    /// The destination: it cannot take the guest. The words say who says so, and why.
    PeerFailed(String),
    /// The destination's control channel has ended; the words say how.
    PeerGone(String),
}

/// What led a migration back to its source, or to doubt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Turn {
    /// How far it had come, as others have seen it: a phase that is left in the moment in which it is entered was never
    /// there.
    pub phase: Phase,
    /// The operation that failed; none: something else did.
    pub op: Option<Op>,
    /// Why.
    pub reason: String,
}

/// What is to be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// A phase has begun.
    Enter(Phase),
    /// Start an operation. Its promise is journalled as the promise says, by whoever starts it.
    Start(Op, Option<Promise>),
    /// Stop all operations that run; nothing is heard of them any more.
    StopAll,
    /// The guest stands still for the move from now on.
    NotePause,
    /// Tell what happened.
    Note(String),
    /// Likewise; somebody should look at it.
    Warn(String),
}
