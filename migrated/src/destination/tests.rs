//! Every stage of a visit against every request and every event.

use super::*;
use crate::journal::Record;
use crate::peer::{PathPrepare, Reserve, Reserved};
use crate::status::Status;

fn record(migration: &str, peer: &str, generation: u64, step: Step) -> Record {
    let (migration, guest, peer) = (migration.to_owned(), "web".to_owned(), peer.to_owned());
    Record { migration, guest, generation, peer, step, unix_ms: 0 }
}

/// The account of migration `m`, whose guest comes from site A, with these steps.
fn account(steps: &[Step]) -> Account {
    let records: Vec<Record> = steps.iter().map(|step| record("m", "a", 2, *step)).collect();
    Account::of(&records, "m")
}

fn wanted() -> Box<Reserve> {
    let text = r#"{"migration": "m", "generation": 2, "guest": {"name": "web", "memory_mib": 64, "disk": []},
        "disks": [], "boot_digests": [], "qemu_version": "7.2.22", "accel": "tcg", "wan": false, "runs": true, "dry_run": false}"#;
    serde_json::from_str(text).expect("a reservation")
}

fn reserved() -> Reserved {
    Reserved {
        reservation: "b/m".into(),
        qemu_version: "7.2.22".into(),
        tunnel_address: None,
        new_addresses: Vec::new(),
        is_home: false,
        warnings: Vec::new(),
    }
}

fn arriving() -> Arriving {
    Arriving { migration: "m".into(), guest: "web".into(), generation: 2 }
}

fn take() -> Request {
    Request::Take { migration: "m".into(), generation: 2, run: true }
}

fn verdict() -> Request {
    Request::Verdict { migration: "m".into(), generation: 2 }
}

fn taken_back(generation: u64) -> Request {
    Request::TakenBack { migration: "m".into(), guest: "web".into(), generation }
}

fn asked(request: Request, account: Account) -> Event {
    Event::Asked { id: 7, request: Box::new(request), account, is_starting: false }
}

fn actions(visit: &mut Destination) -> Vec<Action> {
    std::iter::from_fn(|| visit.poll_action()).collect()
}

fn promise(step: Step) -> Action {
    let guest = if step == Step::Refused { "" } else { "web" };
    Action::Promise(Promise { migration: "m".into(), guest: guest.into(), generation: 2, step })
}

fn answer(answer: Answer) -> Action {
    Action::Answer { id: 7, answer }
}

fn refused(action: &Action) -> &str {
    match action {
        Action::Answer { answer: Answer::Refused { reasons }, .. } => &reasons[0],
        other => panic!("{other:?}"),
    }
}

/// A visit of site A at a stage, by the straight way.
fn at(stage: Stage) -> Destination {
    let mut visit = Destination::new("a");
    while visit.stage() != stage {
        match visit.stage() {
            _ if stage == Stage::Over => visit.handle(Event::LinkEnded("on purpose".into())),
            Stage::Nothing => {
                visit.handle(asked(Request::Reserve(wanted()), account(&[])));
                visit.handle(Event::Reserved { id: 7, reserved: Ok((reserved(), Some(arriving()))) });
            }
            Stage::Reserved => visit.handle(Event::Loaded(Ok(()))),
            Stage::Loaded => {
                visit.handle(asked(take(), account(&[Step::Reserved])));
                visit.handle(Event::Looked(Ok(())));
                visit.handle(Event::Promised(Ok(true)));
            }
            Stage::Taken => {
                visit.handle(Event::Promoted(Ok(())));
                visit.handle(Event::Promised(Ok(true)));
                visit.handle(Event::Runs(Ok(())));
            }
            Stage::Running | Stage::Over => unreachable!("nothing comes after it"),
        }
    }
    actions(&mut visit);
    visit
}

fn requests() -> Vec<Request> {
    let path = || PathPrepare { tunnel: 1, remote: [192, 0, 2, 1].into() };
    vec![
        Request::Reserve(wanted()),
        Request::PathPrepare(path()),
        Request::PathTry(path()),
        Request::PathSwitch {},
        Request::PathBack {},
        take(),
        verdict(),
        Request::Consult { migration: "m".into() },
        Request::Concluded { migration: "m".into() },
        taken_back(3),
        Request::Readdress {},
        Request::Introduce {},
        Request::Abort { reason: "x".into(), keep_disks: true },
        Request::Mirror(Box::new(Status::new("m", "web", "a", "b"))),
    ]
}

