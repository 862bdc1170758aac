//! The two lanes: what is sent next, the heartbeat, and what happens when a connection comes or goes.

use std::collections::VecDeque;
use std::time::Duration;

use super::{Event, Session};
use crate::link::wire::{Frame, HEADER_BYTES, put_data};
use crate::link::{Class, Lane};

/// How often a lane that stands is pinged.
pub const PING_EVERY: Duration = Duration::from_secs(1);
/// After so long without a byte the other side is taken for dead. A tick of the shell's clock comes on top.
pub const SILENCE_MAX: Duration = Duration::from_millis(2700);
/// Most echoes that are owed or awaited at a time; the oldest is forgotten.
const ECHOES_MAX: usize = 8;

/// What a lane has to send now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// These frames were appended.
    Frames,
    /// Nothing.
    Idle,
    /// Nothing before this time: the byte budget is spent.
    Wait(Duration),
    /// Nothing, ever: the other side was told that the link is over.
    Over,
}

/// One connection, or the lack of one.
#[derive(Debug, Default)]
pub(super) struct LaneState {
    attached: bool,
    /// The other side has said what it has.
    resumed: bool,
    resumed_due: bool,
    heard_at: Duration,
    ping_at: Duration,
    /// Nonces that wait to be sent.
    pings_due: VecDeque<u64>,
    /// Nonces on their way, and since when.
    pings: VecDeque<(u64, Duration)>,
    pongs_due: VecDeque<u64>,
    pub(super) close_due: bool,
    close_said: bool,
}

impl LaneState {
    pub(super) fn hear(&mut self, now: Duration) {
        self.heard_at = self.heard_at.max(now);
    }

    pub(super) fn owe_pong(&mut self, nonce: u64) {
        push_bounded(&mut self.pongs_due, nonce);
    }

    /// When the ping with this nonce was sent.
    pub(super) fn take_ping(&mut self, nonce: u64) -> Option<Duration> {
        let at = self.pings.iter().position(|(sent, _)| *sent == nonce)?;
        self.pings.remove(at).map(|(_, sent_at)| sent_at)
    }
}

fn push_bounded<T>(queue: &mut VecDeque<T>, item: T) {
    if queue.len() >= ECHOES_MAX {
        queue.pop_front();
    }
    queue.push_back(item);
}

impl Session {
    /// A new connection stands for the lane; an old one, if any, is given up. What is not acknowledged is sent again.
    pub fn attach(&mut self, lane: Lane, now: Duration) {
        let close_due = self.lane_mut(lane).close_due;
        *self.lane_mut(lane) = LaneState {
            attached: true,
            resumed_due: true,
            heard_at: now,
            ping_at: now + PING_EVERY,
            close_due,
            ..LaneState::default()
        };
        let own = self.next_id % 2;
        for (id, entry) in self.channels.iter_mut().filter(|(_, entry)| entry.label.lane() == lane) {
            entry.open_due = id % 2 == own;
            entry.ack_due = true;
            entry.reset_due = entry.reset;
        }
        self.gone.values_mut().filter(|gone| gone.lane == lane).for_each(|gone| gone.due = true);
        if lane == Lane::Data {
            self.goodput.interrupt();
        }
        self.events.push_back(Event::Send(lane));
    }

    /// The lane's connection is gone.
    pub fn detach(&mut self, lane: Lane) {
        let close_due = self.lane_mut(lane).close_due;
        *self.lane_mut(lane) = LaneState { close_due, ..LaneState::default() };
        if lane == Lane::Data {
            self.goodput.interrupt();
        }
    }

    /// The lane has a connection.
    pub fn is_attached(&self, lane: Lane) -> bool {
        self.lanes[lane as usize].attached
    }

    /// How long nothing was heard on any lane that stands; none: none stands.
    pub fn quiet(&self, now: Duration) -> Option<Duration> {
        let attached = self.lanes.iter().filter(|lane| lane.attached);
        attached.map(|lane| now.saturating_sub(lane.heard_at)).min()
    }

    /// Asks for an echo on the control lane; its `Pong` carries the nonce that is returned.
    pub fn ping(&mut self) -> u64 {
        let nonce = self.take_nonce();
        push_bounded(&mut self.lane_mut(Lane::Control).pings_due, nonce);
        self.events.push_back(Event::Send(Lane::Control));
        nonce
    }

    /// The clock: pings that are due, and lanes on which nothing was heard for too long.
    pub fn handle_timeout(&mut self, now: Duration) {
        for lane in Lane::ALL {
            let state = self.lane_mut(lane);
            if !state.attached {
                continue;
            }
            if now.saturating_sub(state.heard_at) >= SILENCE_MAX {
                self.events.push_back(Event::Silent(lane));
            } else if now >= state.ping_at {
                state.ping_at = now + PING_EVERY;
                let nonce = self.take_nonce();
                push_bounded(&mut self.lane_mut(lane).pings_due, nonce);
                self.events.push_back(Event::Send(lane));
            }
        }
    }

