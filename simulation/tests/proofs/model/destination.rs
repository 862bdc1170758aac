//! The destination's daemon: what it does, and what it makes of what it hears.
//!
//! Which word is heard in which stage, and about which migration, is asked of `migrated::destination`, what was promised of
//! `migrated::journal`, what it does after a restart of `migrated::recover`.

use migrated::destination::{self, allow};
use migrated::journal::{Account, Step};
use migrated::peer::Request;
use migrated::recover::{self, AtDestination};

use super::rules::Rules;
use super::state::{Arrival, Machine, Role, Stage, State, name};
use super::wire::{Said, Word};

impl State {
    /// The stage of the visit by a link.
    fn stage(&self, said: Said) -> destination::Stage {
        let arrival = self.destination.arrival;
        match arrival.filter(|arrival| arrival.link == said.link && arrival.number == said.number) {
            None => destination::Stage::Nothing,
            Some(arrival) => match arrival.stage {
                Stage::Reserved => destination::Stage::Reserved,
                Stage::Loaded => destination::Stage::Loaded,
                Stage::Taken => destination::Stage::Taken,
            },
        }
    }

    /// Whether the destination lets itself be told this by a link now.
    fn is_allowed(&self, said: Said, request: &Request) -> bool {
        let arrival = self.destination.arrival;
        let arrival = arrival.filter(|arrival| arrival.link == said.link && arrival.number == said.number);
        let arriving = arrival.map(|arrival| name(arrival.number));
        let account = Account::of(&self.destination.journal.records(), name(said.number));
        allow(self.stage(said), "", arriving, request, &account).is_ok()
    }

    /// It hears something.
    pub fn destination_hears(&mut self, said: Said, rules: &Rules) {
        match said.word {
            Word::Reserve => self.reserve(said),
            Word::Take => self.take(said, rules),
            Word::Ask => self.answer_verdict(said, rules),
            Word::Abort => {
                let request = Request::Abort { reason: String::new(), keep_disks: true };
                let stage = self.stage(said);
                if stage != destination::Stage::Nothing && self.is_allowed(said, &request) {
                    self.give_up();
                }
            }
            Word::TakenBack => self.hear_that_it_was_taken_back(said.number),
            // Whoever is still being started is not done.
            Word::Readdress if self.destination.arrival.is_none() && self.has_started_there() => {
                let generation = self.destination.journal.generation_of(said.number);
                self.destination.journal.append(said.number, generation, Step::Done);
            }
            Word::Yours => self.destination.may_start = self.has_lost_its_guest(),
            _ => {}
        }
    }

    fn reserve(&mut self, said: Said) {
        // A new link replaces what came by an older one.
        let arrival = self.destination.arrival;
        if arrival.is_some_and(|arrival| arrival.stage < Stage::Taken && arrival.link < said.link) {
            self.give_up();
        }
        let request = Request::Abort { reason: String::new(), keep_disks: true };
        let free = self.destination.arrival.is_none() && self.destination.machine == Machine::Gone;
        let disk_is_a_copy = matches!(self.destination.disk.role, Role::Replica | Role::Fenced);
        if !free || !disk_is_a_copy {
            if self.is_allowed(said, &request) && self.stage(said) == destination::Stage::Nothing {
                self.wire.say(Word::NoRoom, said.number, said.link);
            }
            return;
        }
        let generation = self.source.journal.generation_of(said.number);
        self.destination.journal.append(said.number, generation, Step::Reserved);
        self.destination.disk.role = Role::Replica;
        self.destination.disk.sealed = 0;
        self.destination.machine = Machine::Incoming;
        let (number, link, stage) = (said.number, said.link, Stage::Reserved);
        self.destination.arrival = Some(Arrival { number, generation, link, stage });
        self.wire.say(Word::Reserved, number, link);
    }

    /// Its QEMU says that it has the whole guest.
    pub fn destination_has_loaded(&mut self) {
        let arrival = self.destination.arrival.as_mut().expect("a guest is on its way");
        arrival.stage = Stage::Loaded;
        self.wire.say(Word::Loaded, arrival.number, arrival.link);
    }

    fn take(&mut self, said: Said, rules: &Rules) {
        let generation = self.source.journal.generation_of(said.number);
        let request = Request::Take {
            migration: name(said.number).to_owned(),
            generation: u64::from(generation),
            run: true,
        };
        let allowed = self.is_allowed(said, &request);
        let loaded = matches!(self.destination.machine, Machine::Paused(_));
        let complete = allowed && loaded && self.destination.disk.sealed == generation;
        if !allowed && !rules.refusals_are_journalled {
            self.wire.say(Word::NotTaken, said.number, said.link);
            return;
        }
        let before = self.destination.journal.verdict(said.number);
        let before = if rules.refusals_hold { before } else { before.filter(|taken| *taken) };
        if before.is_none() {
            let step = if complete { Step::Taken } else { Step::Refused };
            self.destination.journal.append(said.number, generation, step);
            if let Some(arrival) = self.destination.arrival.as_mut().filter(|_| complete) {
                arrival.stage = Stage::Taken;
            }
        }
        let word = if before.unwrap_or(complete) { Word::Taken } else { Word::NotTaken };
        self.wire.say(word, said.number, said.link);
    }

