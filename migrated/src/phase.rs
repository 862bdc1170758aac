//! The phases of a migration and what is done in each: one table. The drawing and the table in `docs/migration.md`, the
//! decider of the source and the tests come from it.
//!
//! ```text
//! pre-migration ► connect ► reservation ► bulk ► pre-copy ► stop-and-copy ► releasing ║ commitment ► resume ► readdress ► done
//!       │            │           │          │        │            │             │     ║     │           │
//!       └────────────┴─────▲─────┴──────────┴────────┴────────────┴─────────────┘     ║     in doubt: the destination's
//!                          │          rolling back ► rolled back                      ║     journal answers
//!                          └── recovering ◄── the link is lost, the pause lasts too long, the daemon is a new one
//! ```
//!
//! The guest stands still from stop-and-copy to resume. Before the double line, the commit point, every failure leads
//! back to the source (M2), and a lost link to another attempt: the guest goes on, its disks stay in step, and the memory
//! starts again. After it only the destination's journal counts.

mod op;
mod table;

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::journal::Step;

pub use self::op::Op;
pub use self::table::TABLE;

/// Where a migration is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Phase {
    /// The guest and its host are looked at.
    PreMigration,
    /// The link was lost: the guest goes on at the source, and the migration begins again when there is a link.
    Recovering,
    /// The link is made.
    Connect,
    /// The destination looks at itself, reserves room, and starts what will receive.
    Reservation,
    /// The disks go over; every write of the guest follows as a delta.
    Bulk,
    /// Memory goes over, beside the deltas.
    PreCopy,
    /// The guest is paused: packets are rerouted, the disks sealed, the last memory sent.
    StopAndCopy,
    /// A last look at the link and at QEMU, then *releasing* is journalled: the commit point.
    Releasing,
    /// The destination takes the guest: from here on only its journal counts.
    Commitment,
    /// The guest starts at the destination.
    Resume,
    /// Names follow the guest; the source cleans up.
    Readdress,
    /// The guest runs at the destination, and nothing is left to do.
    Done,
    /// Something failed or was cancelled: the source is made whole again.
    RollingBack,
    /// The guest is at the source as it was.
    RolledBack,
    /// The destination may have taken the guest; it cannot be asked now. The guest stays paused.
    InDoubt,
}

/// How a migration ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    /// The guest is at the destination.
    Moved,
    /// It never began; the guest was not touched.
    Refused,
    /// It was cancelled; the guest is at the source.
    Cancelled,
    /// It failed; the guest is at the source.
    RolledBack,
    /// Nobody knows yet whether the destination has taken the guest; it stands still.
    InDoubt,
}

impl Outcome {
    /// Its name in reports and logs.
    pub fn name(self) -> &'static str {
        match self {
            Outcome::Moved => "moved",
            Outcome::Refused => "refused",
            Outcome::Cancelled => "cancelled",
            Outcome::RolledBack => "rolled-back",
            Outcome::InDoubt => "in-doubt",
        }
    }
}

/// How long a phase may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Deadline {
    /// As long as it takes.
    None,
    /// So long; then it has failed.
    After(Duration),
    /// So long in the first attempt. A later one waits for a link as long as the configuration says (`lease_ms`).
    OfTheFirstAttempt(Duration),
    /// As long as the configuration lets a guest stand still (`paused_deadline_ms`; this is its default). Then the guest
    /// goes on and the migration begins again, a few times ([`crate::source::LATE_PAUSES_MAX`]).
    OfAPause(Duration),
}

/// What a failure in a phase leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnFailure {
    /// The guest goes on at the source; in the first attempt before anything was copied that is called a refusal.
    Refuse,
    /// The guest goes on at the source.
    RollBack,
    /// The destination's journal is asked until it answers.
    Ask,
    /// The guest is at the destination; what failed is reported, and the rest is done.
    GoOn,
    /// Nothing: there is nothing to fail, or it is repeated until it succeeds.
    Stay,
}

