//! Everything that can happen next, to be explored.
//!
//! ```text
//!   guest ── writes ──► disk ══ seal ══► disk         (one step each: what carries bytes has proofs of its own)
//!                       memory ═ move ═► memory
//!   source ◄──────────── wire ──────────► destination  (loses, repeats, reorders)
//!      ▲ daemon, QEMU, host                  ▲ daemon, QEMU, host: each may die at any step, and comes back
//! ```

use migrated::destination::Stage;
use migrated::phase::Op;
use migrated::source::Event;
use stateright::{Model, Property};

use super::faults::deaths;
use super::rest;
use super::rules::Rules;
use super::state::{Destination, Disk, Doing, Journal, Machine, Role, Source, State, Told};
use super::wire::{Said, Wire, Word};

/// M2.
pub const NEVER_TWICE: &str = "never two that run the guest";
/// M1.
pub const ONE_WRITER: &str = "never two that can write the disk";
/// No acknowledged write is lost.
pub const WHOLE: &str = "who runs the guest has every acknowledged write, and can write";
/// M8.
pub const NOT_FORGOTTEN: &str = "a guest starts from its disk only after its memory was lost where it was";
/// Never none for ever.
pub const COMES_TO_REST: &str = "once nothing more goes wrong, the guest comes to run at one side";

/// How much may happen.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// Migrations.
    pub migrations: u8,
    /// Links.
    pub links: u8,
    /// Deaths of daemons, QEMUs and hosts.
    pub faults: u8,
    /// Writes of the guest.
    pub writes: u8,
}

/// The protocol.
#[derive(Clone, Copy, Debug)]
pub struct World {
    /// Which rules are kept.
    pub rules: Rules,
    /// How much may happen.
    pub bounds: Bounds,
    /// An operator may take the guest back.
    pub operator: bool,
}

/// A side.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Side {
    /// Where the guest was.
    Source,
    /// Where it goes.
    Destination,
}

/// What can die.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Part {
    /// The daemon alone.
    Daemon,
    /// The guest's QEMU alone.
    Machine,
    /// Everything; disks and journals stay.
    Host,
}

/// What happens.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Action {
    /// The guest writes, and is told so.
    Write(Side),
    /// Somebody sends the guest.
    Begin,
    /// Somebody cancels that.
    Cancel,
    /// A link is made.
    Connect,
    /// A word arrives.
    Hear(Said),
    /// A side finds that its links are dead.
    LoseLink(Side),
    /// The guest has stood still for too long.
    Deadline,
    /// *Take* was not answered in time.
    Doubt,
    /// The source asks again.
    AskAgain,
    /// QEMU pauses the guest.
    Pause,
    /// The disks are made equal, and sealed (D8).
    Seal,
    /// The last of the memory arrives.
    Move,
    /// The destination's QEMU says so.
    Load,
    /// The source promises *releasing*.
    Release,
    /// A daemon does what it does next by itself.
    Step(Side),
    /// Something dies.
    Die(Side, Part),
    /// A daemon is started, with its host where that is down.
    Restart(Side),
    /// A guest whose machine is gone is started from its disk.
    StartFromDisk(Side),
    /// An operator, in doubt, says that the guest is at the source.
    TakeBack,
}

impl Model for World {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        vec![self.beginning()]
    }

    fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        self.orderly(state, actions);
        actions.extend(state.wire.all().filter(|said| reaches(state, *said)).map(Action::Hear));
        if state.links < self.bounds.links && may_connect(state) {
            actions.push(Action::Connect);
        }
        self.unasked(state, actions);
        if state.faults > 0 {
            actions.extend(deaths(state));
        }
    }

    fn next_state(&self, last: &State, action: Action) -> Option<State> {
        let mut state = last.clone();
        self.apply(&mut state, action);
        // What changes nothing leads nowhere.
        (state != *last).then_some(state)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always(NEVER_TWICE, |_, state: &State| state.told.risked || state.running().len() < 2),
            Property::always(ONE_WRITER, |_, state: &State| {
                state.was_taken_back()
                    || !(state.source.disk.is_writable() && state.destination.disk.is_writable())
            }),
            Property::always(WHOLE, |_, state: &State| {
                state.told.risked || state.told.forsaken || state.is_whole()
            }),
            Property::always(NOT_FORGOTTEN, |_, state: &State| state.told.risked || !state.told.forgotten),
            Property::always(COMES_TO_REST, |world: &World, state: &State| rest::comes_to_rest(world, state)),
            Property::sometimes("it moves", |_, state: &State| state.is_at_rest_on(Side::Destination)),
            Property::sometimes("it is handed back", |_, state: &State| {
                state.is_at_rest_on(Side::Source) && state.has_handed_back()
            }),
        ]
    }
}

