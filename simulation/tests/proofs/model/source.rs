//! The source's host: does what the product's decider wants done, and tells it what came of that and what is heard.
//!
//! Which operation starts when, what is promised with it, and where a failure leads, is `migrated::source`'s; what is done
//! after a restart is asked of `migrated::recover`, whether a guest may be started of `migrated::journal`. In the simulation,
//! which has time, `carrier` stands in this place.

use migrated::journal::{Step, handed_over};
use migrated::phase::{OnLostLink, Op, Outcome, Promise};
use migrated::recover::{self, AtSource};
use migrated::source::{Action, Cause, Event, Failure, Notice};

use super::moving::Moving;
use super::rules::Rules;
use super::state::{Doing, GUEST, Machine, Role, State, name};
use super::wire::{Said, Word};

/// Operations that take steps of their own, before each of which anything may happen.
const STEPS: [Op; 5] = [Op::Fence, Op::CleanUp, Op::Retreat, Op::Restore, Op::CallOff];

fn failed(op: Op, cause: Cause) -> Event {
    Event::Failed(op, Failure { why: String::new(), cause })
}

impl State {
    /// The generation that the newest migration gives to the disks.
    pub fn next_generation(&self) -> u8 {
        self.source.journal.generation_of(self.source.number)
    }

    /// Says something to the destination, where there is a link.
    pub fn say(&mut self, word: Word) {
        if self.source.linked {
            self.wire.say(word, self.source.number, self.links);
        }
    }

    /// Journals something about the newest migration.
    pub fn promise(&mut self, step: Step) {
        let (number, generation) = (self.source.number, self.next_generation());
        self.source.journal.append(number, generation, step);
    }

    /// A number for a migration that somebody asks for.
    pub fn number(&mut self) {
        self.source.number += 1;
        let (number, generation) = (self.source.number, self.source.generation + 1);
        self.source.journal.append(number, generation, Step::Begun);
        // Each migration makes a link of its own.
        self.source.linked = false;
    }

    /// Somebody sends the guest.
    pub fn begin(&mut self) {
        self.number();
        self.go_on_with(Moving::new());
    }

    fn go_on_with(&mut self, moving: Moving) {
        self.source.moving = Some(moving);
        self.act();
    }

    /// Tells the decider what happened, and does what it wants done.
    pub fn tell_source(&mut self, event: Event) {
        if let Some(moving) = &mut self.source.moving {
            moving.handle(event);
            self.act();
        }
    }

    /// The phase has lasted too long.
    pub fn source_is_late(&mut self) {
        if let Some(moving) = &mut self.source.moving {
            moving.handle_timeout();
            self.act();
        }
    }

    fn act(&mut self) {
        while let Some(action) = self.source.moving.as_mut().and_then(Moving::poll) {
            if let Action::Start(op, promise) = action {
                if let Some(Promise::Before(step) | Promise::IfPossible(step)) = promise {
                    self.promise(step);
                }
                self.start(op);
            }
        }
        let Some(moving) = &self.source.moving else { return };
        self.source.daemon = Some(moving.doing());
        if let Some(outcome) = moving.end() {
            self.source.moving = None;
            self.source.linked = false;
            if outcome == Outcome::Moved {
                self.promise(Step::Done);
                self.source.generation = self.next_generation();
            }
        }
    }

    /// What an operation does in the moment in which it begins. What it waits for comes as another action of the world.
    fn start(&mut self, op: Op) {
        let has_ended = match op {
            Op::Inspect | Op::Replicate | Op::PreparePath | Op::StartRam => true,
            Op::SwitchPath | Op::FinishRam => true,
            Op::Connect | Op::AwaitPause | Op::Seal | Op::AwaitLoaded | Op::Release | Op::AwaitRunning => {
                false
            }
            Op::Reserve => {
                self.say(Word::Reserve);
                false
            }
            Op::HandOver => {
                self.say(Word::Take);
                false
            }
            Op::AskVerdict => {
                self.say(Word::Ask);
                false
            }
            Op::Readdress => {
                self.say(Word::Readdress);
                true
            }
            Op::Fence | Op::CleanUp | Op::Retreat | Op::Restore | Op::CallOff => false,
        };
        let Some(moving) = self.source.moving.as_mut().filter(|_| has_ended) else { return };
        moving.handle(Event::Finished(op));
        if op == Op::Replicate {
            moving.handle(Event::DisksNearlyDone);
        }
    }

    /// It has something to say and no link.
    pub fn source_wants_a_link(&self) -> bool {
        let owes = self.source.number > 0
            && self.source.journal.says(self.source.number, Step::TakenBack)
            && self.destination.journal.verdict(self.source.number) == Some(true);
        match self.source.daemon {
            Some(Doing::Calling | Doing::Asking | Doing::Awaiting) => true,
            Some(Doing::Idle) => owes,
            _ => false,
        }
    }

    /// There is a link.
    pub fn source_has_a_link(&mut self) {
        self.source.linked = true;
        match self.source.daemon {
            Some(Doing::Calling) => self.tell_source(Event::Finished(Op::Connect)),
            Some(Doing::Asking | Doing::Awaiting) => self.say(Word::Ask),
            Some(Doing::Idle)
                if self.source.number > 0
                    && self.source.journal.says(self.source.number, Step::TakenBack) =>
            {
                self.say(Word::TakenBack);
            }
            _ => {}
        }
    }