#[test]
fn every_request_has_one_row() {
    assert_eq!(requests().len(), Request::NAMES.len());
    for request in requests() {
        assert_eq!(rule_of(&request).request, request.name());
    }
    for (index, rule) in RULES.iter().enumerate() {
        assert!(Request::NAMES.contains(&rule.request), "{}", rule.request);
        assert!(RULES[index + 1..].iter().all(|other| other.request != rule.request), "{}", rule.request);
    }
}

#[test]
fn nothing_is_taken_that_has_not_arrived_and_nothing_is_given_up_that_was_taken() {
    let allowed = |name: &str| RULES.iter().find(|rule| rule.request == name).unwrap().stages;
    assert_eq!(allowed("take"), [Stage::Loaded]);
    for name in ["abort", "path-back", "path-switch"] {
        assert!(!allowed(name).contains(&Stage::Taken) && !allowed(name).contains(&Stage::Running), "{name}");
    }
    assert_eq!(allowed("verdict"), Stage::ALL);
    let no = allow(Stage::Reserved, "a", Some("m"), &take(), &account(&[Step::Reserved])).unwrap_err();
    assert_eq!(no, "take is refused: the guest's memory has not arrived");
}

/// A request about a migration of this host's own, or of another's, changes nothing and journals nothing: at every stage.
#[test]
fn who_has_no_say_about_a_migration_gets_nothing_done_and_nothing_written() {
    let own = |steps: &[Step]| {
        let records: Vec<Record> = steps.iter().map(|step| record("m", "a", 2, *step)).collect();
        Account::of(&records, "m")
    };
    let of_another =
        Account::of(&[record("m", "c", 2, Step::Reserved), record("m", "c", 2, Step::Taken)], "m");
    let not_theirs = [
        // This host was its source, whatever became of it.
        own(&[Step::Begun]),
        own(&[Step::Begun, Step::RollingBack, Step::RolledBack]),
        own(&[Step::Begun, Step::Releasing, Step::Released, Step::Done]),
        of_another,
    ];
    for (stage, account) in
        Stage::ALL.into_iter().flat_map(|stage| not_theirs.iter().map(move |one| (stage, one)))
    {
        for request in [
            Request::Reserve(wanted()),
            verdict(),
            Request::Concluded { migration: "m".into() },
            taken_back(9),
        ] {
            // A guest of another migration may be on its way over this link.
            let mut visit = at(stage);
            visit.handle(asked(request.clone(), account.clone()));
            let done = actions(&mut visit);
            assert_eq!(done.len(), 1, "{request:?} at {stage:?}: {done:?}");
            assert!(refused(&done[0]).contains("is refused"), "{done:?}");
            assert_eq!(visit.stage(), stage);
        }
    }
    // Who took part may look.
    let consult = Request::Consult { migration: "m".into() };
    for (account, may) in not_theirs.iter().zip([true, true, true, false]) {
        let mut visit = at(Stage::Nothing);
        visit.handle(asked(consult.clone(), account.clone()));
        let consulted =
            matches!(actions(&mut visit)[..], [Action::Answer { answer: Answer::Consulted { .. }, .. }]);
        assert_eq!(consulted, may);
    }
}

/// M2: what is said of a guest was durable before.
#[test]
fn taken_is_promised_before_it_is_said_and_started_before_the_guest_runs() {
    let mut visit = at(Stage::Loaded);
    visit.handle(asked(take(), account(&[Step::Reserved])));
    assert_eq!(actions(&mut visit), [Action::Look { generation: 2 }]);
    visit.handle(Event::Looked(Ok(())));
    assert_eq!(actions(&mut visit), [promise(Step::Taken)]);
    visit.handle(Event::Promised(Ok(true)));
    let said = answer(Answer::Verdict { taken: true, running: false });
    assert_eq!(actions(&mut visit), [said, Action::Promote]);
    visit.handle(Event::Promoted(Ok(())));
    assert_eq!(actions(&mut visit), [promise(Step::Started)]);
    visit.handle(Event::Promised(Ok(true)));
    assert_eq!(actions(&mut visit), [Action::Run(true)]);
    visit.handle(Event::Runs(Ok(())));
    assert_eq!(actions(&mut visit), [Action::Notify(Notice::Running {}), Action::Settle]);
    visit.handle(Event::LinkEnded("the link ended".into()));
    assert_eq!(actions(&mut visit), [Action::LetGo { sees_to_names: true }]);
    assert!(visit.has_ended());
}