impl World {
    /// A guest that runs at the source; nothing was ever promised.
    pub fn beginning(&self) -> State {
        let disk = |role| Disk { version: 0, role, sealed: 0 };
        State {
            source: Source {
                daemon: Some(Doing::Idle),
                moving: None,
                linked: false,
                number: 0,
                generation: 0,
                machine: Machine::Running(0),
                disk: disk(Role::Primary),
                journal: Journal::default(),
            },
            destination: Destination {
                daemon: true,
                ended: 0,
                visits: Vec::new(),
                may_start: false,
                machine: Machine::Gone,
                disk: disk(Role::Replica),
                journal: Journal::default(),
            },
            wire: Wire::default(),
            links: 0,
            faults: self.bounds.faults,
            latest: 0,
            told: Told::default(),
        }
    }

    /// What must happen at last where nothing goes wrong.
    pub fn orderly(&self, state: &State, actions: &mut Vec<Action>) {
        let source = &state.source;
        if source.daemon.is_none() {
            actions.push(Action::Restart(Side::Source));
        }
        if !state.destination.daemon {
            actions.push(Action::Restart(Side::Destination));
        }
        if state.source_has_a_step() {
            actions.push(Action::Step(Side::Source));
        }
        if state.destination_has_a_step() {
            actions.push(Action::Step(Side::Destination));
        }
        if state.source_may_start() {
            actions.push(Action::StartFromDisk(Side::Source));
        }
        if state.destination_may_start(&self.rules) {
            actions.push(Action::StartFromDisk(Side::Destination));
        }
        match (source.daemon, source.machine) {
            (Some(Doing::Copying), Machine::Running(_)) => actions.push(Action::Pause),
            (Some(Doing::Pausing { .. }), Machine::Paused(_)) => {
                let arrival = state.arrival_by_the_link();
                if source.disk.sealed == 0 && arrival.is_some() {
                    actions.push(Action::Seal);
                }
                if arrival == Some(Stage::Reserved) && state.destination.machine == Machine::Incoming {
                    actions.push(Action::Move);
                }
            }
            _ => {}
        }
        let stage = state.arrival().map(|arrival| arrival.stage);
        if stage == Some(Stage::Reserved) && matches!(state.destination.machine, Machine::Paused(_)) {
            actions.push(Action::Load);
        }
        if state.may_release() {
            actions.push(Action::Release);
        }
    }

    /// What people, the guest and time do, or not.
    fn unasked(&self, state: &State, actions: &mut Vec<Action>) {
        let source = &state.source;
        if state.latest < self.bounds.writes {
            actions.extend(state.running().into_iter().map(Action::Write));
        }
        match source.daemon {
            Some(Doing::Idle) => {
                let is_free = matches!(source.machine, Machine::Running(_)) && source.disk.is_writable();
                if source.number < self.bounds.migrations && is_free {
                    actions.push(Action::Begin);
                }
            }
            Some(Doing::Pausing { .. }) => actions.push(Action::Deadline),
            Some(Doing::HandingOver) => actions.push(Action::Doubt),
            Some(Doing::Asking) if self.operator => actions.push(Action::TakeBack),
            _ => {}
        }
        if source.moving.as_ref().is_some_and(|moving| moving.phase().row().cancellable) {
            actions.push(Action::Cancel);
        }
        if self.rules.asks_again && state.source_waits_for_an_answer() {
            actions.push(Action::AskAgain);
        }
        if source.linked && source.daemon.is_some() {
            actions.push(Action::LoseLink(Side::Source));
        }
        if state.destination.daemon && state.destination.ended < state.links {
            actions.push(Action::LoseLink(Side::Destination));
        }
    }