    /// Appends what the lane sends next: everything small that is due, and at most one frame's worth of data.
    pub fn poll_frame(&mut self, lane: Lane, now: Duration, out: &mut Vec<u8>) -> Next {
        let start = out.len();
        if !self.is_attached(lane) {
            return Next::Idle;
        }
        if self.lane_mut(lane).close_said {
            return Next::Over;
        }
        if self.over.is_some() {
            return self.say_close(lane, out);
        }
        self.say_small(lane, now, out);
        let wait = self.schedule.wait_until(now).filter(|_| lane == Lane::Data);
        let data = self.lanes[lane as usize].resumed && wait.is_none() && self.say_data(lane, out);
        let blocked = wait.is_some() && self.next_channel(lane).is_some();
        if lane == Lane::Data {
            self.goodput.set_busy(data || blocked, now);
        }
        let bytes = (out.len() - start) as u64;
        self.sent_bytes += bytes;
        self.schedule.spend(bytes, now);
        match wait {
            _ if bytes > 0 => Next::Frames,
            Some(until) if blocked => Next::Wait(until),
            _ => Next::Idle,
        }
    }

    fn say_close(&mut self, lane: Lane, out: &mut Vec<u8>) -> Next {
        let text = self.over.clone().unwrap_or_default();
        let state = self.lane_mut(lane);
        if !state.close_due {
            return Next::Over;
        }
        Frame::Close { text }.encode(out);
        state.close_said = true;
        Next::Frames
    }

    fn say_small(&mut self, lane: Lane, now: Duration, out: &mut Vec<u8>) {
        let state = &mut self.lanes[lane as usize];
        for nonce in state.pongs_due.drain(..) {
            Frame::Pong { nonce }.encode(out);
        }
        while let Some(nonce) = state.pings_due.pop_front() {
            Frame::Ping { nonce }.encode(out);
            push_bounded(&mut state.pings, (nonce, now));
        }
        self.say_channels(lane, out);
        let state = &mut self.lanes[lane as usize];
        if std::mem::take(&mut state.resumed_due) {
            Frame::Resumed.encode(out);
        }
    }

    /// What is to be said of channels: those that are over, those that begin, and what came of the others.
    fn say_channels(&mut self, lane: Lane, out: &mut Vec<u8>) {
        for (&channel, gone) in self.gone.iter_mut().filter(|(_, gone)| gone.lane == lane && gone.due) {
            gone.due = false;
            if gone.reset {
                Frame::Reset { channel }.encode(out);
            } else {
                Frame::Ack { channel, received: gone.received, fin: true, credit: gone.received }.encode(out);
            }
        }
        for (&channel, entry) in self.channels.iter_mut().filter(|(_, entry)| entry.label.lane() == lane) {
            if std::mem::take(&mut entry.open_due) {
                let credit = entry.incoming.give_credit();
                Frame::Open { channel, label: entry.label, credit }.encode(out);
            }
            if std::mem::take(&mut entry.reset_due) {
                Frame::Reset { channel }.encode(out);
            }
            if entry.reset {
                continue;
            }
            if std::mem::take(&mut entry.ack_due) {
                let credit = entry.incoming.give_credit();
                let (received, fin) = (entry.incoming.received(), entry.incoming.has_fin());
                Frame::Ack { channel, received, fin, credit }.encode(out);
            }
        }
        let ended: Vec<u32> = self.channels.iter().filter(|(_, e)| e.released).map(|(id, _)| *id).collect();
        ended.into_iter().for_each(|id| self.settle(id));
    }

    /// Data of the channels whose turn it is, up to one frame's worth; true if there was any.
    fn say_data(&mut self, lane: Lane, out: &mut Vec<u8>) -> bool {
        let mut room = self.frame_bytes() as usize;
        let mut any = false;
        while room > 0
            && let Some(id) = self.next_channel(lane)
        {
            let entry = self.channels.get_mut(&id).expect("it was just picked");
            let (offset, fin, pieces) = entry.out.next(room);
            put_data(out, id, offset, fin, pieces);
            let bytes = pieces.0.len() + pieces.1.len();
            let label = entry.label;
            room = room.saturating_sub(bytes + HEADER_BYTES);
            self.schedule.charge(id, label, (bytes + HEADER_BYTES) as u64);
            self.tell_room(id);
            any = true;
        }
        any
    }

    fn next_channel(&self, lane: Lane) -> Option<u32> {
        let ready = self.channels.iter().filter(|(_, entry)| entry.label.lane() == lane);
        let ready = ready.filter(|(_, entry)| !entry.reset && !entry.open_due && entry.out.has_frame());
        self.schedule.next(ready.map(|(id, entry)| (*id, entry.label)))
    }

    /// Tells a writer that was turned away of room, when there is enough of it to be worth its while.
    pub(super) fn tell_room(&mut self, id: u32) {
        let Some(entry) = self.channels.get(&id) else { return };
        if !entry.wants_room {
            return;
        }
        let unsent_max = self.unsent_bytes_max(entry.label);
        let enough = match entry.label.class() {
            Class::Ram => entry.out.unsent_bytes() < unsent_max,
            Class::Control | Class::Disk => entry.out.unsent_bytes() <= unsent_max / 2,
        };
        if enough {
            self.channels.entry(id).and_modify(|entry| entry.wants_room = false);
            self.events.push_back(Event::Writable(id));
        }
    }

    fn take_nonce(&mut self) -> u64 {
        self.next_nonce += 1;
        self.next_nonce - 1
    }

    pub(super) fn set_resumed(&mut self, lane: Lane) {
        self.lane_mut(lane).resumed = true;
        for entry in self.channels.values_mut().filter(|entry| entry.label.lane() == lane) {
            entry.out.rewind();
        }
        self.events.push_back(Event::Send(lane));
    }

    pub(super) fn is_resumed(&self, lane: Lane) -> bool {
        self.lanes[lane as usize].resumed
    }
}
