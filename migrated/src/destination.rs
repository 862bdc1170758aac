//! The destination's side of a migration, decided: one visit of a source, from the first request to the end of its link.
//!
//! ```text
//! nothing ─ reserve ─► reserved ─ (memory arrives) ─► loaded ─ take ─► taken ─► running ─ readdress
//!                          └──────────── abort, end of the link ─┴──► over     (after *taken* there is no way back)
//!
//! the peer's requests, QEMU's end, what was done, the link's end ──► Destination ──► reserve, promise, answer, notify,
//!                                                                                    promote, run, give up, let go
//! ```
//!
//! Every request passes the table in `request`. What an action brings comes back as an event before the next action is
//! asked for, so one request is answered after the other. It does nothing itself, and reads no clock.
//!
//! Invariants: M1 (copies are removed before the guest is handed back), M2 (*taken* and *refused* are durable before they
//! are said, and *taken* before the guest is started), M8 (*started* is durable before the guest runs; handed back only
//! before it).

mod event;
mod request;

use std::collections::VecDeque;

use crate::journal::{Account, Step};
use crate::peer::{Answer, Notice, Request};

pub use self::event::{Action, Arriving, Event, Promise, Trouble};
pub use self::request::{RULES, Rule, Whose, allow, rule_of};

/// How far a guest has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Stage {
    /// Nothing was asked for yet.
    Nothing,
    /// Room is kept, and what receives runs.
    Reserved,
    /// QEMU holds the whole guest, paused.
    Loaded,
    /// The guest is this host's (M2).
    Taken,
    /// It is up.
    Running,
    /// It does not come, or nothing is left to ask for.
    Over,
}

impl Stage {
    /// Every stage.
    pub const ALL: [Stage; 6] =
        [Stage::Nothing, Stage::Reserved, Stage::Loaded, Stage::Taken, Stage::Running, Stage::Over];

    fn words(self) -> &'static str {
        match self {
            Stage::Nothing => "nothing is reserved",
            Stage::Reserved => "the guest's memory has not arrived",
            Stage::Loaded => "the guest has not been taken",
            Stage::Taken => "the guest is taken and being started",
            Stage::Running => "the guest runs here",
            Stage::Over => "the migration is over",
        }
    }
}

/// What a promise, a look or an order was for; its result goes on from there.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Pending {
    Take { id: u64, run: bool },
    RefusedTake { id: u64, reason: String, runs: bool },
    Verdict { id: u64, migration: String, runs: bool },
    NotTaken { id: u64 },
    TakenBack { id: u64, guest: String, generation: u64 },
    Started,
    HandedBack(String),
}

/// One visit.
#[derive(Clone, Debug)]
pub struct Destination {
    peer: String,
    stage: Stage,
    arriving: Option<Arriving>,
    pending: Option<Pending>,
    /// Whether the guest is to run, once it was taken.
    run: bool,
    /// *Started* is durable: the guest may have run here.
    is_started: bool,
    /// The source has asked for the names to lead here.
    is_readdressed: bool,
    has_ended: bool,
    actions: VecDeque<Action>,
}

impl Destination {
    /// A visit of this peer.
    pub fn new(peer: &str) -> Self {
        Self {
            peer: peer.to_owned(),
            stage: Stage::Nothing,
            arriving: None,
            pending: None,
            run: false,
            is_started: false,
            is_readdressed: false,
            has_ended: false,
            actions: VecDeque::new(),
        }
    }

    /// A guest that was taken before this daemon was started, and that QEMU still holds. `is_started`: it may have run here
    /// already, so it is this host's whatever becomes of its QEMU.
    pub fn taken_up(peer: &str, arriving: Arriving, run: bool, is_started: bool) -> Self {
        let mut visit = Self::new(peer);
        (visit.stage, visit.arriving) = (Stage::Taken, Some(arriving));
        (visit.run, visit.is_started) = (run, is_started);
        visit.actions.push_back(Action::Promote);
        visit
    }

    /// How far its guest has come.
    pub fn stage(&self) -> Stage {
        self.stage
    }

    /// True once the visit has ended, and everything was done that comes of it.
    pub fn has_ended(&self) -> bool {
        self.has_ended && self.actions.is_empty()
    }

    /// True while the guest's memory may arrive.
    pub fn awaits_memory(&self) -> bool {
        self.stage == Stage::Reserved
    }

