//! What there is: two hosts with a machine, a disk and a journal each, and what is under way between them.
//!
//! The guest is its writes: `latest` counts those that were acknowledged to it, a disk and a memory are as new as the
//! last write that they know of. Whoever runs the guest must know of all.

use migrated::destination::Stage;
use migrated::journal::{Record, Step, last_step, verdict};

use super::moving::Moving;
use super::visit::Visit;
use super::wire::Wire;

/// The guest in the words of the journals.
pub const GUEST: &str = "web";

/// A migration's number as the product writes it.
pub fn name(number: u8) -> &'static str {
    ["m0", "m1", "m2", "m3"][usize::from(number)]
}

/// A QEMU.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Machine {
    /// There is none: never started, ended, killed, or gone with its host.
    Gone,
    /// It waits for memory.
    Incoming,
    /// It holds the whole guest as of a write, and the guest stands still.
    Paused(u8),
    /// The guest runs.
    Running(u8),
}

/// What a blockd's sidecar says (D11).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Role {
    /// The guest's disk.
    Primary,
    /// A copy that is being received.
    Replica,
    /// A copy that has become the guest's disk.
    Promoted,
    /// It lives elsewhere.
    Fenced,
}

/// A disk, its sidecar included. It survives everything.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Disk {
    /// The last write that is on it.
    pub version: u8,
    /// What it is.
    pub role: Role,
    /// The generation that it is sealed for, or 0.
    pub sealed: u8,
}

impl Disk {
    /// A guest's write would reach it (M1).
    pub fn is_writable(self) -> bool {
        match self.role {
            Role::Primary => self.sealed == 0,
            Role::Promoted => true,
            Role::Replica | Role::Fenced => false,
        }
    }
}

/// A record, without what is for people.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Entry {
    /// Of which migration.
    pub number: u8,
    /// The generation that it is about.
    pub generation: u8,
    /// What was promised.
    pub step: Step,
}

/// A journal: an append is atomic and durable.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Journal(pub Vec<Entry>);

impl Journal {
    /// As the product's rules read it.
    pub fn records(&self) -> Vec<Record> {
        let record = |entry: &Entry| Record {
            migration: name(entry.number).to_owned(),
            guest: GUEST.to_owned(),
            generation: u64::from(entry.generation),
            peer: String::new(),
            step: entry.step,
            unix_ms: 0,
        };
        self.0.iter().map(record).collect()
    }

    /// Appends. What is the migration's last word already is not said twice, so that journals stay short here.
    pub fn append(&mut self, number: u8, generation: u8, step: Step) {
        if self.last(number) != Some(step) {
            self.0.push(Entry { number, generation, step });
        }
    }

    /// A migration's last word.
    pub fn last(&self, number: u8) -> Option<Step> {
        last_step(&self.records(), name(number))
    }

    /// The migration that was spoken of last, or 0.
    pub fn newest(&self) -> u8 {
        self.0.last().map_or(0, |entry| entry.number)
    }

    /// The generation of a migration, as it was first written.
    pub fn generation_of(&self, number: u8) -> u8 {
        let first = self.0.iter().find(|entry| entry.number == number);
        first.expect("who speaks of a migration has journalled it").generation
    }

    /// Whether the guest was taken, in the product's words.
    pub fn verdict(&self, number: u8) -> Option<bool> {
        verdict(&self.records(), name(number))
    }

    /// True where a promise was made, ever.
    pub fn says(&self, number: u8, step: Step) -> bool {
        self.0.iter().any(|entry| entry.number == number && entry.step == step)
    }
}

/// What the source's daemon is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Doing {
    /// Nothing.
    Idle,
    /// It looks for the destination, and asks it for room.
    Calling,
    /// Room is kept; everything is being copied, and the guest runs.
    Copying,
    /// The guest stands still; `loaded`: the destination said that it has all of it.
    Pausing {
        /// Heard.
        loaded: bool,
    },
    /// *Releasing* is journalled, and the destination was told to take the guest.
    HandingOver,
    /// The destination's journal is asked.
    Asking,
    /// It has taken the guest; whether it runs there is not known yet.
    Awaiting,
    /// It runs there: what is here is given up.
    Finishing,
    /// The guest goes on here.
    RollingBack {
        /// After that the migration begins again.
        again: bool,
    },
}

/// The host that the guest leaves.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Source {
    /// What its daemon does. None: it does not run.
    pub daemon: Option<Doing>,
    /// The migration that it is about, where this is explored; the simulation has it elsewhere.
    pub moving: Option<Moving>,
    /// It has a link, the newest.
    pub linked: bool,
    /// The migration that it began last, or 0.
    pub number: u8,
    /// The generation that the guest has here.
    pub generation: u8,
    /// The guest's machine.
    pub machine: Machine,
    /// The guest's disk.
    pub disk: Disk,
    /// Its promises.
    pub journal: Journal,
}

/// A guest that is on its way in, or is being started.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Arrival {
    /// The migration.
    pub number: u8,
    /// The link by which it comes; 0: it was found in the journal.
    pub link: u8,
    /// How far it has come.
    pub stage: Stage,
}

/// The host that the guest goes to.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Destination {
    /// Its daemon runs.
    pub daemon: bool,
    /// Links up to this one have ended for it.
    pub ended: u8,
    /// Visits by links, each with what the product's decider knows of it.
    pub visits: Vec<Visit>,
    /// After a crash of this host the source has said, on this boot, that the guest is still this host's.
    pub may_start: bool,
    /// The guest's machine.
    pub machine: Machine,
    /// The guest's disk.
    pub disk: Disk,
    /// Its promises.
    pub journal: Journal,
}

/// What was said and done that the oracle has to know; nothing is decided by it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Told {
    /// An operator took the guest back while the destination was up: the risk that has a name.
    pub risked: bool,
    /// An operator took the guest back after it had written at the destination.
    pub forsaken: bool,
    /// The guest's memory was lost where the guest was.
    pub memory_lost: bool,
    /// The guest was started from its disk, and its memory was not lost where it was.
    pub forgotten: bool,
}

/// Everything.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct State {
    /// The source.
    pub source: Source,
    /// The destination.
    pub destination: Destination,
    /// What was said and may arrive, once, twice, late or never.
    pub wire: Wire,
    /// Links made so far; the newest has this number.
    pub links: u8,
    /// Faults that may still happen.
    pub faults: u8,
    /// The last acknowledged write.
    pub latest: u8,
    /// For the oracle.
    pub told: Told,
}

impl State {
    /// The guest that is on its way to the destination, or is being started there.
    pub fn arrival(&self) -> Option<Arrival> {
        let open = self.destination.visits.iter().find(|visit| visit.is_open())?;
        Some(Arrival { number: open.number, link: open.link, stage: open.stage() })
    }
}
