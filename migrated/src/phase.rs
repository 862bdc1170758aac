//! The phases of a migration: one table, from which the drawing in the documentation and the tests come.
//!
//! ```text
//! pre-migration ► connect ► reservation ► bulk ► pre-copy ► stop-and-copy ► commitment ► resume ► readdress ► done
//!       │            │           │          │        │            │             │
//!       └────────────┴───────────┴──────────┴────────┴────────────┘          in doubt: the destination's
//!                     rolling back ► rolled back                              journal answers
//! ```
//!
//! The guest stands still in stop-and-copy, commitment and resume. Until the source has journalled *releasing*, which
//! ends stop-and-copy, every failure leads back to the source (M2).

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Where a migration is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Phase {
    /// The guest and its host are looked at.
    PreMigration,
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
    /// Which phases may follow.
    pub next: &'static [Phase],
}

/// The phases in order.
pub const TABLE: [Row; 13] = [
    row(Phase::PreMigration, "pre-migration", Some(10), false, true, OnFailure::RollBack, &[Phase::Connect]),
    row(Phase::Connect, "connect", Some(15), false, true, OnFailure::RollBack, &[Phase::Reservation]),
    row(Phase::Reservation, "reservation", Some(60), false, true, OnFailure::RollBack, &[Phase::Bulk]),
    row(Phase::Bulk, "bulk", None, false, true, OnFailure::RollBack, &[Phase::PreCopy]),
    row(Phase::PreCopy, "pre-copy", None, false, true, OnFailure::RollBack, &[Phase::StopAndCopy]),
    row(Phase::StopAndCopy, "stop-and-copy", Some(20), true, true, OnFailure::RollBack, &[Phase::Commitment]),
    row(
        Phase::Commitment,
        "commitment",
        None,
        true,
        false,
        OnFailure::Ask,
        &[Phase::Resume, Phase::InDoubt, Phase::RollingBack],
    ),
    row(Phase::Resume, "resume", None, true, false, OnFailure::GoOn, &[Phase::Readdress]),
    row(Phase::Readdress, "readdress", Some(60), false, false, OnFailure::GoOn, &[Phase::Done]),
    row(Phase::Done, "done", None, false, false, OnFailure::Stay, &[]),
    row(Phase::RollingBack, "rolling-back", None, false, false, OnFailure::RollBack, &[Phase::RolledBack]),
    row(Phase::RolledBack, "rolled-back", None, false, false, OnFailure::Stay, &[]),
    row(Phase::InDoubt, "in-doubt", None, true, false, OnFailure::Ask, &[Phase::Resume, Phase::RollingBack]),
];

const fn row(
    phase: Phase,
    name: &'static str,
    deadline_s: Option<u64>,
    paused: bool,
    cancellable: bool,
    on_failure: OnFailure,
    next: &'static [Phase],
) -> Row {
    let deadline = match deadline_s {
        Some(seconds) => Some(Duration::from_secs(seconds)),
        None => None,
    };
    Row { phase, name, deadline, paused, cancellable, on_failure, next }
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

    /// True where `next` may come after this phase: its own list, and *rolling back* where a failure leads there.
    pub fn may_become(self, next: Phase) -> bool {
        let row = self.row();
        row.next.contains(&next)
            || (next == Phase::RollingBack && row.on_failure == OnFailure::RollBack && self != next)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The table of `docs/migration.md`, from ours.
    fn documented() -> String {
        let mut text = String::from(
            "| phase | at most | guest | cancel | a failure leads to | next |\n|---|---|---|---|---|---|\n",
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
            text += &format!("| {} | {at_most} | {guest} | {cancel} | {leads_to} | {next}|\n", row.name);
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
