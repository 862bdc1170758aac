//! The phases of a migration: one table, from which the drawing in the documentation and the tests come.
//!
//! ```text
//! pre-migration ► connect ► reservation ► bulk ► pre-copy ► stop-and-copy ► commitment ► resume ► readdress ► done
//!       │            │           │          │        │            │             │
//!       └────────────┴─────▲─────┴──────────┴────────┴────────────┘          in doubt: the destination's
//!                          │          rolling back ► rolled back              journal answers
//!                          └── recovering ◄── the link is lost, the pause lasts too long, the daemon is a new one
//! ```
//!
//! The guest stands still in stop-and-copy, commitment and resume. Until the source has journalled *releasing*, which
//! ends stop-and-copy, every failure leads back to the source (M2), and a lost link to another attempt: the guest goes
//! on, its disks stay in step, and the memory starts again.

use std::time::Duration;

use serde::{Deserialize, Serialize};

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

/// What a failure in a phase leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnFailure {
    /// The guest goes on at the source.
    RollBack,
    /// The destination's journal is asked until it answers.
    Ask,
    /// The guest is at the destination; what failed is reported, and done again.
    GoOn,
    /// There is nothing to fail.
    Stay,
}

/// A row of the table.
#[derive(Clone, Copy, Debug)]
pub struct Row {
    /// The phase.
    pub phase: Phase,
    /// Its name in events and status.
    pub name: &'static str,
    /// How long it may take at most; none: as long as it makes progress.
    pub deadline: Option<Duration>,
    /// Whether the guest stands still in it.
    pub paused: bool,
    /// Whether `cancel` is accepted in it (M5). A phase where it is not is only entered if none was accepted before.
    pub cancellable: bool,
    /// What a failure leads to.
    pub on_failure: OnFailure,
    /// Whether a lost link is a stall in it: the migration begins again, and does not fail.
    pub begins_again: bool,
    /// Which phases may follow.
    pub next: &'static [Phase],
}

/// The phases in order.
pub const TABLE: [Row; 14] = [
    row(Phase::PreMigration, "pre-migration", OnFailure::RollBack, &[Phase::Connect])
        .at_most(10)
        .cancellable(),
    row(Phase::Connect, "connect", OnFailure::RollBack, &[Phase::Reservation])
        .at_most(15)
        .cancellable()
        .again(),
    row(Phase::Reservation, "reservation", OnFailure::RollBack, &[Phase::Bulk])
        .at_most(60)
        .cancellable()
        .again(),
    row(Phase::Bulk, "bulk", OnFailure::RollBack, &[Phase::PreCopy]).cancellable().again(),
    row(Phase::PreCopy, "pre-copy", OnFailure::RollBack, &[Phase::StopAndCopy]).cancellable().again(),
    row(Phase::StopAndCopy, "stop-and-copy", OnFailure::RollBack, &[Phase::Commitment])
        .at_most(20)
        .paused()
        .cancellable()
        .again(),
    row(
        Phase::Commitment,
        "commitment",
        OnFailure::Ask,
        &[Phase::Resume, Phase::InDoubt, Phase::RollingBack, Phase::Recovering],
    )
    .paused(),
    row(Phase::Resume, "resume", OnFailure::Ask, &[Phase::Readdress, Phase::InDoubt, Phase::RollingBack])
        .paused(),
    row(Phase::Readdress, "readdress", OnFailure::GoOn, &[Phase::Done]).at_most(60),
    row(Phase::Done, "done", OnFailure::Stay, &[]),
    row(Phase::Recovering, "recovering", OnFailure::RollBack, &[Phase::Connect]).cancellable(),
    row(Phase::RollingBack, "rolling-back", OnFailure::RollBack, &[Phase::RolledBack]),
    row(Phase::RolledBack, "rolled-back", OnFailure::Stay, &[]),
    row(Phase::InDoubt, "in-doubt", OnFailure::Ask, &[Phase::Resume, Phase::RollingBack]).paused(),
];

/// A phase that lasts as long as it makes progress, with the guest running, and that no cancel ends.
const fn row(phase: Phase, name: &'static str, on_failure: OnFailure, next: &'static [Phase]) -> Row {
    let (deadline, paused, cancellable, begins_again) = (None, false, false, false);
    Row { phase, name, deadline, paused, cancellable, on_failure, begins_again, next }
}

impl Row {
    const fn at_most(self, seconds: u64) -> Self {
        Self { deadline: Some(Duration::from_secs(seconds)), ..self }
    }

    const fn paused(self) -> Self {
        Self { paused: true, ..self }
    }

    const fn cancellable(self) -> Self {
        Self { cancellable: true, ..self }
    }

    const fn again(self) -> Self {
        Self { begins_again: true, ..self }
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
        self.row().next.is_empty()
    }

    /// True where `next` may come after this phase: its own list, *rolling back* where a failure leads there, and
    /// *recovering* where a lost link does.
    pub fn may_become(self, next: Phase) -> bool {
        let row = self.row();
        row.next.contains(&next)
            || (next == Phase::RollingBack && row.on_failure == OnFailure::RollBack && self != next)
            || (next == Phase::Recovering && row.begins_again)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The table of `docs/migration.md`, from ours.
    fn documented() -> String {
        let mut text = String::from(
            "| phase | at most | guest | cancel | a failure leads to | a lost link leads to | next |\n|---|---|---|---|---|---|---|\n",
        );
        for row in &TABLE {
            let at_most = row
                .deadline
                .map_or("as long as it takes".to_owned(), |at_most| format!("{} s", at_most.as_secs()));
            let guest = if row.paused { "paused" } else { "runs" };
            let cancel = if row.cancellable { "yes" } else { "no" };
            let leads_to = match row.on_failure {
                OnFailure::RollBack => "the source",
                OnFailure::Ask => "the destination's journal",
                OnFailure::GoOn => "going on",
                OnFailure::Stay => "nothing",
            };
            let next: Vec<&str> = row.next.iter().map(|next| next.name()).collect();
            let next = if next.is_empty() { String::new() } else { format!("{} ", next.join(", ")) };
            let lost = if row.begins_again { "recovering" } else { leads_to };
            text +=
                &format!("| {} | {at_most} | {guest} | {cancel} | {leads_to} | {lost} | {next}|\n", row.name);
        }
        text
    }

    #[test]
    fn the_documentation_has_this_table() {
        let page = include_str!("../../docs/migration.md");
        let (_, rest) = page.split_once("<!-- phases: begin -->\n").expect("the table's begin");
        let (table, _) = rest.split_once("<!-- phases: end -->").expect("the table's end");
        assert_eq!(table, documented());
    }

    #[test]
    fn every_phase_has_one_row_and_all_but_the_first_follow_another() {
        for (index, row) in TABLE.iter().enumerate() {
            assert!(TABLE[index + 1..].iter().all(|other| other.phase != row.phase), "{} twice", row.name);
            let follows = TABLE.iter().any(|before| before.phase.may_become(row.phase));
            assert!(follows || row.phase == Phase::PreMigration, "nothing leads to {}", row.name);
        }
    }
}
