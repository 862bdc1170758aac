//! The destination's host: does what the product's decider wants done, and tells it what came of that.
//!
//! Which word is heard in which stage and about which migration, what is promised, said and done in which order, and what
//! follows from it, is `migrated::destination`'s; what was promised is asked of `migrated::journal`, what is done after a
//! restart of `migrated::recover`. What stands here is the world that it acts on, and the rules that a world can break.

use std::sync::OnceLock;

use migrated::destination::{Action, Event, Promise, Stage, Trouble};
use migrated::journal::{Account, Step};
use migrated::peer::{Answer, Notice, Request, Reserve, Reserved};
use migrated::recover::{self, AtDestination};

use super::rules::Rules;
use super::state::{GUEST, Machine, Role, State, name};
use super::visit::{Visit, arriving};
use super::wire::{Said, Word};

/// A reservation of the model's guest, but for its number and its generation.
fn wanted() -> &'static Reserve {
    static WANTED: OnceLock<Reserve> = OnceLock::new();
    WANTED.get_or_init(|| {
        let text = r#"{"migration": "", "generation": 0, "guest": {"name": "web", "memory_mib": 64}, "disks": [],
            "boot_digests": [], "qemu_version": "", "accel": "tcg", "wan": false, "runs": true, "dry_run": false}"#;
        serde_json::from_str(text).expect("a reservation")
    })
}

fn number_of(migration: &str) -> u8 {
    (0..=3).find(|number| name(*number) == migration).expect("a migration of the model")
}

impl State {
    /// It hears something.
    pub fn destination_hears(&mut self, said: Said, rules: &Rules) {
        if said.word == Word::Yours {
            self.destination.may_start = self.has_lost_its_guest();
            return;
        }
        let generation = u64::from(self.source.journal.generation_of(said.number));
        let migration = || name(said.number).to_owned();
        let request = match said.word {
            Word::Reserve => {
                Request::Reserve(Box::new(Reserve { migration: migration(), generation, ..wanted().clone() }))
            }
            Word::Take => Request::Take { migration: migration(), generation, run: true },
            Word::Ask => Request::Verdict { migration: migration(), generation },
            Word::Abort => Request::Abort { reason: String::new(), keep_disks: true },
            Word::TakenBack => Request::TakenBack {
                migration: migration(),
                guest: GUEST.to_owned(),
                // The generation that the guest has at its source since.
                generation: generation + 1,
            },
            Word::Readdress => Request::Concluded { migration: migration() },
            _ => return,
        };
        let account = Account::of(&self.destination.journal.records(), name(said.number));
        let at = match self.destination.visits.iter().position(|visit| visit.link == said.link) {
            Some(at) => at,
            None => {
                self.destination.visits.push(Visit::new(said.link));
                self.destination.visits.len() - 1
            }
        };
        // One request after the other: while it starts a guest it reads none.
        if self.destination.visits[at].next().is_none() {
            let is_starting = self
                .destination
                .visits
                .iter()
                .any(|other| other.number == said.number && other.next().is_some());
            let asked = Event::Asked { id: 0, request: Box::new(request), account, is_starting };
            self.tell_visit(at, asked, Some(said), rules);
        }
        self.destination.visits.retain(|visit| !visit.is_over());
    }

    /// Tells a visit what happened, and does what is done in that moment. `heard`: what was said that it is about.
    fn tell_visit(&mut self, at: usize, event: Event, heard: Option<Said>, rules: &Rules) {
        let mut visit = std::mem::replace(&mut self.destination.visits[at], Visit::new(0));
        visit.handle(event);
        let mut next = None;
        while let Some(action) = visit.poll() {
            match action {
                // Each a step of its own, before which anything may die.
                Action::Promote | Action::Run(_) | Action::RemoveCopies { .. } => next = Some(action),
                Action::Promise(Promise { step: Step::Started | Step::HandedBack, .. })
                    if heard.is_none() =>
                {
                    next = Some(action);
                }
                action => {
                    if let Some(event) = self.perform(&mut visit, action, heard, rules) {
                        visit.handle(event);
                    }
                }
            }
        }
        visit.rest_with(next);
        self.destination.visits[at] = visit;
    }