    /// Does it.
    pub fn apply(&self, state: &mut State, action: Action) {
        match action {
            Action::Write(side) => state.write(side),
            Action::Begin => state.begin(),
            Action::Cancel => state.tell_source(Event::Cancelled),
            Action::Deadline => state.source_is_late(),
            Action::Connect => state.connect(),
            Action::Hear(said) if said.word.is_for_destination() => {
                state.destination_hears(said, &self.rules);
            }
            Action::Hear(said) => state.source_hears(said, &self.rules),
            Action::LoseLink(Side::Source) => state.source_loses_its_link(),
            Action::LoseLink(Side::Destination) => state.destination_loses_links(state.links, &self.rules),
            Action::Doubt => state.doubt(),
            Action::AskAgain => state.ask_again(),
            Action::Pause => {
                let version = state.source.machine.version().expect("it runs");
                state.source.machine = Machine::Paused(version);
                state.tell_source(Event::Finished(Op::AwaitPause));
            }
            Action::Seal => {
                let sealed = state.source.journal.generation_of(state.source.number);
                state.source.disk.sealed = sealed;
                state.destination.disk.version = state.source.disk.version;
                state.destination.disk.sealed = sealed;
                state.tell_source(Event::Finished(Op::Seal));
            }
            Action::Move => state.destination.machine = state.source.machine,
            Action::Load => state.destination_has_loaded(&self.rules),
            Action::Release => state.release(),
            Action::Step(Side::Source) => state.source_step(),
            Action::Step(Side::Destination) => state.destination_step(&self.rules),
            Action::Die(side, part) => {
                state.faults -= 1;
                state.die(side, part, &self.rules);
            }
            Action::Restart(Side::Source) => state.source_restarts(&self.rules),
            Action::Restart(Side::Destination) => state.destination_restarts(&self.rules),
            Action::StartFromDisk(side) => state.start_from_disk(side),
            Action::TakeBack => state.take_back(),
        }
    }
}

/// Whether there is somebody who would hear it.
pub fn reaches(state: &State, said: Said) -> bool {
    if said.word.is_for_destination() {
        state.destination.daemon && said.link > state.destination.ended
    } else {
        state.source.daemon.is_some() && state.source.linked && said.link == state.links
    }
}

/// Whether a link can be made, and somebody wants it.
pub fn may_connect(state: &State) -> bool {
    let both = state.source.daemon.is_some() && state.destination.daemon;
    let asks = state.has_lost_its_guest() && !state.destination.may_start;
    both && !state.source.linked && (state.source_wants_a_link() || asks)
}

impl State {
    fn connect(&mut self) {
        self.links += 1;
        self.source_has_a_link();
        if self.has_lost_its_guest() {
            self.wire.say(Word::Whose, self.destination.journal.newest(), self.links);
        }
    }

    /// The guest writes.
    pub fn write(&mut self, side: Side) {
        let (machine, disk) = match side {
            Side::Source => (&mut self.source.machine, &mut self.source.disk),
            Side::Destination => (&mut self.destination.machine, &mut self.destination.disk),
        };
        self.latest += 1;
        disk.version = self.latest;
        *machine = Machine::Running(self.latest);
    }

    /// A guest is started from its disk.
    pub fn start_from_disk(&mut self, side: Side) {
        self.told.forgotten |= !self.told.memory_lost;
        match side {
            Side::Source => self.source.machine = Machine::Running(self.source.disk.version),
            Side::Destination => {
                self.destination.disk.role = Role::Promoted;
                self.destination.machine = Machine::Running(self.destination.disk.version);
                let number = self.destination.journal.newest();
                let generation = self.destination.journal.generation_of(number);
                if !self.destination.journal.says(number, migrated::journal::Step::Started) {
                    self.destination.journal.append(number, generation, migrated::journal::Step::Started);
                }
                self.destination.may_start = false;
            }
        }
    }
}
