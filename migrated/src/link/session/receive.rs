//! What a frame of the other side changes.

use std::time::Duration;

use super::{Breach, CHANNELS_EVER_MAX, CHANNELS_MAX, Event, Gone, Session};
use crate::link::wire::Frame;
use crate::link::{Label, Lane};

impl Session {
    /// A frame came on a lane that is attached. A breach ends the link; the shell says so by `close`.
    pub fn handle_frame(&mut self, lane: Lane, frame: &Frame<'_>, now: Duration) -> Result<(), Breach> {
        self.lane_mut(lane).hear(now);
        match *frame {
            Frame::Open { channel, label, credit } => self.handle_open(lane, channel, label, credit),
            Frame::Data { channel, offset, fin, bytes } => {
                self.handle_data(lane, channel, (offset, fin, bytes), now)
            }
            Frame::Ack { channel, received, fin, credit } => {
                self.handle_ack(lane, channel, received, fin, credit, now)
            }
            Frame::Reset { channel } => self.handle_reset(lane, channel),
            Frame::Resumed if self.is_resumed(lane) => Err(Breach::Link("the peer resumed a lane twice")),
            Frame::Resumed => {
                self.set_resumed(lane);
                Ok(())
            }
            Frame::Ping { nonce } => {
                self.lane_mut(lane).owe_pong(nonce);
                self.events.push_back(Event::Send(lane));
                Ok(())
            }
            Frame::Pong { nonce } => {
                self.handle_pong(lane, nonce, now);
                Ok(())
            }
            Frame::Close { ref text } => {
                self.end(&format!("the peer ended the link: {text}"));
                Ok(())
            }
        }
    }

    fn handle_open(&mut self, lane: Lane, id: u32, label: Label, credit: u64) -> Result<(), Breach> {
        let peers = 1 - self.next_id % 2;
        if !self.is_peers(id) {
            return Err(Breach::Link("the peer opened a channel with a number that is not its own"));
        }
        if label.lane() != lane {
            return Err(Breach::Link("the peer opened a channel on a lane that is not for it"));
        }
        if let Some(gone) = self.gone.get_mut(&id) {
            gone.due = true;
            return Ok(());
        }
        if let Some(entry) = self.channels.get(&id) {
            if entry.label != label {
                return Err(Breach::Link("the peer opened a channel twice, with two labels"));
            }
            return self.handle_credit(id, credit);
        }
        if self.channels.keys().filter(|other| **other % 2 == peers).count() >= CHANNELS_MAX {
            self.gone.insert(id, Gone { lane, reset: true, received: 0, due: true });
            self.events.push_back(Event::Send(lane));
            return Ok(());
        }
        self.insert(id, label).ack_due = true;
        self.opened.push_back((id, label));
        self.events.extend([Event::Opened, Event::Send(lane)]);
        self.handle_credit(id, credit)
    }

    /// Credit alone: of a channel's beginning.
    fn handle_credit(&mut self, id: u32, credit: u64) -> Result<(), Breach> {
        let Some(entry) = self.channels.get_mut(&id) else { return Ok(()) };
        let acked = entry.out.acked();
        entry.out.handle_ack(acked, false, credit).map(|_| ()).map_err(|violation| breach(id, violation))
    }

    fn handle_data(
        &mut self,
        lane: Lane,
        id: u32,
        (offset, fin, bytes): (u64, bool, &[u8]),
        now: Duration,
    ) -> Result<(), Breach> {
        if !self.check_channel(lane, id)? {
            return Ok(());
        }
        let Some(entry) = self.channels.get_mut(&id) else { return Ok(()) };
        if entry.reset {
            return Ok(());
        }
        let had_fin = entry.incoming.has_fin();
        let new =
            entry.incoming.handle_data(offset, fin, bytes).map_err(|violation| breach(id, violation))?;
        entry.ack_due = true;
        if let Some(rtt) = self.data_rtt {
            entry.incoming.tune(rtt, now);
        }
        let tell = !entry.released && (new > 0 || had_fin != entry.incoming.has_fin());
        self.events.push_back(Event::Send(lane));
        if tell {
            self.events.push_back(Event::Readable(id));
        }
        self.settle(id);
        Ok(())
    }

    fn handle_ack(
        &mut self,
        lane: Lane,
        id: u32,
        received: u64,
        fin: bool,
        credit: u64,
        now: Duration,
    ) -> Result<(), Breach> {
        if !self.check_channel(lane, id)? {
            return Ok(());
        }
        let Some(entry) = self.channels.get_mut(&id) else { return Ok(()) };
        if entry.reset {
            return Ok(());
        }
        let newly = entry.out.handle_ack(received, fin, credit).map_err(|violation| breach(id, violation))?;
        if entry.out.has_frame() {
            self.events.push_back(Event::Send(lane));
        }
        if newly > 0 && lane == Lane::Data {
            self.goodput.handle_acked(newly, now);
        }
        self.tell_room(id);
        self.settle(id);
        Ok(())
    }

    fn handle_reset(&mut self, lane: Lane, id: u32) -> Result<(), Breach> {
        if self.is_peers(id) && !self.channels.contains_key(&id) {
            // It was opened on a connection that broke before its `Open` came.
            self.gone.entry(id).or_insert(Gone { lane, reset: true, received: 0, due: false });
            return Ok(());
        }
        if !self.check_channel(lane, id)? {
            return Ok(());
        }
        let Some(entry) = self.channels.get_mut(&id) else { return Ok(()) };
        entry.reset = true;
        entry.reset_due = false;
        entry.incoming.abandon();
        self.events.extend([Event::Readable(id), Event::Writable(id)]);
        self.settle(id);
        Ok(())
    }

    fn handle_pong(&mut self, lane: Lane, nonce: u64, now: Duration) {
        // An echo of an earlier connection means nothing.
        let Some(sent_at) = self.lane_mut(lane).take_ping(nonce) else { return };
        let rtt = now.saturating_sub(sent_at);
        match lane {
            Lane::Control => self.rtt = Some(self.rtt.map_or(rtt, |old| (old * 7 + rtt) / 8)),
            Lane::Data => self.data_rtt = Some(self.data_rtt.map_or(rtt, |old| (old + rtt) / 2)),
        }
        self.events.push_back(Event::Pong { nonce, rtt });
    }

    /// True for a channel that lives, on its own lane; false for one that is over, whose end is said again.
    fn check_channel(&mut self, lane: Lane, id: u32) -> Result<bool, Breach> {
        if let Some(entry) = self.channels.get(&id) {
            return match entry.label.lane() == lane {
                true => Ok(true),
                false => Err(Breach::Link("the peer spoke of a channel on a lane that is not its own")),
            };
        }
        if let Some(gone) = self.gone.get_mut(&id) {
            // A reset is said once a connection; an end as often as the other side seems not to know it.
            gone.due |= !gone.reset;
            return Ok(false);
        }
        Err(Breach::Link("the peer spoke of a channel that was never opened"))
    }
}

impl Session {
    /// A number that the other side may use for a channel that it opens.
    fn is_peers(&self, id: u32) -> bool {
        id % 2 != self.next_id % 2 && id / 2 <= CHANNELS_EVER_MAX
    }
}

fn breach(channel: u32, violation: crate::link::channel::Violation) -> Breach {
    Breach::Channel { channel, violation }
}