    /// What a daemon does in the moment in which it is told something.
    fn perform(
        &mut self,
        visit: &mut Visit,
        action: Action,
        heard: Option<Said>,
        rules: &Rules,
    ) -> Option<Event> {
        match action {
            Action::Reserve { id, wanted } => {
                let number = number_of(&wanted.migration);
                let reserved = self.reserve(visit, number, rules).then(|| {
                    visit.number = number;
                    (reserved(), Some(arriving(number, self.source.journal.generation_of(number))))
                });
                Some(Event::Reserved { id, reserved: reserved.ok_or_else(|| vec!["no room".to_owned()]) })
            }
            Action::Look { generation } => {
                let is_here = matches!(self.destination.machine, Machine::Paused(_));
                let is_sealed = u64::from(self.destination.disk.sealed) == generation;
                let looked = if is_here && is_sealed { Ok(()) } else { Err("not all is here".to_owned()) };
                Some(Event::Looked(looked))
            }
            Action::Promise(promise) => Some(Event::Promised(Ok(self.journal_there(&promise, heard, rules)))),
            Action::Answer { answer, .. } => {
                self.say_answer(visit, &answer, heard);
                None
            }
            Action::Notify(Notice::Loaded {}) => {
                self.wire.say(Word::Loaded, visit.number, visit.link);
                None
            }
            Action::Notify(Notice::Running {}) => {
                self.wire.say(Word::Running, visit.number, visit.link);
                None
            }
            // The source asks the journal.
            Action::Notify(Notice::Failed { .. }) => None,
            Action::CloseAccount { id, migration, .. } => {
                let number = number_of(&migration);
                let generation = self.destination.journal.generation_of(number);
                self.destination.journal.append(number, generation, Step::Done);
                Some(Event::Done { id, done: Ok(Answer::Done {}) })
            }
            // What was not written is forgotten.
            Action::EndOtherVisit { .. } if !rules.verdict_is_journalled => None,
            Action::EndOtherVisit { migration } => {
                let number = number_of(&migration);
                self.end_visits(rules, |other| other.number == number && other.is_open());
                None
            }
            Action::GiveGuestBack { id, .. } => {
                self.fence(true);
                self.destination.machine = Machine::Gone;
                self.destination.may_start = false;
                Some(Event::Done { id, done: Ok(Answer::Done {}) })
            }
            Action::GiveUp { .. } => {
                if std::mem::take(&mut visit.number) > 0 {
                    self.destination.machine = Machine::Gone;
                }
                None
            }
            Action::Settle if !rules.done_when_the_source_knows => {
                let generation = self.destination.journal.generation_of(visit.number);
                self.destination.journal.append(visit.number, generation, Step::Done);
                None
            }
            Action::Wait { .. } => Some(Event::TryAgain),
            Action::Settle | Action::LetGo { .. } => None,
            other => unreachable!("{other:?} is a step of its own, or not of this world"),
        }
    }

    /// Whether there is room, which is kept then. A new link replaces what came by an older one.
    fn reserve(&mut self, visit: &Visit, number: u8, rules: &Rules) -> bool {
        let (link, may_be_replaced) = (visit.link, [Stage::Reserved, Stage::Loaded]);
        self.end_visits(rules, |other| other.link < link && may_be_replaced.contains(&other.stage()));
        let is_free = self.arrival().is_none() && self.destination.machine == Machine::Gone;
        let disk_is_a_copy = matches!(self.destination.disk.role, Role::Replica | Role::Fenced);
        if !is_free || !disk_is_a_copy {
            return false;
        }
        let generation = self.source.journal.generation_of(number);
        self.destination.journal.append(number, generation, Step::Reserved);
        self.destination.disk.role = Role::Replica;
        self.destination.disk.sealed = 0;
        self.destination.machine = Machine::Incoming;
        true
    }

