//! Connections that are made twice, late, by both sides at once, and whose ends are noticed at different times: the two
//! sides may each hold another one for the newest. It must come right, and no byte be lost or doubled.

use std::collections::VecDeque;
use std::time::Duration;

use super::super::{Event, Next};
use super::simulation::{World, assert_complete};
use crate::link::wire::{Frame, HEADER_BYTES, Header};
use crate::link::{Label, Lane};

/// Steps in which connections come and go without reason.
const DISTURBED_STEPS: usize = 400;
const STEPS_MAX: usize = 20_000;

struct Connection {
    lane: Lane,
    dialler: usize,
    /// Bytes on their way, by sender.
    wires: [VecDeque<u8>; 2],
    /// One of its ends is closed.
    closed: bool,
}

/// All connections that ever were.
#[derive(Default)]
struct Network {
    all: Vec<Connection>,
    /// Dialled, and not seen by the other side yet.
    arriving: Vec<usize>,
    /// Taken by the other side, which the dialler does not know yet.
    welcomed: Vec<usize>,
    /// Which one each side holds for the lane's, by side and lane.
    current: [[Option<usize>; 2]; 2],
}

impl Network {
    fn step(&mut self, world: &mut World, disturbed: bool) {
        for side in 0..2 {
            for lane in Lane::ALL {
                let lacks = self.current[side][lane as usize].is_none();
                // A side that has one dials too: it thinks that the other is gone.
                if (lacks && world.dice.one_in(3)) || (disturbed && world.dice.one_in(30)) {
                    self.arriving.push(self.all.len());
                    self.all.push(Connection {
                        lane,
                        dialler: side,
                        wires: Default::default(),
                        closed: false,
                    });
                }
                if let Some(held) = self.current[side][lane as usize] {
                    self.all[held].closed |= disturbed && world.dice.one_in(40);
                    self.notice(world, side, lane, held);
                }
            }
        }
        if let Some(arrived) = pick(&mut self.arriving, world) {
            let acceptor = 1 - self.all[arrived].dialler;
            if !disturbed || !world.dice.one_in(6) {
                self.take(world, acceptor, arrived);
                self.welcomed.push(arrived);
            }
        }
        if let Some(welcomed) = pick(&mut self.welcomed, world) {
            let dialler = self.all[welcomed].dialler;
            // It may have given it up, or have lost it already.
            self.all[welcomed].closed |= disturbed && world.dice.one_in(4);
            if !self.all[welcomed].closed {
                self.take(world, dialler, welcomed);
            }
        }
    }

    /// A side holds a connection for the newest, and closes the one that it had.
    fn take(&mut self, world: &mut World, side: usize, connection: usize) {
        let lane = self.all[connection].lane;
        if let Some(old) = self.current[side][lane as usize].replace(connection) {
            self.all[old].closed = true;
        }
        world.sides[side].attach(lane, world.now);
    }

    /// A side comes to see that its connection is closed; now, or later.
    fn notice(&mut self, world: &mut World, side: usize, lane: Lane, held: usize) {
        if self.all[held].closed && world.dice.one_in(4) {
            self.current[side][lane as usize] = None;
            world.sides[side].detach(lane);
        }
    }

    fn send(&mut self, world: &mut World, side: usize, lane: Lane) {
        let Some(held) = self.current[side][lane as usize] else { return };
        let mut out = Vec::new();
        match world.sides[side].poll_frame(lane, world.now, &mut out) {
            Next::Wait(until) => world.now = world.now.max(until),
            _ if self.all[held].closed => {}
            _ => self.all[held].wires[side].extend(out),
        }
    }

    /// Whole frames reach the other side, if it holds the connection too.
    fn deliver(&mut self, world: &mut World, side: usize, lane: Lane) {
        let Some(held) = self.current[1 - side][lane as usize] else { return };
        let mut budget = world.dice.roll(100_000) as usize;
        let wire = &mut self.all[held].wires[side];
        while let Some(head) = wire.make_contiguous().first_chunk::<HEADER_BYTES>() {
            let header = Header::decode(head).expect("a good header");
            let len = HEADER_BYTES + header.body_bytes as usize;
            if wire.len() < len || budget < len {
                return;
            }
            let bytes: Vec<u8> = wire.drain(..len).collect();
            let frame = Frame::decode(&header, &bytes[HEADER_BYTES..]).expect("a good frame");
            world.sides[1 - side].handle_frame(lane, &frame, world.now).expect("nobody breaks a rule");
            budget -= len;
        }
    }
}

fn pick(from: &mut Vec<usize>, world: &mut World) -> Option<usize> {
    let count = from.len() as u64;
    // Not in the order in which they were dialled.
    (count > 0 && world.dice.one_in(2)).then(|| from.swap_remove(world.dice.roll(count) as usize))
}

fn run(seed: u64) {
    let mut world = World::unconnected(seed);
    let mut network = Network::default();
    for (side, label) in
        [Label::Control, Label::Disk(0), Label::Ram(0), Label::Disk(1)].into_iter().enumerate()
    {
        world.open(side % 2, label);
    }
    for step in 0..STEPS_MAX {
        let disturbed = step < DISTURBED_STEPS;
        world.now += Duration::from_micros(world.dice.roll(3000));
        network.step(&mut world, disturbed);
        for side in 0..2 {
            world.work(side);
            world.sides[side].handle_timeout(world.now);
            while let Some(event) = world.sides[side].poll_event() {
                if let Event::Silent(lane) = event
                    && let Some(held) = network.current[side][lane as usize].take()
                {
                    network.all[held].closed = true;
                    world.sides[side].detach(lane);
                }
            }
            for lane in Lane::ALL {
                network.send(&mut world, side, lane);
                network.deliver(&mut world, side, lane);
            }
        }
        world.check_bounds();
        if !disturbed && world.is_quiet() {
            assert!(network.all.len() > 20, "too little happened");
            return assert_complete(&world);
        }
    }
    panic!("seed {seed}: the channels do not come to their end");
}

#[test]
fn duplicated_redials_from_both_sides_in_any_order_lose_nothing() {
    (0..40).for_each(run);
}
