//! What can die, and what dies with it.
//!
//! A daemon takes its links and what it was about with it; a QEMU the guest's memory; a host both. Disks and journals
//! outlive everything.

use migrated::source::{Event, Notice};

use super::rules::Rules;
use super::state::{Machine, State};
use super::world::{Action, Part, Side};

/// Everything that could die now.
pub fn deaths(state: &State) -> Vec<Action> {
    let mut deaths = Vec::new();
    let sides = [
        (Side::Source, state.source.daemon.is_some(), state.source.machine),
        (Side::Destination, state.destination.daemon, state.destination.machine),
    ];
    for (side, daemon, machine) in sides {
        if daemon {
            deaths.push(Action::Die(side, Part::Daemon));
        }
        if machine != Machine::Gone {
            deaths.push(Action::Die(side, Part::Machine));
            deaths.push(Action::Die(side, Part::Host));
        }
    }
    deaths
}

impl State {
    /// Something dies.
    pub fn die(&mut self, side: Side, part: Part, rules: &Rules) {
        let started = self.has_started_there() && !self.was_taken_back();
        if part != Part::Daemon {
            // Where the guest was, its memory is lost; a copy of it elsewhere is none of its own.
            self.told.memory_lost |= match side {
                Side::Source => !started,
                Side::Destination => started,
            };
            match side {
                Side::Source => self.source.machine = Machine::Gone,
                Side::Destination => self.destination.machine = Machine::Gone,
            }
        }
        match (side, part) {
            (Side::Source, Part::Daemon | Part::Host) => {
                self.source.daemon = None;
                self.source.moving = None;
                self.source.linked = false;
            }
            (Side::Source, Part::Machine) => self.tell_source(Event::Notice(Notice::QemuEnded)),
            (Side::Destination, Part::Daemon | Part::Host) => {
                self.destination.daemon = false;
                self.destination.ended = self.links;
                self.destination.visits.clear();
                self.destination.may_start = false;
            }
            (Side::Destination, Part::Machine) => self.destination_loses_qemu(rules),
        }
    }
}
