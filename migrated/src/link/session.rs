//! The session of a link: its channels, its two lanes, and the one place where both meet. No I/O, no clock.
//!
//! ```text
//!  user of a channel            session                               shell, one a lane
//!    open, write, finish ───►  ┌──────────┐  ──── poll_frame ────►  what to send next, or how long to wait
//!    read, reset, release ──►  │ channels │  ◄─── handle_frame ───  what came
//!    ◄─── poll_event ────────  │  lanes   │  ◄─── attach, detach ─  a connection stands, or is gone
//!                              └──────────┘  ◄─── handle_timeout ─  the clock
//! ```
//!
//! A lane without a connection is a stall, not an error. When a connection is attached, both sides say for each
//! channel of that lane what they have (`Open`, `Ack`, `Reset`), then `Resumed`; data flows when the other side's
//! `Resumed` has come, from what it has on. Channels that are over are remembered by a few bytes for as long as
//! the link lives, so that what was said of their end can be said again.
//!
//! Lanes and receiving are in the modules below. What ends a link for ever is `Close`, or a breach of the protocol.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use thiserror::Error;

use self::lanes::LaneState;
use super::channel::{Incoming, Outgoing, Violation};
use super::goodput::Goodput;
use super::schedule::Schedule;
use super::{Class, Label, Lane};

mod pacing;
mod lanes;
mod receive;
mod stats;

pub use lanes::{Next, PING_EVERY, SILENCE_MAX};
pub use pacing::RAM_UNSENT;
pub use stats::ChannelStats;

/// Most channels at a time that one side has opened.
pub const CHANNELS_MAX: usize = 64;
/// Most channels that one side opens in the life of a link.
pub const CHANNELS_EVER_MAX: u32 = 4096;
/// Which side of the link this is; decides the numbers of its channels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// It dialled: its channels are odd.
    Dialler,
    /// It listened: its channels are even.
    Listener,
}

/// What the shell has to do or to tell somebody.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// There is something to read of a channel, or an end or an error.
    Readable(u32),
    /// There is room to write, or an error.
    Writable(u32),
    /// The other side opened a channel.
    Opened,
    /// The lane has something to send.
    Send(Lane),
    /// Nothing was heard on the lane for too long.
    Silent(Lane),
    /// An echo came back.
    Pong {
        /// Which.
        nonce: u64,
        /// After so long.
        rtt: Duration,
    },
    /// The other side has ended the link.
    Closed,
}

/// Why a channel does not read or write.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum ChannelError {
    /// One of the sides broke it off.
    #[error("the channel was broken off")]
    Reset,
    /// The link is over.
    #[error("the link is over: {0}")]
    Over(String),
    /// There is no such channel.
    #[error("there is no such channel")]
    Unknown,
    /// A side has as many channels as it may.
    #[error("the link has as many channels as it may")]
    TooMany,
}

/// What the other side did that ends the link.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum Breach {
    /// A channel's rules.
    #[error("channel {channel}: {violation}")]
    Channel {
        /// Which.
        channel: u32,
        /// What.
        violation: Violation,
    },
    /// A rule of the link.
    #[error("{0}")]
    Link(&'static str),
}

/// A channel that lives.
#[derive(Debug)]
struct Entry {
    label: Label,
    out: Outgoing,
    incoming: Incoming,
    /// This side opened it and has to say so.
    open_due: bool,
    ack_due: bool,
    reset: bool,
    /// This side broke it off and has to say so.
    reset_due: bool,
    /// Its user has let it go.
    released: bool,
    /// A writer was turned away.
    wants_room: bool,
}

/// A channel that is over: enough to say its end again.
#[derive(Debug)]
struct Gone {
    lane: Lane,
    reset: bool,
    received: u64,
    due: bool,
}

