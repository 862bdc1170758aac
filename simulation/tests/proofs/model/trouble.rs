//! What goes wrong in a simulated migration: when, for how long, and what comes of it at once.

use migrated::phase::Phase;

use super::happening::Happening;
use super::simulation::Simulation;
use super::world::{Part, Side};

impl Simulation {
    /// What will go wrong, and when: half of all seeds keep it for the handover, which is short.
    pub fn plan(&mut self) {
        self.after(10, Happening::Send);
        self.after(5, Happening::Write);
        self.troubles = self.rng.below(5);
        if self.rng.chance(50) {
            for _ in 0..std::mem::take(&mut self.troubles) {
                let at = self.rng.below(60_000);
                self.trouble(at);
            }
        }
    }

    fn trouble(&mut self, at_ms: u64) {
        let side = if self.rng.chance(50) { Side::Source } else { Side::Destination };
        let part = [Part::Daemon, Part::Machine, Part::Host][self.rng.index(3)];
        let (down_ms, cut_ms) = (100 + self.rng.below(8_000), 50 + self.a_while(30_000));
        let happening = match self.rng.below(10) {
            0..=2 => Happening::Cut(cut_ms),
            3..=8 => Happening::Dies(side, part, down_ms),
            _ => Happening::Cancel,
        };
        self.after(at_ms, happening);
    }

    /// A phase begins in which the guest stands still: the moment for what is planned for it.
    pub fn see_phase(&mut self, phase: Phase) {
        if phase.row().paused && self.troubles > 0 && self.rng.chance(60) {
            self.troubles -= 1;
            let at = self.rng.below(400);
            self.trouble(at);
        }
    }

    /// The way between the sites is cut.
    pub fn cut(&mut self, ms: u64) {
        self.seen.faults += 1;
        self.way = false;
        self.end_links();
        self.after(ms, Happening::Mended);
    }

    /// All links are dead; who holds an end of one notices sooner or later.
    fn end_links(&mut self) {
        self.dead = self.state.links;
        self.lingers = self.rng.chance(50);
        for side in [Side::Source, Side::Destination] {
            let later = self.rng.below(3000);
            self.after(later, Happening::Notices(side, self.state.links));
        }
    }

    /// Something dies.
    pub fn die(&mut self, side: Side, part: Part, ms: u64) {
        self.seen.faults += 1;
        let arrival = self.state.arrival();
        self.state.die(side, part, &self.rules);
        if let (Side::Destination, Part::Machine, Some(arrival)) = (side, part, arrival) {
            let later = 10 + self.rng.below(60);
            self.after(later, Happening::Fails(arrival.link));
        }
        if part != Part::Machine {
            self.end_links();
            if side == Side::Source {
                self.migration = None;
                self.turn += 1;
            }
            self.after(ms, Happening::Restarts(side));
        } else if side == Side::Source {
            self.see_qemu_end();
        }
        self.follow();
    }

    /// A daemon is started, unless it runs.
    pub fn restart(&mut self, side: Side) {
        let down = match side {
            Side::Source => self.state.source.daemon.is_none(),
            Side::Destination => !self.state.destination.daemon,
        };
        if down && side == Side::Source {
            self.take_up();
        } else if down {
            self.state.destination_restarts(&self.rules);
        }
    }
}
