//! The source's operations, carried out in simulated time; what they bring goes back to the product's `Source`.

use migrated::journal::Step;
use migrated::phase::{OnLostLink, Op, Phase, Promise};
use migrated::recover::{self, AtSource};
use migrated::source::{Action, Cause, Event, Failure, Notice, Source};

use super::happening::{Happening, Stretch};
use super::simulation::{LIMITS, Simulation};
use super::state::{Doing, Machine, Role, name};
use super::wire::{Said, Word};

/// How long a word may remain unanswered.
const ASK_LIMIT_MS: u64 = 15_000;

impl Simulation {
    /// Tells the migration what happened, and does what it wants done.
    pub fn tell(&mut self, event: Event) {
        let now = self.now;
        let Some(migration) = &mut self.migration else { return };
        migration.handle(event, now);
        self.act();
    }

    /// Does what the migration wants done.
    pub fn act(&mut self) {
        while let Some(action) = self.migration.as_mut().and_then(Source::poll_action) {
            self.note(format!("  {action:?}"));
            match action {
                Action::Enter(phase) => {
                    self.see_phase(phase);
                    self.seen.again += u64::from(phase == Phase::Recovering);
                    self.seen.in_doubt += u64::from(phase == Phase::InDoubt);
                }
                Action::Start(op, promise) => self.start(op, promise),
                Action::StopAll => self.turn += 1,
                Action::NotePause | Action::Note(_) | Action::Warn(_) => {}
            }
        }
        self.follow();
        let outcome = self.migration.as_ref().filter(|migration| migration.phase().is_final());
        if let Some(outcome) = outcome.and_then(Source::outcome) {
            self.end(outcome);
        }
    }

    /// Somebody cancels. Accepted, it ends the copy at once; refused, it changes nothing.
    pub fn cancel(&mut self) {
        let phase = |simulation: &Self| simulation.migration.as_ref().map(Source::phase);
        let before = phase(self);
        self.tell(Event::Cancelled);
        let after = phase(self);
        if after == Some(Phase::RollingBack) && before != after {
            self.seen.cancelled += 1;
            self.cancelled_at = Some(self.now);
        } else if before != after {
            self.note(format!("a cancel led from {before:?} to {after:?}"));
            self.seen.misled += 1;
        }
    }

    fn finish(&mut self, op: Op) {
        self.tell(Event::Finished(op));
    }

    fn fail(&mut self, op: Op, why: &str) {
        self.tell(Event::Failed(op, Failure { why: why.to_owned(), cause: Cause::Other }));
    }

    /// Its promise is made when it begins, or with what it brings: both long before the next thing that can happen.
    fn start(&mut self, op: Op, promise: Option<Promise>) {
        if let Some(Promise::Before(step) | Promise::IfPossible(step)) = promise {
            self.has_begun |= step == Step::Begun;
            self.state.promise(step);
        }
        let (turn, most_ms) = (self.turn, most_ms(op));
        let later = 1 + self.a_while(most_ms);
        self.after(later, Happening::Goes(turn, op, Stretch::Deed));
    }

    fn later(&mut self, most_ms: u64, op: Op, stretch: Stretch) {
        let later = 1 + self.a_while(most_ms);
        self.after(later, Happening::Goes(self.turn, op, stretch));
    }

    fn link_lives(&self) -> bool {
        self.state.source.linked && self.state.links > self.dead
    }

    /// An operation goes on.
    pub fn go_on(&mut self, op: Op, stretch: Stretch) {
        match (op, stretch) {
            (Op::HandOver | Op::Reserve, Stretch::Unanswered) => self.fail(op, "no answer"),
            (Op::AskVerdict | Op::AwaitRunning, Stretch::Unanswered) => {
                self.state.source.linked = false;
                self.ask(op);
            }
            (_, Stretch::End | Stretch::Unanswered) => self.finish_deed(op),
            (_, Stretch::Deed) => self.deed(op),
        }
    }

    fn deed(&mut self, op: Op) {
        match op {
            Op::Connect => self.connect(),
            Op::Reserve => {
                self.say(Word::Reserve);
                self.after(60_000, Happening::Goes(self.turn, op, Stretch::Unanswered));
            }
            Op::PreparePath if self.rng.chance(2) => self.fail(op, "no packet came through"),
            Op::Replicate => {
                let later = 1 + self.a_while(20_000);
                self.after(later, Happening::NearlyDone(self.turn));
                self.finish(op);
            }
            Op::AwaitPause => self.pause(),
            Op::Seal => self.seal(),
            Op::FinishRam if self.link_lives() && self.state.source.machine != Machine::Gone => {
                let later = 1 + self.a_while(2_000);
                let version = self.state.source.machine.version().unwrap_or_default();
                self.after(later, Happening::Moved(self.state.links, version));
                self.finish(op);
            }
            // What needs the link stands still without it.
            Op::FinishRam => {}
            Op::AwaitLoaded if self.heard.0 => self.finish(op),
            Op::AwaitLoaded => {}
            Op::Release if self.link_lives() => {
                self.state.promise(Step::Releasing);
                self.finish(op);
            }
            Op::Release => self.fail(op, "the link does not answer"),
            Op::HandOver => {
                self.say(Word::Take);
                self.after(ASK_LIMIT_MS, Happening::Goes(self.turn, op, Stretch::Unanswered));
            }
            Op::AwaitRunning if self.heard.1 => self.finish(op),
            Op::AskVerdict | Op::AwaitRunning => self.ask(op),
            Op::Readdress => {
                self.say(Word::Readdress);
                self.later(1_000, op, Stretch::End);
            }
            Op::Retreat | Op::Restore => {
                self.state.source.disk.sealed = 0;
                if let Machine::Paused(version) = self.state.source.machine {
                    self.state.source.machine = Machine::Running(version);
                }
                self.later(500, op, Stretch::End);
            }
            Op::CallOff => {
                self.say(Word::Abort);
                self.later(100, op, Stretch::End);
            }
            Op::Inspect | Op::PreparePath | Op::StartRam | Op::SwitchPath | Op::Fence | Op::CleanUp => {
                self.later(100, op, Stretch::End);
            }
        }
    }