    fn answer_verdict(&mut self, said: Said, rules: &Rules) {
        let verdict = self.destination.journal.verdict(said.number);
        if verdict.is_none() && rules.verdict_is_journalled {
            let generation = self.source.journal.generation_of(said.number);
            self.destination.journal.append(said.number, generation, Step::Refused);
        }
        let taken = verdict == Some(true);
        let word = if taken { Word::Taken } else { Word::NotTaken };
        self.wire.say(word, said.number, said.link);
        if taken && self.destination.journal.says(said.number, Step::Started) {
            self.wire.say(Word::Running, said.number, said.link);
        }
    }

    fn hear_that_it_was_taken_back(&mut self, number: u8) {
        if self.destination.journal.verdict(number) == Some(true) {
            self.hand_back(number, true);
        }
    }

    /// The guest is not this host's any more. Nobody may write the disk here before the other side is told so.
    fn hand_back(&mut self, number: u8, fence: bool) {
        let generation = self.destination.journal.generation_of(number);
        if fence && self.destination.disk.role == Role::Promoted {
            self.destination.disk.role = Role::Fenced;
        }
        self.destination.machine = Machine::Gone;
        self.destination.journal.append(number, generation, Step::HandedBack);
        if let Some(arrival) = self.destination.arrival.take() {
            self.wire.say(Word::NotTaken, number, arrival.link);
        }
        self.destination.may_start = false;
    }

    /// What was not taken is given up.
    fn give_up(&mut self) {
        self.destination.arrival = None;
        self.destination.machine = Machine::Gone;
    }

    /// It finds that the links up to this one are dead.
    pub fn destination_loses_links(&mut self, upto: u8) {
        self.destination.ended = self.destination.ended.max(upto);
        match &mut self.destination.arrival {
            Some(arrival) if arrival.link > upto => {}
            Some(arrival) if arrival.stage < Stage::Taken => self.give_up(),
            Some(arrival) => arrival.link = 0,
            None => {}
        }
    }

    /// True where it has something to do by itself.
    pub fn destination_has_a_step(&self) -> bool {
        let stage = self.destination.arrival.map(|arrival| arrival.stage);
        self.destination.daemon && stage.is_some_and(|stage| stage >= Stage::Taken)
    }

    /// The next step of starting a guest that was taken.
    pub fn destination_step(&mut self, rules: &Rules) {
        let arrival = self.destination.arrival.expect("a guest was taken");
        let (number, generation) = (arrival.number, arrival.generation);
        let started = self.destination.journal.says(number, Step::Started);
        match self.destination.machine {
            Machine::Gone if !started => self.hand_back(number, rules.fence_before_handing_back),
            Machine::Gone => self.destination.arrival = None,
            _ if self.destination.disk.role == Role::Replica => {
                assert_eq!(self.destination.disk.sealed, generation, "it was looked at before it was taken");
                self.destination.disk.role = Role::Promoted;
            }
            Machine::Paused(version) if !started && !rules.started_before_it_runs => {
                self.destination.machine = Machine::Running(version);
            }
            _ if !started => self.destination.journal.append(number, generation, Step::Started),
            Machine::Paused(version) => self.destination.machine = Machine::Running(version),
            Machine::Running(_) => {
                self.wire.say(Word::Running, number, arrival.link);
                self.destination.arrival = None;
                if !rules.done_when_the_source_knows {
                    self.destination.journal.append(number, generation, Step::Done);
                }
            }
            Machine::Incoming => unreachable!("what has not arrived is not taken"),
        }
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
            AtDestination::ClearAway => self.give_up(),
            AtDestination::HandBack => self.hand_back(number, rules.fence_before_handing_back),
            AtDestination::Start | AtDestination::Keep if holds_guest => {
                let generation = self.destination.journal.generation_of(number);
                let (link, stage) = (0, Stage::Taken);
                self.destination.arrival = Some(Arrival { number, generation, link, stage });
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
            && self.destination.arrival.is_none()
            && self.destination.journal.verdict(number) == Some(true)
    }

    /// It may be started from its disk: the source knows that it is here, or has said so since.
    pub fn destination_may_start(&self, rules: &Rules) -> bool {
        let number = self.destination.journal.newest();
        let known = self.destination.journal.last(number) == Some(Step::Done);
        self.has_lost_its_guest() && (known || self.destination.may_start || !rules.ask_whose_guest_it_is)
    }
}