    /// True while the end of QEMU means that the guest cannot come.
    pub fn watches_qemu(&self) -> bool {
        self.stage == Stage::Loaded
    }

    /// True while the source may begin anew over another link, or have nothing left to ask for.
    pub fn may_be_replaced(&self) -> bool {
        matches!(self.stage, Stage::Reserved | Stage::Loaded | Stage::Running)
    }

    /// True while a source that is not heard any more has given up what it had left to ask for.
    pub fn ends_when_quiet(&self) -> bool {
        self.stage == Stage::Running
    }

    /// What is to be done next, if anything. Where it brings something, that is handed in before this is called again.
    pub fn poll_action(&mut self) -> Option<Action> {
        self.actions.pop_front()
    }

    /// Takes in what happened.
    pub fn handle(&mut self, event: Event) {
        match event {
            Event::Asked { id, request, account, is_starting } => {
                self.handle_request(id, *request, &account, is_starting);
            }
            Event::Reserved { id, reserved: Ok((reserved, arriving)) } => {
                if arriving.is_some() {
                    (self.stage, self.arriving) = (Stage::Reserved, arriving);
                }
                self.answer(id, Answer::Reserved(reserved));
            }
            Event::Reserved { id, reserved: Err(reasons) } => self.answer(id, Answer::Refused { reasons }),
            Event::Done { id, done: Ok(answer) } => self.answer(id, answer),
            Event::Done { id, done: Err(reason) } => self.refuse(id, reason),
            Event::Looked(looked) => self.handle_look(looked),
            Event::Promised(held) => self.handle_promise(held),
            Event::Loaded(Ok(())) => {
                self.stage = Stage::Loaded;
                self.actions.push_back(Action::Notify(Notice::Loaded {}));
            }
            Event::Loaded(Err(reason)) => self.fail(reason, true),
            Event::QemuEnded => self.fail("the destination's QEMU has ended".to_owned(), true),
            Event::Promoted(Ok(())) if self.is_started => self.actions.push_back(Action::Run(self.run)),
            Event::Promoted(Ok(())) => self.promise(Step::Started, Pending::Started),
            Event::Runs(Ok(())) => self.is_up(),
            Event::Promoted(Err(trouble)) | Event::Runs(Err(trouble)) => self.handle_trouble(trouble),
            Event::CopiesRemoved(why) => self.promise(Step::HandedBack, Pending::HandedBack(why)),
            Event::TryAgain => self.actions.push_back(Action::Promote),
            Event::LinkEnded(reason) => self.leave(reason),
        }
    }

    fn handle_request(&mut self, id: u64, request: Request, account: &Account, is_starting: bool) {
        // Who hears that a guest runs gives up what it has of it.
        let runs = account.has_started() && !is_starting;
        let arriving = self.arriving.as_ref().map(|arriving| arriving.migration.as_str());
        if let Err(reason) = allow(self.stage, &self.peer, arriving, &request, account) {
            return self.handle_refusal(id, &request, account, runs, reason);
        }
        match request {
            Request::Reserve(_) if account.verdict() == Some(false) => {
                self.refuse(
                    id,
                    "this migration was refused before, and that holds for ever; send the guest anew"
                        .to_owned(),
                );
            }
            Request::Reserve(wanted) => self.actions.push_back(Action::Reserve { id, wanted }),
            Request::Take { generation, run, .. } => {
                self.pending = Some(Pending::Take { id, run });
                self.actions.push_back(Action::Look { generation });
            }
            Request::Verdict { migration, generation } => {
                let pending = Pending::Verdict { id, migration: migration.clone(), runs };
                self.refuse_for_good(migration, generation, pending);
            }
            Request::Consult { .. } => {
                self.answer(id, Answer::Consulted { promised: account.last_step() });
            }
            Request::Introduce {} => {
                self.answer(id, Answer::Introduced { version: env!("CARGO_PKG_VERSION").to_owned() });
            }
            // A daemon after this one would take it for a guest that runs.
            Request::Concluded { .. } if is_starting => {
                self.refuse(id, "the guest is being started; say it again".to_owned());
            }
            Request::Concluded { migration } => self.handle_conclusion(id, &migration, account),
            Request::TakenBack { migration, guest, generation } => {
                self.handle_taken_back(id, migration, guest, generation, account);
            }
            Request::Abort { reason, keep_disks } => {
                self.give_up(reason, keep_disks);
                self.answer(id, Answer::Done {});
            }
            Request::Readdress {} => {
                self.is_readdressed = true;
                self.actions.push_back(Action::Do { id, request: Request::Readdress {} });
            }
            request @ (Request::PathPrepare(_)
            | Request::PathTry(_)
            | Request::PathSwitch {}
            | Request::PathBack {}
            | Request::Mirror(_)) => self.actions.push_back(Action::Do { id, request }),
        }
    }