/// See the module.
#[derive(Debug)]
pub struct Session {
    next_id: u32,
    channels: BTreeMap<u32, Entry>,
    gone: BTreeMap<u32, Gone>,
    opened: VecDeque<(u32, Label)>,
    lanes: [LaneState; 2],
    schedule: Schedule,
    goodput: Goodput,
    rtt: Option<Duration>,
    /// A round trip of the data lane, behind what is queued there.
    data_rtt: Option<Duration>,
    sent_bytes: u64,
    next_nonce: u64,
    over: Option<String>,
    events: VecDeque<Event>,
}

impl Session {
    /// A link without connections.
    pub fn new(side: Side) -> Self {
        Self {
            next_id: if side == Side::Dialler { 1 } else { 2 },
            channels: BTreeMap::new(),
            gone: BTreeMap::new(),
            opened: VecDeque::new(),
            lanes: [LaneState::default(), LaneState::default()],
            schedule: Schedule::default(),
            goodput: Goodput::default(),
            rtt: None,
            data_rtt: None,
            sent_bytes: 0,
            next_nonce: 1,
            over: None,
            events: VecDeque::new(),
        }
    }

    /// What has to be done; ask until there is none.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// Opens a channel. It can be written at once; the other side learns of it when it is told.
    pub fn open(&mut self, label: Label) -> Result<u32, ChannelError> {
        self.check_alive()?;
        let id = self.next_id;
        let own = self.channels.keys().filter(|other| **other % 2 == id % 2).count();
        if own >= CHANNELS_MAX || id / 2 >= CHANNELS_EVER_MAX {
            return Err(ChannelError::TooMany);
        }
        self.next_id += 2;
        self.insert(id, label).open_due = true;
        self.events.push_back(Event::Send(label.lane()));
        Ok(id)
    }

    /// A channel that the other side has opened.
    pub fn accept(&mut self) -> Option<(u32, Label)> {
        self.opened.pop_front()
    }

    /// Writes; 0: there is no room now, `Writable` follows.
    pub fn write(&mut self, id: u32, bytes: &[u8]) -> Result<usize, ChannelError> {
        self.check_alive()?;
        let entry = self.channels.get(&id).ok_or(ChannelError::Unknown)?;
        if entry.reset || entry.out.is_finished() {
            return Err(ChannelError::Reset);
        }
        let lane = entry.label.lane();
        let unsent_max = self.unsent_bytes_max(entry.label);
        let entry = self.entry(id)?;
        let taken = entry.out.write(bytes, unsent_max);
        entry.wants_room = taken < bytes.len();
        if taken > 0 {
            self.events.push_back(Event::Send(lane));
        }
        Ok(taken)
    }

    /// Nothing more will be written; what was written still goes over, and then the end.
    pub fn finish(&mut self, id: u32) -> Result<(), ChannelError> {
        let entry = self.entry(id)?;
        entry.out.finish();
        let lane = entry.label.lane();
        self.events.push_back(Event::Send(lane));
        Ok(())
    }

    /// Reads; none: nothing is here now, `Readable` follows; 0: the end.
    pub fn read(&mut self, id: u32, into: &mut [u8]) -> Result<Option<usize>, ChannelError> {
        let over = self.over.clone();
        let entry = self.entry(id)?;
        if entry.reset {
            return Err(ChannelError::Reset);
        }
        let count = entry.incoming.read(into);
        if count > 0 {
            if entry.incoming.owes_credit() {
                entry.ack_due = true;
                let lane = entry.label.lane();
                self.events.push_back(Event::Send(lane));
            }
            return Ok(Some(count));
        }
        match over {
            _ if entry.incoming.has_fin() => Ok(Some(0)),
            Some(text) => Err(ChannelError::Over(text)),
            None => Ok(None),
        }
    }

    /// Its user lets go of a channel. What it has written and finished still goes over; an unfinished one is reset.
    pub fn release(&mut self, id: u32) {
        let Ok(entry) = self.entry(id) else { return };
        entry.released = true;
        entry.incoming.abandon();
        let lane = entry.label.lane();
        if !entry.out.is_finished() && !entry.reset {
            entry.reset = true;
            entry.reset_due = true;
        } else {
            // The other side may still write into the void: it must not run out of credit.
            entry.ack_due |= !entry.reset;
        }
        self.events.push_back(Event::Send(lane));
        self.settle(id);
    }

