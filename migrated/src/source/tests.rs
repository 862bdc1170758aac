//! Every state of a migration at its source against every event.

use super::*;
use crate::journal::Step;
use crate::phase::TABLE;

const LIMITS: Limits = Limits { paused: Duration::from_secs(20), retry: Duration::from_secs(7200) };
const T0: Duration = Duration::ZERO;

fn started(migration: &mut Source) -> Vec<Op> {
    let mut ops = Vec::new();
    while let Some(action) = migration.poll_action() {
        match action {
            Action::Start(op, _) => ops.push(op),
            Action::StopAll => ops.clear(),
            Action::Enter(_) | Action::Note(_) | Action::Warn(_) | Action::NotePause => {}
        }
    }
    ops
}

fn failed(op: Op, why: &str) -> Event {
    Event::Failed(op, Failure { why: why.to_owned(), cause: Cause::Other })
}

/// A migration that has just reached `goal` on the straight way.
fn at(goal: Phase) -> Source {
    let mut migration = Source::new(LIMITS, T0);
    let mut running = started(&mut migration);
    while migration.phase() != goal {
        match migration.phase() {
            Phase::Commitment if goal == Phase::InDoubt => {
                migration.handle(failed(Op::HandOver, "no answer"), T0);
            }
            Phase::Commitment => migration.handle(Event::Verdict { taken: true }, T0),
            Phase::Bulk if goal == Phase::RollingBack || goal == Phase::RolledBack => {
                migration.handle(Event::Broken("on purpose".into()), T0);
            }
            Phase::Bulk if goal == Phase::Recovering => {
                migration.handle(Event::LinkLost("on purpose".into()), T0);
            }
            Phase::Bulk => migration.handle(Event::DisksNearlyDone, T0),
            _ => {}
        }
        running.extend(started(&mut migration));
        if migration.phase() != goal && !running.is_empty() {
            let op = running.remove(0);
            migration.handle(Event::Finished(op), T0);
            running.extend(started(&mut migration));
        }
    }
    migration
}

#[test]
fn the_straight_way_passes_every_phase_in_order() {
    let mut migration = Source::new(LIMITS, T0);
    let mut phases = Vec::new();
    let mut running: Vec<Op> = Vec::new();
    while !migration.phase().is_final() {
        while let Some(action) = migration.poll_action() {
            match action {
                Action::Enter(phase) => phases.push(phase),
                Action::Start(op, _) => running.push(op),
                other => panic!("{other:?} on the straight way"),
            }
        }
        match migration.phase() {
            Phase::Commitment => {
                running.clear();
                migration.handle(Event::Verdict { taken: true }, T0);
                // The operation that brought the verdict has ended, too.
                assert_eq!(migration.poll_action(), Some(Action::StopAll));
            }
            Phase::Bulk if running.is_empty() => migration.handle(Event::DisksNearlyDone, T0),
            _ => migration.handle(Event::Finished(running.remove(0)), T0),
        }
    }
    let names: Vec<&str> = phases.iter().map(|phase| phase.name()).collect();
    let expected = [
        "pre-migration",
        "connect",
        "reservation",
        "bulk",
        "pre-copy",
        "stop-and-copy",
        "releasing",
        "commitment",
        "resume",
        "readdress",
    ];
    assert_eq!(names, expected);
    assert_eq!((migration.phase(), migration.outcome()), (Phase::Done, Some(Outcome::Moved)));
}

#[test]
fn releasing_comes_after_everything_that_m7_asks_for_in_any_order() {
    let wanted = [Op::SwitchPath, Op::Seal, Op::FinishRam, Op::AwaitLoaded];
    for first in 0..4 {
        let mut migration = at(Phase::StopAndCopy);
        for step in 0..4 {
            assert_eq!(migration.phase(), Phase::StopAndCopy, "after {step}");
            migration.handle(Event::Finished(wanted[(first + step) % 4]), T0);
        }
        assert_eq!(migration.phase(), Phase::Releasing);
        assert_eq!(
            started(&mut migration).last(),
            Some(&Op::Release),
            "and nothing is handed over before it"
        );
    }
}

#[test]
fn releasing_divides_what_rolls_back_from_what_only_the_destination_knows() {
    for event in [failed(Op::Release, "the disk is full"), Event::Broken("x".into()), Event::Cancelled] {
        let mut migration = at(Phase::Releasing);
        migration.handle(event.clone(), T0);
        assert_eq!(migration.phase(), Phase::RollingBack, "{event:?}");
        assert_eq!(started(&mut migration), [Op::Restore]);
    }
    let mut migration = at(Phase::Commitment);
    migration.handle(Event::Cancelled, T0);
    assert_eq!(migration.phase(), Phase::Commitment);
    migration.handle(Event::Verdict { taken: false }, T0);
    assert_eq!(migration.phase(), Phase::RollingBack, "it has promised never to take it");
}