    /// There is none any more, or it is not trusted.
    pub fn source_loses_its_link(&mut self) {
        self.source.linked = false;
        let Some(moving) = &self.source.moving else { return };
        if moving.awaits(Op::HandOver) {
            self.tell_source(failed(Op::HandOver, Cause::Link(String::new())));
        } else if moving.phase().row().on_lost_link != OnLostLink::Fail {
            self.tell_source(Event::Notice(Notice::PeerGone(String::new())));
        }
    }

    /// Everything that M7 asks for is there.
    pub fn may_release(&self) -> bool {
        self.source.moving.as_ref().is_some_and(|moving| moving.awaits(Op::Release))
            && self.source.linked
            && matches!(self.source.machine, Machine::Paused(_))
    }

    /// Promises, and has the destination take the guest.
    pub fn release(&mut self) {
        assert_eq!(self.source.disk.sealed, self.next_generation(), "M7: the disks are sealed");
        self.promise(Step::Releasing);
        self.tell_source(Event::Finished(Op::Release));
    }

    /// *Take* was not answered in time.
    pub fn doubt(&mut self) {
        self.tell_source(failed(Op::HandOver, Cause::Other));
    }

    /// It has asked, or was told *taken* and not yet *running*: it asks again, also on a link that lives.
    pub fn source_waits_for_an_answer(&self) -> bool {
        self.source.linked && matches!(self.source.daemon, Some(Doing::Asking | Doing::Awaiting))
    }

    /// Asks again.
    pub fn ask_again(&mut self) {
        self.say(Word::Ask);
    }

    /// An operator says that the guest is here.
    pub fn take_back(&mut self) {
        let there = &self.destination;
        // Alive, but cut off: it can start the guest at any time, or runs it.
        self.told.risked |= there.daemon || there.machine != Machine::Gone;
        self.told.forsaken |= self.source.disk.version < self.latest;
        let generation = self.next_generation() + 1;
        self.source.journal.append(self.source.number, generation, Step::TakenBack);
        self.source.generation = generation;
        self.tell_source(Event::Verdict { taken: false });
    }

    /// It hears something.
    pub fn source_hears(&mut self, said: Said, rules: &Rules) {
        match said.word {
            Word::Reserved => self.tell_source(Event::Finished(Op::Reserve)),
            Word::NoRoom => self.tell_source(failed(Op::Reserve, Cause::Other)),
            Word::Loaded => self.tell_source(Event::Finished(Op::AwaitLoaded)),
            Word::Taken => {
                self.tell_source(Event::Verdict { taken: true });
                if !rules.fence_when_running {
                    self.tell_source(Event::Finished(Op::AwaitRunning));
                }
            }
            Word::NotTaken => self.tell_source(Event::Verdict { taken: false }),
            Word::Running => {
                self.tell_source(Event::Verdict { taken: true });
                self.tell_source(Event::Finished(Op::AwaitRunning));
            }
            Word::Whose => {
                let back = self.source.journal.says(said.number, Step::TakenBack);
                let word = if back { Word::TakenBack } else { Word::Yours };
                self.wire.say(word, said.number, said.link);
            }
            _ => {}
        }
    }

    /// True where it has something to do by itself.
    pub fn source_has_a_step(&self) -> bool {
        self.source.moving.as_ref().is_some_and(|moving| moving.awaits_any(&STEPS).is_some())
    }

    /// The next of its steps.
    pub fn source_step(&mut self) {
        let moving = self.source.moving.as_ref().expect("it has a step");
        let op = moving.awaits_any(&STEPS).expect("it has a step");
        match op {
            Op::Fence => self.source.disk.role = Role::Fenced,
            Op::CleanUp => self.source.machine = Machine::Gone,
            Op::CallOff => self.say(Word::Abort),
            // First the disk: the guest writes as soon as it goes on.
            _ if self.source.disk.sealed != 0 => {
                self.source.disk.sealed = 0;
                return;
            }
            _ => match self.source.machine {
                Machine::Paused(version) => {
                    self.source.machine = Machine::Running(version);
                    return;
                }
                Machine::Gone if op == Op::Retreat => {
                    return self.tell_source(failed(op, Cause::Other));
                }
                _ if op == Op::Retreat => self.source.linked = false,
                _ => {}
            },
        }
        self.tell_source(Event::Finished(op));
    }

    /// Its daemon is started.
    pub fn source_restarts(&mut self, rules: &Rules) {
        self.source.daemon = Some(Doing::Idle);
        let records = self.source.journal.records();
        let next = match recover::source(&records, name(self.source.number)) {
            AtSource::Ask if !rules.ask_after_releasing => AtSource::Retry,
            // What the operator said was promised and is perhaps not done.
            AtSource::RollBack if !rules.operators_word_is_carried_out => AtSource::Nothing,
            next => next,
        };
        match next {
            // There is nothing to be moved any more.
            AtSource::Retry if self.source.machine == Machine::Gone => {
                self.source.disk.sealed = 0;
                self.promise(Step::RolledBack);
            }
            next => {
                if let Some(moving) = Moving::taken_up(next) {
                    self.go_on_with(moving);
                }
            }
        }
    }

    /// The guest has no machine, and may be started here from its disk.
    pub fn source_may_start(&self) -> bool {
        self.source.daemon == Some(Doing::Idle)
            && self.source.machine == Machine::Gone
            && self.source.disk.is_writable()
            && handed_over(&self.source.journal.records(), GUEST).is_none()
    }
}