#[test]
fn a_promise_that_cannot_be_written_is_not_said() {
    let full = || Event::Promised(Err("the disk is full".into()));
    let mut visit = at(Stage::Loaded);
    visit.handle(asked(take(), account(&[Step::Reserved])));
    visit.handle(Event::Looked(Ok(())));
    actions(&mut visit);
    visit.handle(full());
    assert_eq!((actions(&mut visit), visit.stage()), (vec![], Stage::Loaded), "the source asks again");
    // A refusal that is not durable is no refusal.
    for (stage, request) in
        [(Stage::Reserved, take()), (Stage::Nothing, verdict()), (Stage::Nothing, taken_back(2))]
    {
        let mut visit = at(stage);
        visit.handle(asked(request, account(&[Step::Reserved])));
        assert_eq!(actions(&mut visit), [promise(Step::Refused)]);
        visit.handle(full());
        let said = actions(&mut visit);
        assert_eq!((said.len(), refused(&said[0])), (1, "the disk is full"));
    }
    let mut visit = at(Stage::Taken);
    visit.handle(Event::Promoted(Ok(())));
    actions(&mut visit);
    visit.handle(full());
    assert_eq!(
        actions(&mut visit),
        [Action::Wait { why: "the disk is full".into() }],
        "and the guest does not run"
    );
}

#[test]
fn what_cannot_be_taken_is_refused_for_ever_unless_it_was_taken_before() {
    for (held, has_started) in [(false, false), (true, false), (true, true)] {
        let steps: &[Step] = if has_started { &[Step::Taken, Step::Started] } else { &[Step::Reserved] };
        let mut visit = at(Stage::Nothing);
        visit.handle(asked(take(), account(steps)));
        assert_eq!(actions(&mut visit), [promise(Step::Refused)]);
        visit.handle(Event::Promised(Ok(held)));
        let said = actions(&mut visit);
        match held {
            true => assert_eq!(said, [answer(Answer::Verdict { taken: true, running: has_started })]),
            false => assert_eq!(refused(&said[0]), "take is refused: nothing is reserved"),
        }
    }
    // Loaded, but not all is here.
    let mut visit = at(Stage::Loaded);
    visit.handle(asked(take(), account(&[Step::Reserved])));
    visit.handle(Event::Looked(Err("disk root is not sealed".into())));
    visit.handle(Event::Promised(Ok(false)));
    assert_eq!(refused(actions(&mut visit).last().unwrap()), "disk root is not sealed");
    // Another migration than the one that is here.
    let mut visit = at(Stage::Loaded);
    let other = Request::Take { migration: "n".into(), generation: 2, run: true };
    visit.handle(asked(other, Account::default()));
    let refusal = Promise { migration: "n".into(), guest: String::new(), generation: 2, step: Step::Refused };
    assert_eq!(actions(&mut visit), [Action::Promise(refusal)]);
}

#[test]
fn a_verdict_that_is_asked_for_before_anything_was_promised_is_a_refusal_and_ends_the_other_visit() {
    let mut visit = at(Stage::Nothing);
    visit.handle(asked(verdict(), account(&[Step::Reserved])));
    visit.handle(Event::Promised(Ok(false)));
    let said = answer(Answer::Verdict { taken: false, running: false });
    assert_eq!(
        actions(&mut visit),
        [promise(Step::Refused), Action::EndOtherVisit { migration: "m".into() }, said]
    );
    let mut visit = at(Stage::Nothing);
    visit.handle(asked(verdict(), account(&[Step::Reserved, Step::Taken, Step::Started])));
    visit.handle(Event::Promised(Ok(true)));
    assert_eq!(actions(&mut visit)[1..], [answer(Answer::Verdict { taken: true, running: true })]);
}