#[test]
fn what_was_not_started_when_a_phase_ends_is_never_started() {
    let mut migration = Source::new(LIMITS, T0);
    migration.handle(Event::Cancelled, T0);
    let mut starts = Vec::new();
    while let Some(action) = migration.poll_action() {
        if let Action::Start(op, _) = action {
            starts.push(op);
        }
    }
    assert_eq!(starts, [Op::Restore]);
}

#[test]
fn every_failure_in_every_phase_leads_where_the_table_says() {
    for row in &TABLE {
        let mut migration = at(row.phase);
        migration.handle(Event::Broken("on purpose".into()), T0);
        let expected = match row.on_failure {
            OnFailure::Stay | OnFailure::GoOn => row.phase,
            OnFailure::Refuse | OnFailure::RollBack => Phase::RollingBack,
            OnFailure::Ask => Phase::InDoubt,
        };
        assert_eq!(migration.phase(), expected, "from {}", row.name);
    }
}

#[test]
fn a_cancel_ends_every_phase_that_accepts_one_and_no_other() {
    // One that was accepted a moment before *releasing* began is carried out.
    for row in TABLE.iter().filter(|row| row.phase != Phase::Releasing) {
        let mut migration = at(row.phase);
        migration.handle(Event::Cancelled, T0);
        if row.cancellable {
            assert_eq!(
                (migration.phase(), migration.outcome()),
                (Phase::RollingBack, Some(Outcome::Cancelled))
            );
            migration.handle(Event::Finished(Op::Restore), T0);
            migration.handle(Event::Finished(Op::CallOff), T0);
            assert_eq!(
                (migration.phase(), migration.outcome()),
                (Phase::RolledBack, Some(Outcome::Cancelled))
            );
        } else {
            assert_eq!(migration.phase(), row.phase, "{}", row.name);
        }
    }
}

#[test]
fn what_fails_before_anything_was_copied_is_a_refusal() {
    for phase in [Phase::PreMigration, Phase::Connect, Phase::Reservation] {
        let mut migration = at(phase);
        migration.handle(Event::Broken("no room".into()), T0);
        assert_eq!(migration.outcome(), Some(Outcome::Refused));
        assert_eq!(migration.reasons(), ["no room"]);
    }
}

#[test]
fn once_the_guest_has_moved_a_failure_is_told_and_the_rest_is_done() {
    let mut migration = at(Phase::Readdress);
    migration.handle(failed(Op::Readdress, "DNS says no"), T0);
    assert_eq!(migration.phase(), Phase::Readdress, "the source is not cleaned up yet");
    migration.handle(Event::Finished(Op::Fence), T0);
    assert_eq!(started(&mut migration).last(), Some(&Op::CleanUp), "blockd is fenced before it is ended");
    migration.handle(Event::Finished(Op::CleanUp), T0);
    assert_eq!((migration.phase(), migration.outcome()), (Phase::Done, Some(Outcome::Moved)));
    assert_eq!(migration.reasons(), ["DNS says no"]);
}

#[test]
fn in_doubt_only_the_verdict_counts() {
    for taken in [true, false] {
        let mut migration = at(Phase::InDoubt);
        for event in [
            Event::Broken("x".into()),
            Event::Cancelled,
            Event::Finished(Op::AskVerdict),
            Event::DisksNearlyDone,
            Event::NotConverging("x".into()),
        ] {
            migration.handle(event, T0);
            assert_eq!((migration.phase(), migration.outcome()), (Phase::InDoubt, Some(Outcome::InDoubt)));
        }
        migration.handle(Event::Verdict { taken }, T0);
        assert_eq!(migration.phase(), if taken { Phase::Resume } else { Phase::RollingBack });
    }
}

#[test]
fn what_does_not_converge_is_given_up_unless_the_guest_is_paused_already() {
    for row in &TABLE {
        let mut migration = at(row.phase);
        migration.handle(Event::NotConverging("too slow".into()), T0);
        let is_given_up = matches!(row.phase, Phase::Bulk | Phase::PreCopy);
        assert_eq!(row.must_converge(), is_given_up);
        assert_eq!(migration.phase() == row.phase, !is_given_up, "{}", row.name);
        if is_given_up {
            let (phase, outcome) = (migration.phase(), migration.outcome());
            assert_eq!((phase, outcome), (Phase::RollingBack, Some(Outcome::RolledBack)));
            assert_eq!(migration.reasons(), ["too slow"]);
        }
    }
}

