//! The table against its documentation, and what it must not say.

use super::*;

/// The table of `docs/migration.md`, from ours.
fn documented() -> String {
    let mut text = String::from(
        "| phase | at most | guest | cancel | a failure leads to | a lost link leads to | operations, and what they promise | left by | next |\n\
         |---|---|---|---|---|---|---|---|---|\n",
    );
    for row in &TABLE {
        let next: Vec<&str> = row.next.iter().map(|next| next.name()).collect();
        let operations: Vec<String> = row.operations.iter().map(operation).collect();
        let cells = [
            row.name.to_owned(),
            at_most(row.deadline),
            if row.paused { "paused" } else { "runs" }.to_owned(),
            if row.cancellable { "yes" } else { "no" }.to_owned(),
            failure(row.on_failure).to_owned(),
            match row.on_lost_link {
                OnLostLink::Fail => failure(row.on_failure),
                OnLostLink::BeginAgain => "recovering",
                OnLostLink::BeginAgainOnceCopied => "recovering, once copied",
            }
            .to_owned(),
            operations.join("; "),
            match row.left_by {
                LeftBy::Operations => "",
                LeftBy::DisksNearlyDone => "the disks are nearly done",
                LeftBy::Verdict => "the destination's verdict",
                LeftBy::Nothing => "nothing: it is the end",
            }
            .to_owned(),
            next.join(", "),
        ];
        let cells = cells.map(|cell| if cell.is_empty() { " ".to_owned() } else { format!(" {cell} ") });
        text += &format!("|{}|\n", cells.join("|"));
    }
    text
}

fn at_most(deadline: Deadline) -> String {
    match deadline {
        Deadline::None => "as long as it takes".to_owned(),
        Deadline::After(limit) | Deadline::OfAPause(limit) => format!("{} s", limit.as_secs()),
        Deadline::OfTheFirstAttempt(limit) => format!("{} s at first", limit.as_secs()),
    }
}

fn failure(on_failure: OnFailure) -> &'static str {
    match on_failure {
        OnFailure::Refuse => "the source, a refusal",
        OnFailure::RollBack => "the source",
        OnFailure::Ask => "the destination's journal",
        OnFailure::GoOn => "going on",
        OnFailure::Stay => "nothing",
    }
}

fn operation(operation: &Operation) -> String {
    let Operation { op, after, promise } = operation;
    let mut text = op.name().to_owned();
    if let Some(before) = after.first() {
        text += &format!(" after {}", before.name());
    }
    let name = |step: &Step| serde_json::to_value(step).unwrap().as_str().unwrap().to_owned();
    match promise {
        Some(Promise::Before(step)) => text += &format!(" (first *{}*)", name(step)),
        Some(Promise::After(step)) => text += &format!(" (then *{}*)", name(step)),
        Some(Promise::IfPossible(step)) => {
            text += &format!(" (first *{}*, if that can be written)", name(step))
        }
        None => {}
    }
    text
}

#[test]
fn the_documentation_has_this_table() {
    let page = include_str!("../../../docs/migration.md");
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

#[test]
fn every_operation_has_one_place_and_every_phase_can_end() {
    let all: Vec<&Operation> = TABLE.iter().flat_map(|row| row.operations).collect();
    for (index, operation) in all.iter().enumerate() {
        assert!(all[index + 1..].iter().all(|other| other.op != operation.op), "{:?} twice", operation.op);
    }
    for row in &TABLE {
        assert_eq!(row.operations.is_empty(), row.phase.is_final(), "{}", row.name);
        assert_eq!(row.next.is_empty(), row.phase.is_final(), "{}", row.name);
        for (index, operation) in row.operations.iter().enumerate() {
            let before = &row.operations[..index];
            assert!(operation.after.iter().all(|op| before.iter().any(|other| other.op == *op)));
        }
    }
}

#[test]
fn an_operation_is_written_as_it_is_named() {
    for op in TABLE.iter().flat_map(|row| row.operations).map(|operation| operation.op) {
        assert_eq!(serde_json::to_string(&op).unwrap(), format!("{:?}", op.name()));
    }
}

/// M2, M5: one commit point. Before it every failure leads back and something may end the pause; after it neither.
#[test]
fn the_commit_point_divides_the_table() {
    let is_before = |row: &Row| matches!(row.on_failure, OnFailure::Refuse | OnFailure::RollBack);
    for row in &TABLE {
        assert!(!row.cancellable || is_before(row), "{}", row.name);
        assert!(row.on_lost_link == OnLostLink::Fail || is_before(row), "{}", row.name);
        let may_stand_still_for_ever = row.paused && row.deadline == Deadline::None;
        assert!(!may_stand_still_for_ever || row.on_failure == OnFailure::Ask, "{}", row.name);
        for next in row.next.iter().filter(|next| next.row().on_failure == OnFailure::Ask) {
            let mut promises =
                row.operations.iter().filter_map(|operation| operation.promise).map(Promise::step);
            let commits = promises.any(|step| step == Step::Releasing);
            assert!(
                commits || !is_before(row),
                "{} leads to {} with nothing promised",
                row.name,
                next.name()
            );
        }
    }
}