    /// Says no. What holds for ever is journalled before it is said, and if the opposite was promised before, that is said.
    fn handle_refusal(&mut self, id: u64, request: &Request, account: &Account, runs: bool, reason: String) {
        match request {
            Request::Take { migration, generation, .. }
                if rule_of(request).refusal_is_promised && account.is_from(&self.peer) =>
            {
                let pending = Pending::RefusedTake { id, reason, runs };
                self.refuse_for_good(migration.clone(), *generation, pending);
            }
            _ => self.refuse(id, reason),
        }
    }

    /// This host looked whether everything is here that M7 asks for.
    fn handle_look(&mut self, looked: Result<(), String>) {
        let Some(Pending::Take { id, run }) = self.pending.take() else { return };
        match looked {
            Ok(()) => self.promise(Step::Taken, Pending::Take { id, run }),
            Err(reason) => {
                self.promise(Step::Refused, Pending::RefusedTake { id, reason, runs: false });
            }
        }
    }

    /// A promise is durable, and this holds: true, the guest was taken. Or it could not be written, and nothing is said that
    /// depends on it.
    fn handle_promise(&mut self, held: Result<bool, String>) {
        let verdict = |taken, running| Answer::Verdict { taken, running };
        match (self.pending.take(), held) {
            (Some(Pending::Take { id, run }), Ok(true)) => {
                // From here on nothing leads back; whether the source hears of it changes nothing.
                (self.stage, self.run) = (Stage::Taken, run);
                self.answer(id, verdict(true, false));
                self.actions.push_back(Action::Promote);
            }
            (Some(Pending::Take { id, .. }), Ok(false)) => {
                self.refuse(id, "it was refused before, and that holds for ever".to_owned());
            }
            (Some(Pending::RefusedTake { id, reason, .. }), Ok(false)) => self.refuse(id, reason),
            (Some(Pending::RefusedTake { id, runs, .. }), Ok(true)) => {
                self.answer(id, verdict(true, runs));
            }
            (Some(Pending::Verdict { id, migration, runs }), Ok(taken)) => {
                if !taken {
                    // What came over another link for it will never be taken: nothing is kept for it.
                    self.actions.push_back(Action::EndOtherVisit { migration });
                }
                self.answer(id, verdict(taken, taken && runs));
            }
            (Some(Pending::NotTaken { id }), Ok(_)) => self.answer(id, Answer::Done {}),
            (Some(Pending::TakenBack { id, guest, generation }), Ok(_)) => {
                self.actions.push_back(Action::GiveGuestBack { id, guest, generation });
            }
            (Some(Pending::Started), Ok(_)) => {
                self.is_started = true;
                self.actions.push_back(Action::Run(self.run));
            }
            (Some(Pending::HandedBack(reason)), Ok(_)) => self.fail(reason, false),
            // The source asks again.
            (Some(Pending::Take { .. }), Err(_)) => {}
            (
                Some(
                    Pending::RefusedTake { id, .. }
                    | Pending::Verdict { id, .. }
                    | Pending::NotTaken { id }
                    | Pending::TakenBack { id, .. },
                ),
                Err(reason),
            ) => self.refuse(id, reason),
            (Some(Pending::Started | Pending::HandedBack(_)), Err(why)) => {
                self.actions.push_back(Action::Wait { why });
            }
            (None, _) => {}
        }
    }

    /// The guest was taken, and cannot be started yet. If QEMU has ended, and the guest's memory with it, before it was
    /// started, the source gets it back (M8).
    fn handle_trouble(&mut self, trouble: Trouble) {
        let Trouble { why, qemu_has_ended } = trouble;
        match (qemu_has_ended, self.is_started) {
            (false, _) => self.actions.push_back(Action::Wait { why }),
            // It may have run here: it is this host's, and off.
            (true, true) => self.is_up(),
            (true, false) => {
                let why = format!("its QEMU ended before the guest ran: {why}");
                self.actions.push_back(Action::RemoveCopies { why });
            }
        }
    }