#[test]
fn a_phase_that_lasts_too_long_fails_and_names_what_it_waits_for() {
    for row in &TABLE {
        let mut migration = at(row.phase);
        let Some(at) = migration.poll_timeout() else { continue };
        migration.handle_timeout(at - Duration::from_nanos(1));
        assert_eq!(migration.phase(), row.phase, "too early");
        migration.handle_timeout(at);
        assert_ne!(migration.phase(), row.phase, "{} has no end", row.name);
        if migration.phase() != Phase::Recovering {
            assert!(migration.reasons().last().unwrap().contains(row.name));
        }
    }
    for row in TABLE.iter().filter(|row| row.paused && row.on_failure == OnFailure::RollBack) {
        assert!(
            at(row.phase).poll_timeout().is_some(),
            "the guest could stand still for ever in {}",
            row.name
        );
    }
}

#[test]
fn what_a_stopped_operation_says_is_not_heard() {
    let mut migration = at(Phase::PreCopy);
    migration.handle(Event::Broken("QEMU has died".into()), T0);
    migration.handle(failed(Op::StartRam, "stopped"), T0);
    migration.handle(Event::Finished(Op::StartRam), T0);
    assert_eq!(
        (migration.phase(), migration.reasons()),
        (Phase::RollingBack, &["QEMU has died".to_owned()][..])
    );
}

#[test]
fn a_lost_link_leads_to_another_attempt_until_something_is_promised() {
    for row in &TABLE {
        let mut migration = at(row.phase);
        migration.handle(Event::LinkLost("the router is gone".into()), T0);
        let expected = match row.on_failure {
            _ if row.on_lost_link == OnLostLink::BeginAgain => Phase::Recovering,
            OnFailure::Refuse | OnFailure::RollBack => Phase::RollingBack,
            OnFailure::Ask => Phase::InDoubt,
            OnFailure::GoOn | OnFailure::Stay => row.phase,
        };
        assert_eq!(migration.phase(), expected, "from {}", row.name);
    }
}

#[test]
fn another_attempt_goes_through_the_same_phases_and_may_wait_long_for_its_link() {
    let mut migration = Source::taken_up(AtSource::Retry, LIMITS, T0).unwrap();
    assert_eq!(started(&mut migration), [Op::Retreat]);
    migration.handle(Event::Finished(Op::Retreat), T0);
    assert_eq!((migration.phase(), started(&mut migration)), (Phase::Connect, vec![Op::Connect]));
    assert_eq!(migration.poll_timeout(), Some(LIMITS.retry));
    migration.handle(Event::Finished(Op::Connect), T0);
    migration.handle(Event::LinkLost("again".into()), T0);
    assert_eq!(migration.phase(), Phase::Recovering, "this one had begun before");
    migration.handle(Event::Finished(Op::Retreat), T0);
    migration.handle(failed(Op::Connect, "not paired any more"), T0);
    assert_eq!((migration.phase(), migration.outcome()), (Phase::RollingBack, Some(Outcome::RolledBack)));
}

/// M3: the guest goes on and the migration too; a destination that never gets ready is given up in the end.
#[test]
fn a_guest_that_is_paused_too_long_goes_on_and_is_paused_again_a_few_times_at_most() {
    let mut migration = at(Phase::StopAndCopy);
    for pause in 0.. {
        let at = migration.poll_timeout().unwrap();
        migration.handle_timeout(at);
        if pause == LATE_PAUSES_MAX {
            break;
        }
        assert_eq!(migration.phase(), Phase::Recovering);
        let mut running = started(&mut migration);
        while migration.phase() != Phase::StopAndCopy {
            if migration.phase() == Phase::Bulk && running.is_empty() {
                migration.handle(Event::DisksNearlyDone, at);
            } else {
                migration.handle(Event::Finished(running.remove(0)), at);
            }
            running.extend(started(&mut migration));
        }
    }
    assert_eq!((migration.phase(), migration.outcome()), (Phase::RollingBack, Some(Outcome::RolledBack)));
}

