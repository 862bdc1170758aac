//! Two sessions and the wires between them, in memory and from a seed: tiny and large writes, readers that stall,
//! ends, resets, and cuts anywhere. What is read must be what was written, in order, once, and to its end.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use proptest::prelude::*;

use super::super::{ChannelError, Event, Next, Session, Side};
use crate::link::channel::{RETAINED_BYTES_MAX, WINDOW_BYTES_MAX};
use crate::link::wire::{Frame, HEADER_BYTES, Header};
use crate::link::{Label, Lane};

/// A generator of numbers that is the same everywhere.
pub(super) struct Dice(u64);

impl Dice {
    pub(super) fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(2).wrapping_add(1))
    }

    /// Below `bound`.
    pub(super) fn roll(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (self.0 >> 33) % bound
    }

    pub(super) fn one_in(&mut self, count: u64) -> bool {
        self.roll(count) == 0
    }
}

/// What stands at an offset of a channel's direction.
fn byte_at(channel: u32, side: usize, offset: u64) -> u8 {
    (offset.wrapping_mul(31) ^ (offset >> 8) ^ u64::from(channel) ^ ((side as u64) << 7)) as u8
}

/// One side's use of a channel.
#[derive(Default)]
struct User {
    written: u64,
    total: u64,
    finished: bool,
    read: u64,
    read_end: bool,
    released: bool,
    /// It will be let go before its end.
    doomed: bool,
    broken: bool,
}

pub(super) struct World {
    pub(super) dice: Dice,
    pub(super) now: Duration,
    pub(super) sides: [Session; 2],
    users: [BTreeMap<u32, User>; 2],
    /// Bytes on their way, by sender and lane.
    pub(super) wires: [[VecDeque<u8>; 2]; 2],
    /// Bytes that went in so far, by sender and lane.
    pub(super) carried: [[u64; 2]; 2],
    pub(super) longest: u64,
    resets: bool,
}

impl World {
    pub(super) fn new(seed: u64, resets: bool) -> Self {
        let mut world = Self {
            dice: Dice::new(seed),
            now: Duration::from_secs(100),
            sides: [Session::new(Side::Dialler), Session::new(Side::Listener)],
            users: Default::default(),
            wires: Default::default(),
            carried: Default::default(),
            longest: 120_000,
            resets,
        };
        Lane::ALL.into_iter().for_each(|lane| world.connect(lane));
        world
    }

    /// The same without connections.
    pub(super) fn unconnected(seed: u64) -> Self {
        let mut world = Self::new(seed, false);
        Lane::ALL.into_iter().for_each(|lane| world.cut(lane));
        world
    }

    pub(super) fn connect(&mut self, lane: Lane) {
        for side in 0..2 {
            self.wires[side][lane as usize].clear();
            self.sides[side].attach(lane, self.now);
        }
    }

    pub(super) fn cut(&mut self, lane: Lane) {
        for side in 0..2 {
            self.wires[side][lane as usize].clear();
            self.sides[side].detach(lane);
        }
    }

    pub(super) fn open(&mut self, side: usize, label: Label) -> u32 {
        let id = self.sides[side].open(label).expect("there is room");
        self.adopt(side, id);
        id
    }

    fn adopt(&mut self, side: usize, id: u32) {
        let total = match self.dice.roll(4) {
            0 => 0,
            1 => self.dice.roll(100),
            _ => self.dice.roll(self.longest),
        };
        let doomed = self.resets && self.dice.one_in(4);
        self.users[side].insert(id, User { total, doomed, ..User::default() });
    }

    /// A side sends what it has for a lane, up to some frames.
    fn send(&mut self, side: usize, lane: Lane) {
        for _ in 0..=self.dice.roll(3) {
            let mut out = Vec::new();
            match self.sides[side].poll_frame(lane, self.now, &mut out) {
                Next::Frames => {
                    self.carried[side][lane as usize] += out.len() as u64;
                    self.wires[side][lane as usize].extend(out);
                }
                Next::Wait(until) => self.now = self.now.max(until),
                Next::Idle | Next::Over => return,
            }
        }
    }

    /// Whole frames of what is on the wire, as far as chance lets them through, reach the other side.
    fn deliver(&mut self, side: usize, lane: Lane) {
        let wire = &mut self.wires[side][lane as usize];
        let mut budget = self.dice.roll(100_000) as usize;
        loop {
            let bytes = wire.make_contiguous();
            let Some(head) = bytes.first_chunk::<HEADER_BYTES>() else { return };
            let header = Header::decode(head).expect("a good header");
            let len = HEADER_BYTES + header.body_bytes as usize;
            if bytes.len() < len || budget < len {
                return;
            }
            let frame = Frame::decode(&header, &bytes[HEADER_BYTES..len]).expect("a good frame");
            self.sides[1 - side].handle_frame(lane, &frame, self.now).expect("nobody breaks a rule");
            wire.drain(..len);
            budget -= len;
        }
    }