    /// Writes a promise. Gives whether the guest was taken, as the journal decides it.
    fn journal_there(&mut self, promise: &Promise, heard: Option<Said>, rules: &Rules) -> bool {
        let number = number_of(&promise.migration);
        let generation = self.source.journal.generation_of(number);
        if !matches!(promise.step, Step::Taken | Step::Refused) {
            self.destination.journal.append(number, generation, promise.step);
            return promise.step != Step::HandedBack;
        }
        let before = self.destination.journal.verdict(number);
        let before = if rules.refusals_hold { before } else { before.filter(|taken| *taken) };
        if let Some(taken) = before {
            return taken;
        }
        let is_written = match (promise.step, heard.map(|said| said.word)) {
            (Step::Refused, Some(Word::Ask)) => rules.verdict_is_journalled,
            _ => true,
        };
        if is_written {
            self.destination.journal.append(number, generation, promise.step);
        }
        promise.step == Step::Taken
    }

    /// What the source hears of an answer.
    fn say_answer(&mut self, visit: &Visit, answer: &Answer, heard: Option<Said>) {
        let Some(heard) = heard else { return };
        let mut say = |word| self.wire.say(word, heard.number, visit.link);
        match (answer, heard.word) {
            (Answer::Reserved(_), _) => say(Word::Reserved),
            (Answer::Refused { .. }, Word::Reserve) => say(Word::NoRoom),
            (Answer::Refused { .. }, Word::Take) => say(Word::NotTaken),
            (Answer::Verdict { taken: false, .. }, _) => say(Word::NotTaken),
            (Answer::Verdict { taken: true, running }, _) => {
                say(Word::Taken);
                if *running {
                    say(Word::Running);
                }
            }
            _ => {}
        }
    }

    fn fence(&mut self, fence: bool) {
        if fence && self.destination.disk.role == Role::Promoted {
            self.destination.disk.role = Role::Fenced;
        }
    }

    /// Ends the visits that fit, as when their link has ended.
    fn end_visits(&mut self, rules: &Rules, fits: impl Fn(&Visit) -> bool) {
        for at in 0..self.destination.visits.len() {
            if fits(&self.destination.visits[at]) {
                self.tell_visit(at, Event::LinkEnded(String::new()), None, rules);
            }
        }
    }

    /// Its QEMU says that it has the whole guest.
    pub fn destination_has_loaded(&mut self, rules: &Rules) {
        let at = self.destination.visits.iter().position(|visit| visit.stage() == Stage::Reserved);
        self.tell_visit(at.expect("a guest is on its way"), Event::Loaded(Ok(())), None, rules);
    }

    /// Its QEMU has ended.
    pub fn destination_loses_qemu(&mut self, rules: &Rules) {
        let expects = |visit: &Visit| matches!(visit.stage(), Stage::Reserved | Stage::Loaded);
        if let Some(at) = self.destination.visits.iter().position(expects) {
            self.tell_visit(at, Event::QemuEnded, None, rules);
        }
        self.destination.visits.retain(|visit| !visit.is_over());
    }

    /// It finds that the links up to this one are dead. One by which a guest was taken is heard of when that is started.
    pub fn destination_loses_links(&mut self, upto: u8, rules: &Rules) {
        self.destination.ended = self.destination.ended.max(upto);
        for visit in &mut self.destination.visits {
            if visit.link <= upto && visit.next().is_some() {
                visit.link = 0;
            }
        }
        self.end_visits(rules, |visit| visit.link > 0 && visit.link <= upto);
        self.destination.visits.retain(|visit| !visit.is_over());
    }

    /// True where it has something to do by itself.
    pub fn destination_has_a_step(&self) -> bool {
        self.destination.daemon && self.destination.visits.iter().any(|visit| visit.next().is_some())
    }