/// M8: the destination may hand the guest back until it has run there, and nothing is given up here before that.
#[test]
fn a_guest_that_was_taken_and_handed_back_goes_on_here_and_was_not_fenced() {
    let mut migration = at(Phase::Resume);
    migration.handle(Event::Verdict { taken: true }, T0);
    assert_eq!((migration.phase(), started(&mut migration)), (Phase::Resume, vec![]));
    migration.handle(Event::Verdict { taken: false }, T0);
    assert_eq!((migration.phase(), started(&mut migration)), (Phase::RollingBack, vec![Op::Restore]));
}

#[test]
fn one_that_was_handed_over_before_a_restart_only_asks() {
    let mut migration = Source::taken_up(AtSource::Ask, LIMITS, T0).unwrap();
    assert_eq!(started(&mut migration), [Op::AskVerdict]);
    migration.handle(Event::Verdict { taken: true }, T0);
    assert_eq!((migration.phase(), started(&mut migration)), (Phase::Resume, vec![Op::AwaitRunning]));
}

#[test]
fn one_that_was_decided_before_a_restart_is_only_brought_to_its_end() {
    let mut migration = Source::taken_up(AtSource::RollBack, LIMITS, T0).unwrap();
    assert_eq!(started(&mut migration), [Op::Restore]);
    migration.handle(Event::Finished(Op::Restore), T0);
    migration.handle(Event::Finished(Op::CallOff), T0);
    assert_eq!((migration.phase(), migration.outcome()), (Phase::RolledBack, Some(Outcome::RolledBack)));
    let mut migration = Source::taken_up(AtSource::Finish, LIMITS, T0).unwrap();
    assert_eq!(started(&mut migration), [Op::Fence, Op::Readdress]);
    for op in [Op::Readdress, Op::Fence, Op::CleanUp] {
        migration.handle(Event::Finished(op), T0);
    }
    assert_eq!((migration.phase(), migration.outcome()), (Phase::Done, Some(Outcome::Moved)));
    assert!(Source::taken_up(AtSource::Nothing, LIMITS, T0).is_none());
}

/// S2-23, S2-47: whatever ends a move before *releasing*, the way back begins in that instant, whole; nothing is waited for.
#[test]
fn the_way_back_begins_in_the_instant_in_which_a_failure_or_a_cancel_is_known() {
    let ends = |event: Event| match event {
        Event::LinkLost(_) => (Phase::Recovering, Op::Retreat, None),
        _ => (Phase::RollingBack, Op::Restore, Some(Promise::IfPossible(Step::RollingBack))),
    };
    for phase in [Phase::Bulk, Phase::PreCopy, Phase::StopAndCopy, Phase::Releasing] {
        for event in [Event::Broken("x".into()), Event::LinkLost("x".into()), Event::Cancelled] {
            let mut migration = at(phase);
            let now = Duration::from_secs(7);
            migration.handle(event.clone(), now);
            let actions: Vec<Action> = std::iter::from_fn(|| migration.poll_action()).collect();
            let (back, op, promise) = ends(event.clone());
            let stopped = actions.first() == Some(&Action::StopAll);
            // At the end of the straight way to the bulk its operations have ended: nothing is to be stopped.
            let rest = if stopped { &actions[1..] } else { &actions[..] };
            assert_eq!(
                rest,
                [Action::Enter(back), Action::Start(op, promise)],
                "{event:?} in {}",
                phase.name()
            );
            assert!(stopped || phase == Phase::Bulk, "{event:?} in {}", phase.name());
        }
    }
}

/// The promises that are made, in order, from an event on.
fn promised(migration: &mut Source) -> Vec<Step> {
    let actions = std::iter::from_fn(|| migration.poll_action());
    actions
        .filter_map(|action| if let Action::Start(_, promise) = action { promise } else { None })
        .map(Promise::step)
        .collect()
}

#[test]
fn what_cannot_move_is_in_no_journal_and_neither_is_what_never_began() {
    let mut migration = at(Phase::PreMigration);
    migration.handle(Event::CannotMove, T0);
    for op in [Op::Inspect, Op::Connect] {
        migration.handle(Event::Finished(op), T0);
    }
    assert_eq!((migration.phase(), promised(&mut migration)), (Phase::Reservation, vec![]));
    migration.handle(failed(Op::Reserve, "no bridge here, no room there"), T0);
    migration.handle(Event::Finished(Op::Restore), T0);
    assert_eq!((migration.outcome(), promised(&mut migration)), (Some(Outcome::Refused), vec![]));
    // One that has begun says that it is over.
    let mut migration = at(Phase::Reservation);
    migration.handle(failed(Op::Reserve, "no room there"), T0);
    migration.handle(Event::Finished(Op::Restore), T0);
    assert_eq!(promised(&mut migration), [Step::RollingBack, Step::RolledBack]);
}