/// M8, M1: handed back only before it may have run, and only once nobody can write its disks here.
#[test]
fn a_guest_whose_qemu_ends_before_it_ran_is_handed_back_and_after_that_it_is_here() {
    let trouble = |qemu_has_ended| Trouble { why: "no answer".into(), qemu_has_ended };
    let mut visit = at(Stage::Taken);
    visit.handle(Event::Promoted(Err(trouble(false))));
    assert_eq!(actions(&mut visit), [Action::Wait { why: "no answer".into() }]);
    visit.handle(Event::TryAgain);
    visit.handle(Event::Promoted(Err(trouble(true))));
    let why = "its QEMU ended before the guest ran: no answer".to_owned();
    assert_eq!(actions(&mut visit), [Action::Promote, Action::RemoveCopies { why: why.clone() }]);
    visit.handle(Event::CopiesRemoved(why.clone()));
    assert_eq!(actions(&mut visit), [promise(Step::HandedBack)]);
    // Not durable: not said, and tried again.
    visit.handle(Event::Promised(Err("the disk is full".into())));
    assert_eq!(actions(&mut visit), [Action::Wait { why: "the disk is full".into() }]);
    visit.handle(Event::TryAgain);
    visit.handle(Event::Promoted(Err(trouble(true))));
    visit.handle(Event::CopiesRemoved(why.clone()));
    actions(&mut visit);
    visit.handle(Event::Promised(Ok(false)));
    let give_up = Action::GiveUp { reason: why.clone(), keep_copies: false };
    assert_eq!(actions(&mut visit), [give_up, Action::Notify(Notice::Failed { reason: why })]);

    let mut visit = at(Stage::Taken);
    visit.handle(Event::Promoted(Ok(())));
    visit.handle(Event::Promised(Ok(true)));
    actions(&mut visit);
    visit.handle(Event::Runs(Err(trouble(false))));
    visit.handle(Event::TryAgain);
    visit.handle(Event::Promoted(Ok(())));
    let again = [Action::Wait { why: "no answer".into() }, Action::Promote, Action::Run(true)];
    assert_eq!(actions(&mut visit), again, "started is promised once");
    visit.handle(Event::Runs(Err(trouble(true))));
    assert_eq!(
        (visit.stage(), actions(&mut visit)[0].clone()),
        (Stage::Running, Action::Notify(Notice::Running {}))
    );
}

#[test]
fn one_that_was_taken_before_a_restart_is_started_and_let_go_of() {
    let mut visit = Destination::taken_up("a", arriving(), false, false);
    assert_eq!((visit.stage(), actions(&mut visit)), (Stage::Taken, vec![Action::Promote]));
    visit.handle(Event::Promoted(Ok(())));
    visit.handle(Event::Promised(Ok(true)));
    assert_eq!(actions(&mut visit), [promise(Step::Started), Action::Run(false)]);
    visit.handle(Event::Runs(Ok(())));
    visit.handle(Event::LinkEnded("there was none".into()));
    assert_eq!(actions(&mut visit).last(), Some(&Action::LetGo { sees_to_names: true }));
    assert!(visit.has_ended());
}

/// M8: it may have run before the restart. Its memory is lost, and so the guest is off here; its source has given it up.
#[test]
fn one_that_may_have_run_before_a_restart_is_never_handed_back() {
    let mut visit = Destination::taken_up("a", arriving(), true, true);
    actions(&mut visit);
    visit.handle(Event::Promoted(Err(Trouble { why: "no answer".into(), qemu_has_ended: true })));
    assert_eq!(actions(&mut visit), [Action::Notify(Notice::Running {}), Action::Settle]);
}

#[test]
fn an_operators_word_at_the_source_ends_what_was_taken_and_refuses_what_was_not() {
    let mut visit = at(Stage::Nothing);
    visit.handle(asked(taken_back(3), account(&[Step::Reserved, Step::Taken, Step::Started])));
    assert_eq!(actions(&mut visit), [promise(Step::HandedBack)]);
    visit.handle(Event::Promised(Ok(true)));
    assert_eq!(actions(&mut visit), [Action::GiveGuestBack { id: 7, guest: "web".into(), generation: 3 }]);
    // An older word than what was promised, and one about another guest.
    let mut visit = at(Stage::Nothing);
    visit.handle(asked(taken_back(2), account(&[Step::Taken])));
    assert!(refused(&actions(&mut visit)[0]).contains("is not newer than 2"));
    let other = Request::TakenBack { migration: "m".into(), guest: "db".into(), generation: 3 };
    visit.handle(asked(other, account(&[Step::Taken])));
    assert!(refused(&actions(&mut visit)[0]).contains("not one of guest \"db\""));
    // Of a guest that never came: no guest is named in the journal by a peer's word.
    for steps in [&[][..], &[Step::Reserved]] {
        let mut visit = at(Stage::Nothing);
        visit.handle(asked(taken_back(2), account(steps)));
        assert_eq!(actions(&mut visit), [promise(Step::Refused)]);
        visit.handle(Event::Promised(Ok(false)));
        assert_eq!(actions(&mut visit), [answer(Answer::Done {})]);
    }
}