    /// The next step of starting a guest that was taken.
    pub fn destination_step(&mut self, rules: &Rules) {
        let at = self.destination.visits.iter().position(|visit| visit.next().is_some());
        let at = at.expect("a guest was taken");
        let visit = &self.destination.visits[at];
        let (number, action) = (visit.number, visit.next().cloned().expect("it was looked for"));
        let gone = || Trouble { why: String::new(), qemu_has_ended: true };
        let event = match (action, self.destination.machine) {
            (Action::Promise(Promise { step: Step::Started, .. }), Machine::Paused(version))
                if !rules.started_before_it_runs =>
            {
                self.destination.machine = Machine::Running(version);
                return;
            }
            (Action::Promote, Machine::Gone) => Event::Promoted(Err(gone())),
            (Action::Promote, _) => {
                let generation = self.destination.journal.generation_of(number);
                if self.destination.disk.role == Role::Replica {
                    assert_eq!(
                        self.destination.disk.sealed, generation,
                        "it was looked at before it was taken"
                    );
                    self.destination.disk.role = Role::Promoted;
                }
                Event::Promoted(Ok(()))
            }
            (Action::Promise(Promise { step: Step::Started, .. }), Machine::Gone) => {
                Event::Promised(Err("its QEMU has ended".to_owned()))
            }
            (Action::Promise(promise), _) => Event::Promised(Ok(self.journal_there(&promise, None, rules))),
            (Action::Run(_), Machine::Paused(version) | Machine::Running(version)) => {
                self.destination.machine = Machine::Running(version);
                Event::Runs(Ok(()))
            }
            (Action::Run(_), _) => Event::Runs(Err(gone())),
            (Action::RemoveCopies { why }, _) => {
                self.fence(rules.fence_before_handing_back);
                self.destination.machine = Machine::Gone;
                Event::CopiesRemoved(why)
            }
            (other, _) => unreachable!("{other:?} is done at once"),
        };
        self.tell_visit(at, event, None, rules);
        let visit = &self.destination.visits[at];
        // Nobody is there any more who could ask for anything else.
        if visit.link == 0 && visit.next().is_none() {
            self.tell_visit(at, Event::LinkEnded(String::new()), None, rules);
        }
        self.destination.visits.retain(|visit| !visit.is_over());
    }

    /// Its daemon is started.
    pub fn destination_restarts(&mut self, rules: &Rules) {
        self.destination.daemon = true;
        let number = self.destination.journal.newest();
        let machine = self.destination.machine;
        let holds_guest = matches!(machine, Machine::Paused(_) | Machine::Running(_));
        let records = self.destination.journal.records();
        match recover::destination(&records, name(number), holds_guest) {
            AtDestination::Nothing => {}
            AtDestination::ClearAway => self.destination.machine = Machine::Gone,
            AtDestination::HandBack => {
                self.fence(rules.fence_before_handing_back);
                self.destination.machine = Machine::Gone;
                let generation = self.destination.journal.generation_of(number);
                self.destination.journal.append(number, generation, Step::HandedBack);
            }
            AtDestination::Start | AtDestination::Keep if holds_guest => {
                let generation = self.destination.journal.generation_of(number);
                let is_started = Account::of(&records, name(number)).has_started();
                let mut visit = Visit::taken_up(number, generation, is_started);
                let next = visit.poll();
                visit.rest_with(next);
                self.destination.visits.push(visit);
            }
            AtDestination::Start => panic!("a guest would be started whose memory is lost"),
            AtDestination::Keep => {}
        }
    }

    /// The guest was here, and its machine is gone.
    pub fn has_lost_its_guest(&self) -> bool {
        let number = self.destination.journal.newest();
        self.destination.daemon
            && self.destination.machine == Machine::Gone
            && self.arrival().is_none()
            && self.destination.journal.verdict(number) == Some(true)
    }

    /// It may be started from its disk: the source knows that it is here, or has said so since.
    pub fn destination_may_start(&self, rules: &Rules) -> bool {
        let number = self.destination.journal.newest();
        let known = self.destination.journal.last(number) == Some(Step::Done);
        self.has_lost_its_guest() && (known || self.destination.may_start || !rules.ask_whose_guest_it_is)
    }
}

fn reserved() -> Reserved {
    Reserved {
        reservation: String::new(),
        qemu_version: String::new(),
        tunnel_address: None,
        new_addresses: Vec::new(),
        is_home: false,
        warnings: Vec::new(),
    }
}