    fn is_up(&mut self) {
        self.stage = Stage::Running;
        self.actions.push_back(Action::Notify(Notice::Running {}));
        self.actions.push_back(Action::Settle);
    }

    /// The source knows that the guest runs here: the account is closed. It may say so over another link than the one over
    /// which the guest came. Said once more over that one, it has nothing left to ask for, and the guest is let go of.
    fn handle_conclusion(&mut self, id: u64, migration: &str, account: &Account) {
        let is_this_one = self.arriving.as_ref().is_some_and(|arriving| arriving.migration == migration);
        match account.last_step() {
            Some(Step::Started) => {
                let ends_other_visit = self.arriving.is_none();
                self.actions.push_back(Action::CloseAccount {
                    id,
                    migration: migration.to_owned(),
                    ends_other_visit,
                });
            }
            Some(Step::Done) if is_this_one && self.stage == Stage::Running => {
                self.let_go();
                self.answer(id, Answer::Done {});
            }
            _ => self.answer(id, Answer::Done {}),
        }
    }

    /// An operator at the source has said that the guest is there again.
    fn handle_taken_back(
        &mut self,
        id: u64,
        migration: String,
        guest: String,
        generation: u64,
        account: &Account,
    ) {
        let Some(promised) = account.last().filter(|_| account.was_taken()) else {
            // It never came to be here, and never will. Whose guest that is, only its source can know.
            return self.refuse_for_good(migration, generation, Pending::NotTaken { id });
        };
        if promised.guest != guest {
            return self.refuse(id, format!("migration {migration} is not one of guest {guest:?}"));
        }
        if generation <= promised.generation {
            let reason = format!(
                "generation {generation} is not newer than {}, which was promised",
                promised.generation
            );
            return self.refuse(id, reason);
        }
        let (of, was) = (promised.guest.clone(), promised.generation);
        self.pending = Some(Pending::TakenBack { id, guest, generation });
        let promise = Promise { migration, guest: of, generation: was, step: Step::HandedBack };
        self.actions.push_back(Action::Promise(promise));
    }

    /// Promises something of this visit's own guest.
    fn promise(&mut self, step: Step, pending: Pending) {
        let Some(arriving) = &self.arriving else { return };
        let promise = Promise {
            migration: arriving.migration.clone(),
            guest: arriving.guest.clone(),
            generation: arriving.generation,
            step,
        };
        self.pending = Some(pending);
        self.actions.push_back(Action::Promise(promise));
    }

    /// Promises that a guest will never be taken in this migration, unless it was: what holds is what comes back. No guest is
    /// named: what a peer calls it is not known to be true.
    fn refuse_for_good(&mut self, migration: String, generation: u64, pending: Pending) {
        self.pending = Some(pending);
        let promise = Promise { migration, guest: String::new(), generation, step: Step::Refused };
        self.actions.push_back(Action::Promise(promise));
    }

    fn answer(&mut self, id: u64, answer: Answer) {
        self.actions.push_back(Action::Answer { id, answer });
    }

    fn refuse(&mut self, id: u64, reason: String) {
        self.answer(id, Answer::Refused { reasons: vec![reason] });
    }

    /// The guest cannot come: that is said, and all that was made for it is given up.
    fn fail(&mut self, reason: String, keep_copies: bool) {
        self.give_up(reason.clone(), keep_copies);
        self.actions.push_back(Action::Notify(Notice::Failed { reason }));
    }

    fn give_up(&mut self, reason: String, keep_copies: bool) {
        self.stage = Stage::Over;
        self.arriving = None;
        self.actions.push_back(Action::GiveUp { reason, keep_copies });
    }

    fn let_go(&mut self) {
        self.stage = Stage::Over;
        self.arriving = None;
        self.actions.push_back(Action::LetGo { sees_to_names: !self.is_readdressed });
    }

    /// The link has ended, or the source asks for nothing more.
    fn leave(&mut self, reason: String) {
        match self.stage {
            Stage::Nothing | Stage::Reserved | Stage::Loaded => self.give_up(reason, true),
            Stage::Taken | Stage::Running => self.let_go(),
            Stage::Over => {}
        }
        self.has_ended = true;
    }
}

#[cfg(test)]
mod tests;