#[test]
fn the_account_is_closed_when_the_source_knows_and_the_guest_let_go_of_when_it_has_nothing_left() {
    let concluded = || Request::Concluded { migration: "m".into() };
    let mut visit = at(Stage::Running);
    visit.handle(asked(concluded(), account(&[Step::Taken, Step::Started])));
    let close = |ends_other_visit| Action::CloseAccount { id: 7, migration: "m".into(), ends_other_visit };
    assert_eq!(actions(&mut visit), [close(false)]);
    visit.handle(asked(Request::Readdress {}, Account::default()));
    assert_eq!(actions(&mut visit), [Action::Do { id: 7, request: Request::Readdress {} }]);
    visit.handle(asked(concluded(), account(&[Step::Taken, Step::Started, Step::Done])));
    assert_eq!(actions(&mut visit), [Action::LetGo { sees_to_names: false }, answer(Answer::Done {})]);
    // Over another link than the one by which the guest came.
    let mut visit = at(Stage::Nothing);
    visit.handle(asked(concluded(), account(&[Step::Taken, Step::Started])));
    assert_eq!(actions(&mut visit), [close(true)]);
    // Nothing is open, or nothing known.
    for steps in [&[][..], &[Step::Refused], &[Step::Taken, Step::Started, Step::Done]] {
        visit.handle(asked(concluded(), account(steps)));
        assert_eq!(actions(&mut visit), [answer(Answer::Done {})]);
    }
}

/// *Started* is written a moment before the guest runs. Who asks in that moment over another link is not told that it does.
#[test]
fn a_guest_that_is_being_started_does_not_run_yet_and_its_account_stays_open() {
    let written = || account(&[Step::Reserved, Step::Taken, Step::Started]);
    let ask = |request, is_starting| Event::Asked {
        id: 7,
        request: Box::new(request),
        account: written(),
        is_starting,
    };
    for is_starting in [true, false] {
        let mut visit = at(Stage::Nothing);
        visit.handle(ask(verdict(), is_starting));
        visit.handle(Event::Promised(Ok(true)));
        let said = answer(Answer::Verdict { taken: true, running: !is_starting });
        assert_eq!(actions(&mut visit).last(), Some(&said));
    }
    let mut visit = at(Stage::Nothing);
    visit.handle(ask(Request::Concluded { migration: "m".into() }, true));
    assert!(refused(&actions(&mut visit)[0]).contains("is being started"));
}

#[test]
fn the_end_of_the_link_gives_up_what_was_not_taken_and_nothing_else() {
    for stage in Stage::ALL {
        let mut visit = at(stage);
        visit.handle(Event::LinkEnded("the link ended".into()));
        let expected = match stage {
            Stage::Nothing | Stage::Reserved | Stage::Loaded => {
                vec![Action::GiveUp { reason: "the link ended".into(), keep_copies: true }]
            }
            Stage::Taken | Stage::Running => vec![Action::LetGo { sees_to_names: true }],
            Stage::Over => vec![],
        };
        assert_eq!((actions(&mut visit), visit.has_ended()), (expected, true), "{stage:?}");
    }
    for event in [Event::QemuEnded, Event::Loaded(Err("it is broken".into()))] {
        let mut visit = at(Stage::Reserved);
        visit.handle(event);
        let done = actions(&mut visit);
        assert!(matches!(
            &done[..],
            [Action::GiveUp { keep_copies: true, .. }, Action::Notify(Notice::Failed { .. })]
        ));
        assert_eq!(visit.stage(), Stage::Over);
    }
}

#[test]
fn no_room_is_kept_for_what_will_never_be_taken() {
    for steps in [&[Step::Refused][..], &[Step::Reserved, Step::Taken, Step::HandedBack]] {
        let mut visit = at(Stage::Nothing);
        visit.handle(asked(Request::Reserve(wanted()), account(steps)));
        assert!(refused(&actions(&mut visit)[0]).contains("that holds for ever"), "{steps:?}");
    }
    // Another attempt of the same migration.
    let mut visit = at(Stage::Nothing);
    visit.handle(asked(Request::Reserve(wanted()), account(&[Step::Reserved])));
    assert_eq!(actions(&mut visit), [Action::Reserve { id: 7, wanted: wanted() }]);
}

#[test]
fn who_only_looks_reserves_nothing() {
    let mut visit = at(Stage::Nothing);
    visit.handle(Event::Reserved { id: 7, reserved: Ok((reserved(), None)) });
    assert_eq!(
        (visit.stage(), actions(&mut visit)),
        (Stage::Nothing, vec![answer(Answer::Reserved(reserved()))])
    );
    visit.handle(Event::Reserved { id: 7, reserved: Err(vec!["no room".into()]) });
    assert_eq!(refused(&actions(&mut visit)[0]), "no room");
}
