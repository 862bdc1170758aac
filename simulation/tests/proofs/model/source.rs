//! The source's daemon: what it does, and what it makes of what it hears.
//!
//! The order of its steps is the product's (`migrated::phase::TABLE`, `io::source`); what it does after a restart
//! is asked of `migrated::recover`, whether a guest may be started of `migrated::journal`.

use migrated::journal::{Step, handed_over};
use migrated::recover::{self, AtSource};

use super::rules::Rules;
use super::state::{Doing, GUEST, Machine, Role, State, name};
use super::wire::{Said, Word};

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

    /// Somebody sends the guest.
    pub fn begin(&mut self) {
        self.source.number += 1;
        let (number, generation) = (self.source.number, self.source.generation + 1);
        self.source.journal.append(number, generation, Step::Begun);
        self.source.daemon = Some(Doing::Calling);
        // Each migration makes a link of its own.
        self.source.linked = false;
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
            Some(Doing::Calling) => self.say(Word::Reserve),
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
        self.source.daemon = self.source.daemon.map(|doing| match doing {
            Doing::Copying | Doing::Pausing { .. } => Doing::RollingBack { again: true },
            Doing::HandingOver => Doing::Asking,
            other => other,
        });
    }

    /// Everything that M7 asks for is there.
    pub fn may_release(&self) -> bool {
        self.source.daemon == Some(Doing::Pausing { loaded: true })
            && self.source.linked
            && self.source.disk.sealed == self.next_generation()
            && matches!(self.source.machine, Machine::Paused(_))
    }

    /// Promises, and has the destination take the guest.
    pub fn release(&mut self) {
        self.promise(Step::Releasing);
        self.source.daemon = Some(Doing::HandingOver);
        self.say(Word::Take);
    }

    /// *Take* was not answered in time.
    pub fn doubt(&mut self) {
        self.source.daemon = Some(Doing::Asking);
        self.say(Word::Ask);
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
        self.source.daemon = Some(Doing::RollingBack { again: false });
    }

    /// It hears something.
    pub fn source_hears(&mut self, said: Said, rules: &Rules) {
        use Doing::{Asking, Awaiting, Calling, Copying, Finishing, HandingOver, Pausing, RollingBack};
        let Some(doing) = self.source.daemon else { return };
        let next = match (said.word, doing) {
            (Word::Reserved, Calling) => Copying,
            (Word::NoRoom, Calling) => RollingBack { again: false },
            (Word::Loaded, Pausing { .. }) => Pausing { loaded: true },
            (Word::Taken, HandingOver | Asking) if rules.fence_when_running => Awaiting,
            (Word::Taken, HandingOver | Asking) => Finishing,
            (Word::NotTaken, HandingOver | Asking | Awaiting) => RollingBack { again: false },
            (Word::Running, HandingOver | Asking | Awaiting) => Finishing,
            (Word::Whose, _) => {
                let back = self.source.journal.says(said.number, Step::TakenBack);
                let word = if back { Word::TakenBack } else { Word::Yours };
                self.wire.say(word, said.number, said.link);
                return;
            }
            _ => return,
        };
        self.source.daemon = Some(next);
    }

    /// True where it has something to do by itself.
    pub fn source_has_a_step(&self) -> bool {
        matches!(self.source.daemon, Some(Doing::Finishing | Doing::RollingBack { .. }))
            || self.source.daemon == Some(Doing::Calling) && self.source.machine == Machine::Gone
    }

    /// The next of its steps.
    pub fn source_step(&mut self) {
        match self.source.daemon {
            Some(Doing::Finishing) => self.finish(),
            Some(Doing::RollingBack { again }) => self.roll_back(again),
            Some(Doing::Calling) => self.source.daemon = Some(Doing::RollingBack { again: false }),
            _ => unreachable!("it has no step"),
        }
    }

    fn finish(&mut self) {
        if self.source.journal.last(self.source.number) != Some(Step::Released) {
            self.promise(Step::Released);
            self.say(Word::Readdress);
        } else if self.source.disk.role != Role::Fenced {
            self.source.disk.role = Role::Fenced;
        } else if self.source.machine != Machine::Gone {
            self.source.machine = Machine::Gone;
        } else {
            self.promise(Step::Done);
            self.source.generation = self.next_generation();
            self.source.daemon = Some(Doing::Idle);
            self.source.linked = false;
        }
    }

    fn roll_back(&mut self, again: bool) {
        match self.source.machine {
            // First the disk: the guest writes as soon as it goes on.
            _ if self.source.disk.sealed != 0 => self.source.disk.sealed = 0,
            Machine::Paused(version) => self.source.machine = Machine::Running(version),
            Machine::Running(_) if again => {
                self.source.linked = false;
                self.source.daemon = Some(Doing::Calling);
            }
            _ => {
                self.promise(Step::RolledBack);
                self.say(Word::Abort);
                self.source.daemon = Some(Doing::Idle);
                self.source.linked = false;
            }
        }
    }

    /// Its daemon is started.
    pub fn source_restarts(&mut self, rules: &Rules) {
        let number = self.source.number;
        let records = self.source.journal.records();
        let doing = match recover::source(&records, name(number)) {
            AtSource::Ask if !rules.ask_after_releasing => Doing::RollingBack { again: true },
            AtSource::Ask => Doing::Asking,
            AtSource::Retry => Doing::RollingBack { again: true },
            AtSource::Finish => Doing::Finishing,
            // What the operator said was promised and is perhaps not done.
            AtSource::RollBack if rules.operators_word_is_carried_out => Doing::RollingBack { again: false },
            AtSource::RollBack | AtSource::Nothing => Doing::Idle,
        };
        self.source.daemon = Some(doing);
    }

    /// The guest has no machine, and may be started here from its disk.
    pub fn source_may_start(&self) -> bool {
        self.source.daemon == Some(Doing::Idle)
            && self.source.machine == Machine::Gone
            && self.source.disk.is_writable()
            && handed_over(&self.source.journal.records(), GUEST).is_none()
    }
}
