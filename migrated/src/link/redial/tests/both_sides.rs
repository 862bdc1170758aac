//! Both sides dial for a lane that both have lost, over ways some of which are dead, with connections that cross: in the
//! end both hold the same one, soon, and nobody is still dialling.

use std::net::SocketAddr;
use std::time::Duration;

use crate::link::redial::{Redial, takes_own};
use crate::link::session::Side;

/// How long TCP, TLS and the hello may take.
const WITHIN_MAX: Duration = Duration::from_secs(5);
/// After so long it must have come right, and stay so.
const SETTLED: Duration = Duration::from_secs(60);
/// More connections than this would be a fight.
const CONNECTIONS_MAX: usize = 12;
const SIDES: [Side; 2] = [Side::Dialler, Side::Listener];

/// A generator of numbers that is the same everywhere.
struct Dice(u64);

impl Dice {
    /// Below `bound`.
    fn roll(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % bound
    }

    fn one_in(&mut self, count: u64) -> bool {
        self.roll(count) == 0
    }
}

#[derive(Clone, Copy, Debug)]
enum Event {
    /// The lane is lost there: it sees the end of a connection, or hears nothing any more.
    Lost { side: usize, connection: Option<usize> },
    /// The pause before an attempt is over.
    Dial { side: usize, to: usize, within: Duration },
    /// The hello of a connection is there: the side that did not dial takes it.
    Hello { connection: usize },
    /// And its welcome is back.
    Welcome { connection: usize },
    /// The dialler of a connection does not wait for it any longer.
    Late { side: usize },
}

struct Connection {
    dialler: usize,
    latency: Duration,
    given_up: bool,
}

struct Both {
    dice: Dice,
    now: Duration,
    events: Vec<(Duration, Event)>,
    connections: Vec<Connection>,
    /// What each side holds for the lane's.
    held: [Option<usize>; 2],
    redials: [Option<Redial>; 2],
    /// Which of the other side's addresses each side can reach.
    ways: [Vec<bool>; 2],
}

impl Both {
    fn new(seed: u64, ways: [Vec<bool>; 2]) -> Self {
        let mut both = Self {
            dice: Dice(2 * seed + 1),
            now: Duration::from_secs(10),
            events: Vec::new(),
            connections: Vec::new(),
            held: [None; 2],
            redials: [None, None],
            ways,
        };
        for side in 0..2 {
            let after = both.roll_ms(3000);
            both.after(after, Event::Lost { side, connection: None });
        }
        both
    }

    fn roll_ms(&mut self, bound: u64) -> Duration {
        Duration::from_millis(self.dice.roll(bound))
    }

    fn after(&mut self, wait: Duration, event: Event) {
        self.events.push((self.now + wait, event));
    }

    /// The next attempt of a side that lacks the lane.
    fn attempt(&mut self, side: usize) {
        let candidates: Vec<SocketAddr> =
            (0..self.ways[side].len() as u8).map(|last| ([192, 0, 2, last], 7070).into()).collect();
        let dice = self.dice.roll(256) as u8;
        let Some(redial) = &mut self.redials[side] else { return };
        let attempt = redial.next(&candidates, WITHIN_MAX, dice);
        let to = candidates.iter().position(|candidate| *candidate == attempt.to).unwrap();
        self.after(attempt.pause, Event::Dial { side, to, within: attempt.within });
    }

    fn take(&mut self, side: usize, connection: usize) {
        if let Some(old) = self.held[side].replace(connection) {
            self.close(side, old);
        }
    }

    /// A side closes a connection; the other one sees that later.
    fn close(&mut self, side: usize, connection: usize) {
        let latency = self.connections[connection].latency;
        self.after(latency, Event::Lost { side: 1 - side, connection: Some(connection) });
    }

    fn handle(&mut self, event: Event) {
        match event {
            Event::Lost { side, connection } => {
                // What was replaced meanwhile is not missed.
                if self.held[side] != connection {
                    return;
                }
                self.held[side] = None;
                if self.redials[side].is_none() {
                    self.redials[side] = Some(Redial::new(SIDES[side]));
                    self.attempt(side);
                }
            }
            Event::Dial { side, .. } if self.held[side].is_some() => self.redials[side] = None,
            Event::Dial { side, to, within } if !self.ways[side][to] => {
                // Dead without a word, or somebody who says no at once.
                let wait = if self.dice.one_in(2) { within } else { Duration::from_millis(1) };
                self.after(wait, Event::Late { side });
            }
            Event::Dial { side, within, .. } => self.dial(side, within),
            Event::Hello { connection } => {
                let side = 1 - self.connections[connection].dialler;
                self.take(side, connection);
                let latency = self.connections[connection].latency;
                self.after(latency, Event::Welcome { connection });
                if self.connections[connection].given_up {
                    self.after(latency, Event::Lost { side, connection: Some(connection) });
                }
            }
            Event::Welcome { connection } if !self.connections[connection].given_up => {
                let side = self.connections[connection].dialler;
                self.redials[side] = None;
                match takes_own(SIDES[side], self.held[side].is_some()) {
                    true => self.take(side, connection),
                    false => self.close(side, connection),
                }
            }
            Event::Welcome { .. } => {}
            Event::Late { side } if self.held[side].is_some() => self.redials[side] = None,
            Event::Late { side } => self.attempt(side),
        }
    }

    fn dial(&mut self, side: usize, within: Duration) {
        let latency = Duration::from_millis(1) + self.roll_ms(400);
        // Lost packets take their time.
        let extra = if self.dice.one_in(3) { self.roll_ms(2500) } else { Duration::ZERO };
        let connection = self.connections.len();
        let late = latency * 6 + extra > within;
        self.connections.push(Connection { dialler: side, latency, given_up: late });
        self.after(latency * 5 + extra, Event::Hello { connection });
        if late {
            self.after(within, Event::Late { side });
        }
    }

    /// Until nothing happens any more.
    fn run(mut self, seed: u64) -> (Duration, usize) {
        let begun = self.now;
        while let Some(next) = (0..self.events.len()).min_by_key(|index| self.events[*index].0) {
            let (at, event) = self.events.swap_remove(next);
            self.now = at;
            assert!(at < begun + SETTLED, "seed {seed}: still {event:?}");
            self.handle(event);
        }
        assert!(self.held[0].is_some(), "seed {seed}: no connection");
        assert_eq!(self.held[0], self.held[1], "seed {seed}: each holds another one");
        assert!(self.connections.len() <= CONNECTIONS_MAX, "seed {seed}: {} dials", self.connections.len());
        (self.now - begun, self.connections.len())
    }
}

fn run_all(ways: [&[bool]; 2]) -> (Duration, usize) {
    let each = (0..2000).map(|seed| Both::new(seed, ways.map(<[bool]>::to_vec)).run(seed));
    each.fold((Duration::ZERO, 0), |(time, count), (took, dials)| (time.max(took), count.max(dials)))
}

#[test]
fn both_sides_that_can_dial_come_to_hold_one_connection() {
    let (_, dials) = run_all([&[true], &[true]]);
    assert!(dials > 1, "dials have crossed");
    run_all([&[true, true], &[true, true]]);
}

#[test]
fn one_side_that_can_dial_is_enough_whichever_it_is() {
    run_all([&[false], &[true]]);
    run_all([&[true], &[false]]);
    run_all([&[false, false, false], &[false, true]]);
    run_all([&[false, true], &[false, false]]);
}