    /// Ends the link: the other side is told why, on every lane that stands.
    pub fn close(&mut self, text: &str) {
        if self.over.is_some() {
            return;
        }
        for lane in Lane::ALL {
            self.lane_mut(lane).close_due = true;
            self.events.push_back(Event::Send(lane));
        }
        self.end(text);
    }

    /// The link is over, and nobody is told.
    pub fn end(&mut self, text: &str) {
        if self.over.is_some() {
            return;
        }
        self.over = Some(text.to_owned());
        let ids: Vec<u32> = self.channels.keys().copied().collect();
        self.events.extend(ids.iter().flat_map(|id| [Event::Readable(*id), Event::Writable(*id)]));
        self.events.extend([Event::Opened, Event::Closed]);
    }

    /// Why it is over.
    pub fn over(&self) -> Option<&str> {
        self.over.as_deref()
    }

    /// Everything that was written has arrived.
    pub fn is_drained(&self) -> bool {
        self.channels.values().all(|entry| entry.reset || entry.out.acked() == entry.out.written())
    }

    /// Limits all channels together.
    pub fn set_limit(&mut self, bytes_per_s: Option<u64>, now: Duration) {
        self.schedule.set_limit(bytes_per_s, now);
        self.events.extend(Lane::ALL.map(Event::Send));
    }

    /// The limit.
    pub fn limit_bytes_per_s(&self) -> Option<u64> {
        self.schedule.limit_bytes_per_s()
    }

    /// Lifts what the paused guest waits for; none: the usual order.
    pub fn prefer(&mut self, class: Option<Class>) {
        self.schedule.prefer(class);
    }

    /// The disks whose stream is bulk now: they wait for the others and for memory.
    pub fn set_bulk(&mut self, disks: BTreeSet<Label>) {
        self.schedule.set_bulk(disks);
    }

    /// Bytes a second that arrive, at most the limit; none: not known yet.
    pub fn goodput_bytes_per_s(&self) -> Option<u64> {
        let limit = self.limit_bytes_per_s().unwrap_or(u64::MAX);
        self.goodput.bytes_per_s().map(|rate| rate.min(limit))
    }

    /// The round trip, smoothed.
    pub fn rtt(&self) -> Option<Duration> {
        self.rtt
    }

    /// Bytes of frames handed to the connections.
    pub fn sent_bytes(&self) -> u64 {
        self.sent_bytes
    }

    fn check_alive(&self) -> Result<(), ChannelError> {
        self.over.as_ref().map_or(Ok(()), |text| Err(ChannelError::Over(text.clone())))
    }

    fn insert(&mut self, id: u32, label: Label) -> &mut Entry {
        let entry = Entry {
            label,
            out: Outgoing::new(),
            incoming: Incoming::new(label),
            open_due: false,
            ack_due: false,
            reset: false,
            reset_due: false,
            released: false,
            wants_room: false,
        };
        self.channels.entry(id).or_insert(entry)
    }

    fn entry(&mut self, id: u32) -> Result<&mut Entry, ChannelError> {
        self.channels.get_mut(&id).ok_or(ChannelError::Unknown)
    }

    fn lane_mut(&mut self, lane: Lane) -> &mut LaneState {
        &mut self.lanes[lane as usize]
    }

    /// Forgets a channel that is over at both ends and whose user has let go, but for what may be asked again.
    fn settle(&mut self, id: u32) {
        let Some(entry) = self.channels.get(&id) else { return };
        let ended = entry.out.is_done() && entry.incoming.has_fin();
        let unsaid = entry.open_due || entry.reset_due;
        if !entry.released || unsaid || !(entry.reset || ended) {
            return;
        }
        let gone = Gone {
            lane: entry.label.lane(),
            reset: entry.reset,
            received: entry.incoming.received(),
            due: entry.ack_due && !entry.reset,
        };
        self.channels.remove(&id);
        self.schedule.forget(id);
        self.gone.insert(id, gone);
    }
}

#[cfg(test)]
mod tests;