/// What a lost link leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnLostLink {
    /// To what a failure leads to.
    Fail,
    /// The migration begins again.
    BeginAgain,
    /// Likewise, if one attempt has come as far as copying. A host that cannot be reached at the beginning, or that breaks
    /// off while it looks at the guest, refuses.
    BeginAgainOnceCopied,
}

/// What goes over in a phase.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Copies {
    /// Nothing.
    Nothing,
    /// The disks.
    Disks,
    /// The disks' deltas and the memory.
    Memory,
}

/// What ends a phase that does not fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LeftBy {
    /// All its operations have ended.
    Operations,
    /// Likewise, and what is left of the disks fits the time that is set.
    DisksNearlyDone,
    /// The destination says what its journal has.
    Verdict,
    /// Nothing: the migration is over.
    Nothing,
}

/// When an operation's promise is journalled. A promise is durable before anything that depends on it is done or said (M2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Promise {
    /// Before the operation begins; if it cannot be written, the operation has failed.
    Before(Step),
    /// When the operation has found all as it should be; if it cannot be written, the operation has failed.
    After(Step),
    /// Before the operation begins. If it cannot be written, that is told and the operation is done all the same: the guest
    /// is here either way, and does not wait for a disk that fails.
    IfPossible(Step),
}

impl Promise {
    /// What is promised.
    pub fn step(self) -> Step {
        match self {
            Promise::Before(step) | Promise::After(step) | Promise::IfPossible(step) => step,
        }
    }
}

/// An operation of a phase.
#[derive(Clone, Copy, Debug)]
pub struct Operation {
    /// What is done.
    pub op: Op,
    /// Operations of the same phase that come before it.
    pub after: &'static [Op],
    /// What is promised by it.
    pub promise: Option<Promise>,
}

/// A row of the table.
#[derive(Clone, Copy, Debug)]
pub struct Row {
    /// The phase.
    pub phase: Phase,
    /// Its name in events and status.
    pub name: &'static str,
    /// How long it may take at most.
    pub deadline: Deadline,
    /// Whether the guest stands still in it.
    pub paused: bool,
    /// Whether `cancel` is accepted in it (M5). A phase where it is not is only entered if none was accepted before. The
    /// guest is the source's in every phase where it is.
    pub cancellable: bool,
    /// What a failure leads to.
    pub on_failure: OnFailure,
    /// What a lost link leads to.
    pub on_lost_link: OnLostLink,
    /// What goes over in it.
    pub copies: Copies,
    /// What is done in it.
    pub operations: &'static [Operation],
    /// What ends it.
    pub left_by: LeftBy,
    /// Which phases may follow; the first one where nothing fails.
    pub next: &'static [Phase],
}

impl Row {
    /// True where the migration has to come nearer to its end all the time: something goes over, and the guest makes more.
    pub fn must_converge(&self) -> bool {
        self.copies > Copies::Nothing && !self.paused
    }
}

impl Phase {
    /// Its row.
    pub fn row(self) -> &'static Row {
        TABLE.iter().find(|row| row.phase == self).expect("every phase has a row")
    }

    /// Its name in events and status.
    pub fn name(self) -> &'static str {
        self.row().name
    }

    /// True where the migration has ended.
    pub fn is_final(self) -> bool {
        self.row().left_by == LeftBy::Nothing
    }

    /// True on the way back to the source, and at its end.
    pub fn is_way_back(self) -> bool {
        matches!(self, Phase::Recovering | Phase::RollingBack | Phase::RolledBack)
    }

    /// True where `next` may come after this phase: its own list, *rolling back* where a failure leads there, and
    /// *recovering* where a lost link does.
    pub fn may_become(self, next: Phase) -> bool {
        let row = self.row();
        row.next.contains(&next)
            || (next == Phase::RollingBack
                && matches!(row.on_failure, OnFailure::Refuse | OnFailure::RollBack))
            || (next == Phase::Recovering && row.on_lost_link != OnLostLink::Fail)
    }
}

#[cfg(test)]
mod tests;