    pub(super) fn work(&mut self, side: usize) {
        while let Some((id, _)) = self.sides[side].accept() {
            self.adopt(side, id);
        }
        let ids: Vec<u32> = self.users[side].keys().copied().collect();
        for id in ids {
            let stalled = self.dice.one_in(2);
            let user = self.users[side].get_mut(&id).expect("it was listed");
            if user.released {
                continue;
            }
            if user.doomed && user.written > user.total / 2 {
                user.released = true;
                self.sides[side].release(id);
                continue;
            }
            write(&mut self.sides[side], user, side, id, &mut self.dice);
            if !stalled {
                read(&mut self.sides[side], user, (side, id), self.longest / 2, &mut self.dice);
            }
            if user.broken || (user.finished && user.read_end) {
                user.released = true;
                self.sides[side].release(id);
            }
        }
    }

    pub(super) fn check_bounds(&self) {
        for session in &self.sides {
            for entry in session.channels.values() {
                assert!(entry.incoming.buffered_bytes() <= WINDOW_BYTES_MAX);
                assert!(entry.out.written() - entry.out.acked() <= RETAINED_BYTES_MAX);
                assert!(entry.out.unsent_bytes() <= session.unsent_bytes_max(entry.label).max(256 << 10));
            }
        }
    }

    pub(super) fn step(&mut self) {
        self.now += Duration::from_micros(self.dice.roll(3000));
        for side in 0..2 {
            self.work(side);
            self.sides[side].handle_timeout(self.now);
            while let Some(event) = self.sides[side].poll_event() {
                assert!(!matches!(event, Event::Silent(_)), "the other side is alive");
            }
            for lane in Lane::ALL {
                self.send(side, lane);
                self.deliver(side, lane);
            }
        }
        self.check_bounds();
    }

    pub(super) fn is_quiet(&self) -> bool {
        self.users.iter().flat_map(BTreeMap::values).all(|user| user.released)
            && self.sides.iter().all(|session| session.channels.is_empty())
            && self.users[0].len() == self.users[1].len()
    }
}

fn write(session: &mut Session, user: &mut User, side: usize, id: u32, dice: &mut Dice) {
    if user.finished || user.broken {
        return;
    }
    let most = if dice.one_in(2) { 3 } else { 70_000 };
    let count = dice.roll(most + 1).min(user.total - user.written);
    let bytes: Vec<u8> = (0..count).map(|at| byte_at(id, side, user.written + at)).collect();
    match session.write(id, &bytes) {
        Ok(taken) => user.written += taken as u64,
        Err(ChannelError::Reset) => user.broken = true,
        Err(error) => panic!("{error}"),
    }
    if user.written == user.total && !user.broken {
        user.finished = true;
        session.finish(id).expect("it lives");
    }
}

fn read(session: &mut Session, user: &mut User, (side, id): (usize, u32), most: u64, dice: &mut Dice) {
    let mut into = vec![0; 1 + dice.roll(most) as usize];
    match session.read(id, &mut into) {
        Ok(None) => {}
        Ok(Some(0)) => user.read_end = true,
        Ok(Some(count)) => {
            assert!(!user.read_end, "nothing comes behind the end");
            for (at, byte) in into[..count].iter().enumerate() {
                let offset = user.read + at as u64;
                assert_eq!(*byte, byte_at(id, 1 - side, offset), "channel {id}, offset {offset}");
            }
            user.read += count as u64;
        }
        Err(ChannelError::Reset) => user.broken = true,
        Err(error) => panic!("{error}"),
    }
}

/// Every byte that a side has read to the end was all that the other wrote.
pub(super) fn assert_complete(world: &World) {
    for side in 0..2 {
        for (id, user) in &world.users[side] {
            let other = &world.users[1 - side][id];
            if user.read_end {
                assert_eq!(user.read, other.total, "channel {id}");
            }
            let undisturbed = !user.doomed && !other.doomed;
            assert!(!undisturbed || user.read_end, "channel {id} did not come to its end");
        }
    }
}

fn run(seed: u64, resets: bool, cuts: u64) {
    let mut world = World::new(seed, resets);
    let labels = [Label::Control, Label::Disk(0), Label::Ram(0), Label::Disk(1)];
    for round in 0..6u64 {
        let side = (world.dice.roll(2)) as usize;
        world.open(side, labels[round as usize % labels.len()]);
    }
    let mut left = cuts;
    for _ in 0..20_000 {
        world.step();
        if left > 0 && world.dice.one_in(8) {
            left -= 1;
            let lane = Lane::ALL[world.dice.roll(2) as usize];
            world.cut(lane);
            if world.dice.one_in(2) {
                world.step();
            }
            world.connect(lane);
        }
        if left == 0 && world.is_quiet() {
            return assert_complete(&world);
        }
    }
    panic!("seed {seed}: the channels do not come to their end");
}

#[test]
fn undisturbed_channels_come_to_their_end() {
    (0..20).for_each(|seed| run(seed, false, 0));
}

#[test]
fn resets_harm_no_other_channel_and_leave_nothing_behind() {
    (0..20).for_each(|seed| run(seed, true, 0));
}

#[test]
fn cuts_lose_nothing_and_double_nothing() {
    (0..20).for_each(|seed| run(seed, seed % 2 == 0, 1 + seed % 12));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(8))]
    #[test]
    fn any_seed_comes_to_its_end(seed: u64, resets: bool, cuts in 0..10u64) {
        run(seed, resets, cuts);
    }
}
