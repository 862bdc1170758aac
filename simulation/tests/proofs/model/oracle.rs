//! What the oracle sees: who runs the guest, with what, and whether anything is still open.

use migrated::destination::Stage;
use migrated::journal::Step;

use super::state::{Doing, Machine, State};
use super::world::Side;

impl Machine {
    /// The last write that its guest knows of.
    pub fn version(self) -> Option<u8> {
        match self {
            Machine::Paused(version) | Machine::Running(version) => Some(version),
            Machine::Gone | Machine::Incoming => None,
        }
    }

    fn runs(self) -> bool {
        matches!(self, Machine::Running(_))
    }
}

impl State {
    /// Where the guest runs.
    pub fn running(&self) -> Vec<Side> {
        let sides = [(Side::Source, self.source.machine), (Side::Destination, self.destination.machine)];
        sides.into_iter().filter(|(_, machine)| machine.runs()).map(|(side, _)| side).collect()
    }

    /// Who runs the guest has every write in memory and on a disk that takes more of them.
    pub fn is_whole(&self) -> bool {
        let sides =
            [(self.source.machine, self.source.disk), (self.destination.machine, self.destination.disk)];
        sides.into_iter().filter(|(machine, _)| machine.runs()).all(|(machine, disk)| {
            machine.version() == Some(self.latest) && disk.version == self.latest && disk.is_writable()
        })
    }

    /// An operator took the guest back in the newest migration.
    pub fn was_taken_back(&self) -> bool {
        self.source.journal.0.iter().any(|entry| entry.step == Step::TakenBack)
    }

    /// The destination took the guest in some migration and gave it back.
    pub fn has_handed_back(&self) -> bool {
        self.destination.journal.0.iter().any(|entry| entry.step == Step::HandedBack)
    }

    /// The guest is the destination's by its own journal.
    pub fn has_started_there(&self) -> bool {
        let number = self.destination.journal.newest();
        self.destination.journal.verdict(number) == Some(true)
            && self.destination.journal.says(number, Step::Started)
    }

    /// The guest runs at one side, and nobody has anything left to do.
    pub fn is_at_rest_on(&self, side: Side) -> bool {
        self.running() == [side]
            && self.source.daemon == Some(Doing::Idle)
            && self.destination.daemon
            && self.arrival().is_none()
    }

    /// How far the guest has come by the link that the source holds.
    pub fn arrival_by_the_link(&self) -> Option<Stage> {
        let arrival = self.arrival().filter(|_| self.source.linked && self.destination.daemon)?;
        (arrival.link == self.links && arrival.number == self.source.number).then_some(arrival.stage)
    }
}