    fn finish_deed(&mut self, op: Op) {
        match op {
            Op::Fence => self.state.source.disk.role = Role::Fenced,
            Op::CleanUp => self.state.source.machine = Machine::Gone,
            Op::Retreat if self.state.source.machine == Machine::Gone => {
                return self.fail(op, "the guest's QEMU has ended");
            }
            Op::Retreat => {
                self.state.source.linked = false;
                self.heard = (false, false);
            }
            _ => {}
        }
        self.finish(op);
    }

    fn makes_link(&mut self) -> bool {
        let there = self.way && self.state.destination.daemon;
        if there {
            self.state.links += 1;
            self.state.source.linked = true;
            self.heard = (false, false);
            self.last_word = Default::default();
        }
        there
    }

    fn connect(&mut self) {
        if self.makes_link() {
            self.finish(Op::Connect);
        } else if self.has_begun {
            self.later(5_000, Op::Connect, Stretch::Deed);
        } else {
            self.fail(Op::Connect, "it does not answer");
        }
    }

    /// Asks the destination's journal, by a link that lives or a new one, again and again.
    fn ask(&mut self, op: Op) {
        if self.state.source.linked || self.makes_link() {
            self.say(Word::Ask);
            self.after(ASK_LIMIT_MS, Happening::Goes(self.turn, op, Stretch::Unanswered));
        } else {
            self.later(5_000, op, Stretch::Deed);
        }
    }

    fn pause(&mut self) {
        if let Machine::Running(version) = self.state.source.machine {
            self.state.source.machine = Machine::Paused(version);
            self.finish(Op::AwaitPause);
        }
    }

    fn seal(&mut self) {
        if self.link_lives() && self.state.arrival_by_the_link().is_some() {
            let generation = self.state.next_generation();
            self.state.source.disk.sealed = generation;
            self.state.destination.disk.version = self.state.source.disk.version;
            self.state.destination.disk.sealed = generation;
            self.finish(Op::Seal);
        }
    }

    /// The source hears something.
    pub fn hear(&mut self, said: Said) {
        let is_heard = self.state.source.linked && said.link == self.state.links;
        if !is_heard || self.state.source.daemon.is_none() {
            return;
        }
        match said.word {
            Word::Reserved => self.finish(Op::Reserve),
            Word::NoRoom => self.fail(Op::Reserve, "no room"),
            Word::Loaded => {
                self.heard.0 = true;
                self.finish(Op::AwaitLoaded);
            }
            Word::Taken => self.tell(Event::Verdict { taken: true }),
            Word::NotTaken => self.tell(Event::Verdict { taken: false }),
            Word::Running => {
                self.heard.1 = true;
                self.tell(Event::Verdict { taken: true });
                self.finish(Op::AwaitRunning);
            }
            _ => {}
        }
    }

    /// The source finds that its link is dead.
    pub fn lose_link(&mut self) {
        self.state.source.linked = false;
        let Some(migration) = &self.migration else { return };
        match migration.phase() {
            Phase::InDoubt => self.ask_anew(Op::AskVerdict),
            Phase::Resume => self.ask_anew(Op::AwaitRunning),
            Phase::Commitment => {
                let failure =
                    Failure { why: "no answer".into(), cause: Cause::Link("the link ended".into()) };
                self.tell(Event::Failed(Op::HandOver, failure));
            }
            phase if phase.row().on_lost_link != OnLostLink::Fail => {
                self.tell(Event::Notice(Notice::PeerGone("the link ended".into())));
            }
            _ => {}
        }
    }

    fn ask_anew(&mut self, op: Op) {
        self.turn += 1;
        self.later(1_000, op, Stretch::Deed);
    }

    /// The source's QEMU has ended.
    pub fn see_qemu_end(&mut self) {
        self.tell(Event::Notice(Notice::QemuEnded));
    }

    /// A new daemon takes up what its journal says.
    pub fn take_up(&mut self) {
        self.state.source.daemon = Some(Doing::Idle);
        let number = self.state.source.number;
        let records = self.state.source.journal.records();
        let machine = self.state.source.machine;
        self.heard = (false, false);
        self.has_begun = true;
        match recover::source(&records, name(number)) {
            AtSource::Retry if machine == Machine::Gone => {
                self.state.source.disk.sealed = 0;
                self.state.promise(Step::RolledBack);
            }
            next => self.migration = Source::taken_up(next, LIMITS, self.now),
        }
        self.act();
    }
}

/// The longest that an operation takes to do what it does.
fn most_ms(op: Op) -> u64 {
    match op {
        Op::Connect | Op::Reserve | Op::PreparePath => 500,
        Op::AwaitPause => 10_000,
        Op::Seal | Op::FinishRam | Op::SwitchPath => 2_000,
        _ => 50,
    }
}
