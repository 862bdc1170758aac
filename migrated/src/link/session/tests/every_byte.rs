//! A cut after any byte of either direction, with one connection a lane and with several that are one: at bytes that fall
//! into every part of a frame in each run, at every single one in the long run.

use std::collections::VecDeque;
use std::time::Duration;

use super::super::Next;
use super::simulation::{World, assert_complete};
use crate::link::stripes::Merge;
use crate::link::wire::{Frame, HEADER_BYTES, Header};
use crate::link::{Label, Lane};

/// How many connections a lane has in [`exchange`].
const CONNECTIONS: usize = 3;

/// Carries until nothing moves; cuts both ways after `cut_at` bytes of one direction. True if the cut came. Striped,
/// frames go over several connections, and those of the later connections arrive first.
fn exchange(world: &mut World, lane: Lane, striped: bool, cut: Option<(usize, u64)>) -> bool {
    let mut cut = cut;
    let mut came = false;
    let mut sets = [Set::new(), Set::new()];
    for _ in 0..400 {
        world.now += Duration::from_micros(10);
        for side in 0..2 {
            world.work(side);
            let mut out = Vec::new();
            while world.sides[side].poll_frame(lane, world.now, &mut out) == Next::Frames {}
            let before = world.carried[side][lane as usize];
            world.carried[side][lane as usize] += out.len() as u64;
            let is_cut = cut.filter(|(of, at)| *of == side && before + out.len() as u64 > *at);
            if let Some((_, at)) = is_cut {
                // What was before the cut still arrives, up to a torn frame.
                out.truncate((at - before) as usize);
            }
            match striped {
                true => sets[side].carry(world, side, lane, &out),
                false => {
                    world.wires[side][lane as usize].extend(&out);
                    arrive(world, side, lane);
                }
            }
            if is_cut.is_some() {
                world.cut(lane);
                world.connect(lane);
                sets = [Set::new(), Set::new()];
                (cut, came) = (None, true);
            }
        }
        if world.is_quiet() && cut.is_none() {
            break;
        }
    }
    came
}

/// One direction of several connections that are one.
struct Set {
    merge: Merge,
    number: u64,
    /// Records that did not arrive yet, by connection.
    wires: [VecDeque<(u64, Vec<u8>)>; CONNECTIONS],
}

impl Set {
    fn new() -> Self {
        Self { merge: Merge::new(CONNECTIONS), number: 0, wires: Default::default() }
    }

    /// Every frame is a record; the last connection is the fastest, and the first always lags by one.
    fn carry(&mut self, world: &mut World, side: usize, lane: Lane, out: &[u8]) {
        let mut rest = out;
        while let Some(head) = rest.first_chunk::<HEADER_BYTES>() {
            let len = HEADER_BYTES + Header::decode(head).expect("a good header").body_bytes as usize;
            let Some((frame, behind)) = rest.split_at_checked(len) else { break };
            self.wires[world.dice.roll(CONNECTIONS as u64) as usize].push_back((self.number, frame.to_vec()));
            self.number += 1;
            rest = behind;
        }
        for connection in (0..CONNECTIONS).rev() {
            while let Some((number, frame)) = self.wires[connection].pop_front() {
                self.merge.handle_record(connection, number, frame).expect("numbers rise");
            }
        }
        while let Some(frames) = self.merge.take() {
            world.wires[side][lane as usize].extend(frames);
        }
        arrive(world, side, lane);
    }
}

fn arrive(world: &mut World, side: usize, lane: Lane) {
    let wire: Vec<u8> = world.wires[side][lane as usize].drain(..).collect();
    let mut bytes = wire.as_slice();
    while let Some((head, rest)) = bytes.split_first_chunk::<HEADER_BYTES>() {
        let header = Header::decode(head).expect("a good header");
        let Some((body, rest)) = rest.split_at_checked(header.body_bytes as usize) else { break };
        let frame = Frame::decode(&header, body).expect("a good frame");
        world.sides[1 - side].handle_frame(lane, &frame, world.now).expect("nobody breaks a rule");
        bytes = rest;
    }
    world.wires[side][lane as usize].extend(bytes);
}

fn cut_at_every(step: usize, lane: Lane, striped: bool, labels: [Label; 2]) {
    for direction in 0..2 {
        for at in (0..).step_by(step) {
            let mut world = World::new(7, false);
            world.longest = 300;
            world.open(0, labels[0]);
            world.open(1, labels[1]);
            let came = exchange(&mut world, lane, striped, Some((direction, at)));
            assert!(world.is_quiet() || !came, "direction {direction}, byte {at}");
            if !came {
                assert!(at > 300, "the exchange was too short to prove anything: {at}");
                break;
            }
            assert_complete(&world);
        }
    }
}

/// A prime, so that the bytes that are cut at wander through the frames.
const STEP: usize = 23;

fn cut_one_connection(step: usize) {
    cut_at_every(step, Lane::Data, false, [Label::Ram(0), Label::Disk(0)]);
    cut_at_every(step, Lane::Control, false, [Label::Control; 2]);
}

fn cut_several_connections(step: usize) {
    cut_at_every(step, Lane::Data, true, [Label::Ram(0), Label::Disk(0)]);
}

#[test]
fn a_cut_anywhere_in_either_direction_is_survived() {
    cut_one_connection(STEP);
}

#[test]
fn a_cut_anywhere_in_several_connections_that_are_one_is_survived() {
    cut_several_connections(STEP);
}

#[test]
#[ignore = "takes minutes; make soak"]
fn soak_a_cut_at_any_byte_of_either_direction_is_survived() {
    cut_one_connection(1);
}

#[test]
#[ignore = "takes minutes; make soak"]
fn soak_a_cut_at_any_byte_of_several_connections_that_are_one_is_survived() {
    cut_several_connections(1);
}
