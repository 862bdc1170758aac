//! The table: every phase with all that holds for it. Nothing else decides what a phase is.

use std::time::Duration;

use super::{Copies, Deadline, LeftBy, OnFailure, OnLostLink, Op, Operation, Phase, Promise, Row};
use crate::journal::Step;

/// The phases in order.
pub const TABLE: [Row; 15] = [
    row(Phase::PreMigration, "pre-migration", &[does(Op::Inspect)], &[Phase::Connect])
        .at_most(10)
        .at_source(OnFailure::Refuse, OnLostLink::Fail),
    Row {
        deadline: Deadline::OfTheFirstAttempt(Duration::from_secs(15)),
        ..row(Phase::Connect, "connect", &[does(Op::Connect)], &[Phase::Reservation])
            .at_source(OnFailure::Refuse, OnLostLink::BeginAgainOnceCopied)
    },
    row(
        Phase::Reservation,
        "reservation",
        &[does(Op::Reserve).promising(Promise::Before(Step::Begun))],
        &[Phase::Bulk],
    )
    .at_most(60)
    .at_source(OnFailure::Refuse, OnLostLink::BeginAgainOnceCopied),
    Row {
        copies: Copies::Disks,
        left_by: LeftBy::DisksNearlyDone,
        ..row(Phase::Bulk, "bulk", &[does(Op::Replicate), does(Op::PreparePath)], &[Phase::PreCopy])
            .at_source(OnFailure::RollBack, OnLostLink::BeginAgain)
    },
    Row {
        copies: Copies::Memory,
        ..row(
            Phase::PreCopy,
            "pre-copy",
            &[does(Op::StartRam), does(Op::AwaitPause).after(&[Op::StartRam])],
            &[Phase::StopAndCopy],
        )
        .at_source(OnFailure::RollBack, OnLostLink::BeginAgain)
    },
    Row {
        deadline: Deadline::OfAPause(Duration::from_secs(20)),
        paused: true,
        copies: Copies::Memory,
        ..row(
            Phase::StopAndCopy,
            "stop-and-copy",
            &[does(Op::SwitchPath), does(Op::Seal), does(Op::FinishRam), does(Op::AwaitLoaded)],
            &[Phase::Releasing],
        )
        .at_source(OnFailure::RollBack, OnLostLink::BeginAgain)
    },
    Row {
        paused: true,
        cancellable: false,
        ..row(
            Phase::Releasing,
            "releasing",
            &[does(Op::Release).promising(Promise::After(Step::Releasing))],
            &[Phase::Commitment],
        )
        .at_most(10)
        .at_source(OnFailure::RollBack, OnLostLink::BeginAgain)
    },
    Row {
        paused: true,
        left_by: LeftBy::Verdict,
        ..row(
            Phase::Commitment,
            "commitment",
            &[does(Op::HandOver)],
            &[Phase::Resume, Phase::InDoubt, Phase::RollingBack],
        )
    },
    Row {
        paused: true,
        ..row(
            Phase::Resume,
            "resume",
            &[does(Op::AwaitRunning)],
            &[Phase::Readdress, Phase::InDoubt, Phase::RollingBack],
        )
    },
    Row {
        on_failure: OnFailure::GoOn,
        ..row(
            Phase::Readdress,
            "readdress",
            &[
                does(Op::Fence).promising(Promise::Before(Step::Released)),
                does(Op::Readdress),
                does(Op::CleanUp).after(&[Op::Fence]),
            ],
            &[Phase::Done],
        )
        .at_most(60)
    },
    row(Phase::Done, "done", &[], &[]).is_the_end(),
    row(Phase::Recovering, "recovering", &[does(Op::Retreat)], &[Phase::Connect])
        .at_source(OnFailure::RollBack, OnLostLink::Fail),
    Row {
        on_failure: OnFailure::Stay,
        ..row(
            Phase::RollingBack,
            "rolling-back",
            &[
                does(Op::Restore).promising(Promise::IfPossible(Step::RollingBack)),
                does(Op::CallOff).after(&[Op::Restore]).promising(Promise::IfPossible(Step::RolledBack)),
            ],
            &[Phase::RolledBack],
        )
    },
    row(Phase::RolledBack, "rolled-back", &[], &[]).is_the_end(),
    Row {
        paused: true,
        left_by: LeftBy::Verdict,
        ..row(Phase::InDoubt, "in-doubt", &[does(Op::AskVerdict)], &[Phase::Resume, Phase::RollingBack])
    },
];

/// A phase after the commit point with the guest running: it lasts as long as it takes, and no cancel ends it.
const fn row(
    phase: Phase,
    name: &'static str,
    operations: &'static [Operation],
    next: &'static [Phase],
) -> Row {
    Row {
        phase,
        name,
        deadline: Deadline::None,
        paused: false,
        cancellable: false,
        on_failure: OnFailure::Ask,
        on_lost_link: OnLostLink::Fail,
        copies: Copies::Nothing,
        operations,
        left_by: LeftBy::Operations,
        next,
    }
}

impl Row {
    const fn at_most(self, seconds: u64) -> Self {
        Self { deadline: Deadline::After(Duration::from_secs(seconds)), ..self }
    }

    /// Before the commit point: a cancel ends it.
    const fn at_source(self, on_failure: OnFailure, on_lost_link: OnLostLink) -> Self {
        Self { cancellable: true, on_failure, on_lost_link, ..self }
    }

    const fn is_the_end(self) -> Self {
        Self { on_failure: OnFailure::Stay, left_by: LeftBy::Nothing, ..self }
    }
}

const fn does(op: Op) -> Operation {
    Operation { op, after: &[], promise: None }
}

impl Operation {
    const fn after(self, after: &'static [Op]) -> Self {
        Self { after, ..self }
    }

    const fn promising(self, promise: Promise) -> Self {
        Self { promise: Some(promise), ..self }
    }
}