#[test]
fn what_led_back_first_is_kept_with_how_far_it_had_come() {
    let mut migration = at(Phase::Bulk);
    migration.handle(failed(Op::Replicate, "the copies do not answer"), T0);
    migration.handle(Event::Broken("QEMU has died".into()), T0);
    let reason = "the copies do not answer".to_owned();
    let expected = Turn { phase: Phase::Bulk, op: Some(Op::Replicate), reason };
    assert_eq!(migration.turn(), Some(&expected));
    // Entered and left in one moment: nobody has seen it there.
    let mut migration = at(Phase::PreCopy);
    migration.handle(Event::Finished(Op::AwaitPause), T0);
    migration.handle(Event::Cancelled, T0);
    assert_eq!(migration.turn().unwrap().phase, Phase::PreCopy);
}

#[test]
fn an_operation_that_fails_with_the_link_or_with_qemu_is_not_the_cause() {
    let with = |cause| Event::Failed(Op::Replicate, Failure { why: "broken pipe".into(), cause });
    let mut migration = at(Phase::Bulk);
    migration.handle(with(Cause::Qemu), T0);
    assert_eq!(migration.phase(), Phase::Bulk, "who notices its end says why");
    migration.handle(with(Cause::Link("it timed out".into())), T0);
    assert_eq!(migration.phase(), Phase::Recovering);
    // After the commit point there is no way back: what fails there leads to doubt, whatever it comes of.
    for cause in [Cause::Qemu, Cause::Link("it timed out".into()), Cause::Other] {
        let mut migration = at(Phase::Commitment);
        migration.handle(Event::Failed(Op::HandOver, Failure { why: "no answer".into(), cause }), T0);
        assert!(migration.is_in_doubt());
    }
}

/// Every notice in every phase.
#[test]
fn what_is_said_without_being_asked_counts_only_where_it_means_something() {
    let notices = [
        Notice::Stop,
        Notice::Resume,
        Notice::DiskFailed("EIO".into()),
        Notice::Shutdown,
        Notice::Reset,
        Notice::QemuEnded,
        Notice::PeerFailed("no memory".into()),
        Notice::PeerGone("it hung up".into()),
    ];
    for (row, notice) in TABLE.iter().flat_map(|row| notices.iter().map(move |notice| (row, notice))) {
        let mut migration = at(row.phase);
        migration.handle(Event::Notice(notice.clone()), T0);
        let is_here = row.cancellable;
        let leads_back = match notice {
            Notice::Stop | Notice::Shutdown | Notice::Reset => false,
            Notice::Resume => matches!(row.phase, Phase::StopAndCopy | Phase::Releasing),
            Notice::DiskFailed(_) | Notice::QemuEnded => is_here,
            Notice::PeerFailed(_) => is_here || row.phase == Phase::Releasing,
            Notice::PeerGone(_) => row.on_lost_link != OnLostLink::Fail,
        };
        let to_doubt = match notice {
            Notice::Resume => row.phase == Phase::Commitment,
            Notice::PeerFailed(_) => row.on_failure == OnFailure::Ask,
            _ => false,
        };
        let phase = migration.phase();
        let expected = match (leads_back, to_doubt) {
            (true, _) => [Phase::RollingBack, Phase::Recovering].contains(&phase),
            (false, true) => phase == Phase::InDoubt,
            (false, false) => phase == row.phase,
        };
        assert!(expected, "{notice:?} in {} leads to {}", row.name, phase.name());
        let pauses = std::iter::from_fn(|| migration.poll_action()).any(|action| action == Action::NotePause);
        assert_eq!(pauses, *notice == Notice::Stop && row.phase == Phase::PreCopy, "{}", row.name);
    }
}

#[test]
fn a_guest_whose_own_disk_fails_or_that_switches_itself_off_is_told_apart() {
    let mut migration = at(Phase::Commitment);
    migration.handle(Event::Notice(Notice::DiskFailed("EIO".into())), T0);
    assert_eq!(migration.poll_action(), Some(Action::Warn("EIO".into())), "what is left of it is elsewhere");
    let mut migration = at(Phase::Bulk);
    migration.handle(Event::Notice(Notice::Shutdown), T0);
    migration.handle(Event::Notice(Notice::QemuEnded), T0);
    assert_eq!(migration.reasons(), ["the guest has shut itself down"]);
}
