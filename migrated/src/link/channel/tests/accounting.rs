//! Every order of a few operations on one direction of a channel, cuts included: the accounts must hold after each.

use super::super::{Incoming, Outgoing};
use crate::link::Label;

/// Operations in a row.
const DEPTH: usize = 7;
/// What a pacing this tight lets wait.
const UNSENT_MAX: u64 = 3;

/// What is done next.
#[derive(Clone, Copy, Debug)]
enum Op {
    Write,
    Finish,
    SendOne,
    SendAll,
    Deliver,
    Acknowledge,
    Hear,
    Read,
    Cut,
}

const OPS: [Op; 9] = [
    Op::Write,
    Op::Finish,
    Op::SendOne,
    Op::SendAll,
    Op::Deliver,
    Op::Acknowledge,
    Op::Hear,
    Op::Read,
    Op::Cut,
];

/// A direction: its two ends, and what is between them.
struct World {
    out: Outgoing,
    incoming: Incoming,
    /// Frames on their way: offset, end, bytes.
    frames: Vec<(u64, bool, Vec<u8>)>,
    /// Acknowledgements on their way: received, end, credit.
    acks: Vec<(u64, bool, u64)>,
    written: u64,
    read: u64,
}

impl World {
    fn new() -> Self {
        Self {
            out: Outgoing::new(),
            incoming: Incoming::new(Label::Disk(0)),
            frames: Vec::new(),
            acks: Vec::new(),
            written: 0,
            read: 0,
        }
    }

    fn ack(&mut self) -> (u64, bool, u64) {
        (self.incoming.received(), self.incoming.has_fin(), self.incoming.give_credit())
    }

    /// Does it where it can be done; false: it cannot, and whatever follows was looked at without it.
    fn act(&mut self, op: Op) -> bool {
        match op {
            Op::Write if !self.out.is_finished() && self.out.unsent_bytes() < UNSENT_MAX => {
                let bytes = [self.written as u8, self.written as u8 + 1];
                self.written += self.out.write(&bytes, UNSENT_MAX) as u64;
            }
            Op::Finish if !self.out.is_finished() => self.out.finish(),
            Op::SendOne | Op::SendAll if self.out.has_frame() => {
                let max = if matches!(op, Op::SendOne) { 1 } else { 100 };
                let (offset, fin, (first, second)) = self.out.next(max);
                let bytes = [first, second].concat();
                self.frames.push((offset, fin, bytes));
            }
            Op::Deliver if !self.frames.is_empty() => {
                let (offset, fin, bytes) = self.frames.remove(0);
                self.incoming.handle_data(offset, fin, &bytes).expect("the sender keeps to the rules");
            }
            Op::Acknowledge if self.acks.len() < 2 => {
                let ack = self.ack();
                self.acks.push(ack);
            }
            Op::Hear if !self.acks.is_empty() => {
                let (received, fin, credit) = self.acks.remove(0);
                self.out.handle_ack(received, fin, credit).expect("the receiver keeps to the rules");
            }
            Op::Read if self.incoming.buffered_bytes() > 0 => {
                let mut byte = [0];
                assert_eq!(self.incoming.read(&mut byte), 1);
                assert_eq!(u64::from(byte[0]), self.read, "in order, once");
                self.read += 1;
            }
            // What was under way is gone; the new connection begins with what the receiver has.
            Op::Cut if !self.frames.is_empty() || !self.acks.is_empty() => {
                self.frames.clear();
                self.acks.clear();
                let (received, fin, credit) = self.ack();
                self.out.handle_ack(received, fin, credit).expect("the receiver keeps to the rules");
                self.out.rewind();
                assert_eq!(
                    self.out.sent(),
                    self.incoming.received(),
                    "not a byte twice beyond what it lacks"
                );
            }
            _ => return false,
        }
        true
    }

    fn check(&self) {
        let (out, incoming) = (&self.out, &self.incoming);
        assert!(out.acked() <= incoming.received() && incoming.received() <= out.written());
        assert!(out.acked() <= out.sent() && out.sent() <= out.written());
        assert_eq!(out.written(), self.written);
        assert!(out.unsent_bytes() <= UNSENT_MAX.max(self.written - out.acked()));
        assert_eq!(incoming.received() - incoming.buffered_bytes(), self.read);
        assert!(!incoming.has_fin() || (out.is_finished() && incoming.received() == self.written));
        assert!(!out.is_done() || incoming.has_fin());
    }

    /// Whatever has happened: left alone, it comes to its end.
    fn complete(&mut self) {
        self.act(Op::Finish);
        for _ in 0..20 {
            for op in [Op::Hear, Op::SendAll, Op::Deliver, Op::Read, Op::Acknowledge] {
                while self.act(op) && !matches!(op, Op::Acknowledge) {}
            }
        }
        assert!(self.out.is_done() && self.incoming.has_fin());
        assert_eq!(self.read, self.written);
    }
}

#[test]
fn every_order_of_writes_sends_losses_and_acknowledgements_keeps_the_accounts() {
    let mut looked_at = 0;
    let mut path = [0; DEPTH];
    loop {
        let mut world = World::new();
        // One that cannot be done here is where the next path begins.
        let stuck = (0..DEPTH).find(|at| {
            let done = world.act(OPS[path[*at]]);
            world.check();
            !done
        });
        if stuck.is_none() {
            world.complete();
            looked_at += 1;
        }
        let mut at = stuck.unwrap_or(DEPTH - 1);
        path[at + 1..].fill(0);
        while path[at] + 1 == OPS.len() {
            path[at] = 0;
            match at.checked_sub(1) {
                Some(before) => at = before,
                None => {
                    assert!(looked_at > 10_000, "{looked_at} were too few to prove anything");
                    return;
                }
            }
        }
        path[at] += 1;
    }
}
