//! The replica's host: its disk and sidecar, which last, and its blockd, which may die.

use blockd::extent::Extent;
use blockd::replica::batch::is_zero;
use blockd::replica::destination::{Destination, Identity, Op, leaf_of};

use super::disk::Disk;
use super::link::Link;
use super::rng::Rng;
use super::source_host::{Settings, take_frame};

struct Session {
    destination: Destination,
    received: Vec<u8>,
    at: u64,
}

/// The replica.
pub struct ReplicaHost {
    settings: Settings,
    /// Its disk.
    pub disk: Disk,
    epoch: u64,
    sealed: u64,
    session: Option<Session>,
    /// Sessions that should have ended; only without D13.
    undead: Vec<Session>,
}

impl ReplicaHost {
    /// A host with an empty replica.
    pub fn new(settings: Settings) -> Self {
        Self {
            settings,
            disk: Disk::new(settings.size),
            epoch: 0,
            sealed: 0,
            session: None,
            undead: Vec::new(),
        }
    }

    /// The generation that the replica is sealed for, or 0.
    pub fn sealed(&self) -> u64 {
        self.sealed
    }

    /// A new connection. D13: the old session's work in hand ends first, and what it had received
    /// and not begun is dropped.
    pub fn accept(&mut self) {
        if let Some(mut old) = self.session.take() {
            if self.settings.kept.d13 {
                self.finish_op(&mut old);
            } else {
                self.undead.push(old);
            }
        }
        let identity = Identity {
            size: self.settings.size,
            disk_id: "disk".into(),
            generation: 0,
            epoch: self.epoch,
            existing: self.epoch > 0,
            sealed: self.sealed,
            promoted: None,
        };
        self.session = Some(Session { destination: Destination::new(identity), received: Vec::new(), at: 0 });
    }

    /// Bytes from the source arrive.
    pub fn receive(&mut self, bytes: &[u8]) {
        if let Some(session) = &mut self.session {
            session.received.extend_from_slice(bytes);
        }
    }

    /// The process dies; what its disk has in hand ends or does not.
    pub fn kill(&mut self, rng: &mut Rng) {
        let mut sessions: Vec<Session> = self.undead.drain(..).collect();
        sessions.extend(self.session.take());
        for mut session in sessions {
            for _ in 0..rng.below(4) {
                self.step_op(&mut session);
            }
        }
    }

    /// The host crashes: what was not flushed may be lost.
    pub fn crash(&mut self, rng: &mut Rng) {
        self.kill(rng);
        self.disk.crash(rng);
    }

    /// What lasts of the replica, as it is now.
    pub fn copy(&self) -> (Disk, u64, u64) {
        (self.disk.clone(), self.epoch, self.sealed)
    }

    /// Somebody puts an older copy in its place, or an empty one.
    pub fn replace(&mut self, rng: &mut Rng, (disk, epoch, sealed): (Disk, u64, u64)) {
        self.kill(rng);
        (self.disk, self.epoch, self.sealed) = (disk, epoch, sealed);
    }

    /// Epoch of the last session that was welcomed.
    pub fn epoch(&self) -> u64 {
        self.epoch
    }

    /// True if there is a process that takes bytes.
    pub fn is_connected(&self) -> bool {
        self.session.is_some()
    }

    /// One step of work; answers go to `link` while it stands. False if there is nothing to do.
    pub fn step(&mut self, rng: &mut Rng, link: Option<&mut Link>) -> bool {
        if !self.undead.is_empty() && rng.chance(50) {
            let mut session = self.undead.pop().expect("just seen");
            if self.step_session(&mut session) {
                self.undead.push(session);
            }
            return true;
        }
        let Some(mut session) = self.session.take() else { return false };
        let worked = self.step_session(&mut session);
        let mut answers = Vec::new();
        while let Some(bytes) = session.destination.poll_transmit() {
            answers.extend(bytes);
        }
        if let Some(link) = link.filter(|link| !link.cut) {
            link.up.send(&answers);
        }
        self.session = Some(session);
        worked
    }

    fn step_session(&mut self, session: &mut Session) -> bool {
        if self.step_op(session) {
            return true;
        }
        let Some((header, body)) = take_frame(&mut session.received) else { return false };
        let result = session.destination.handle_frame(&header, &body);
        assert_eq!(result, Ok(()), "the source speaks the protocol");
        true
    }

    /// Goes one block further with the op in hand; false if there is none.
    fn step_op(&mut self, session: &mut Session) -> bool {
        let idle = take_frame(&mut session.received.clone()).is_none();
        let Some(op) = session.destination.poll_op(idle) else { return false };
        let extent = match &op {
            Op::Write(extent, _) | Op::Zero { extent, .. } => *extent,
            _ => Extent::new(0, 0),
        };
        let blocks = extent.touched_blocks();
        let block = blocks.start + session.at;
        if block < blocks.end {
            match op {
                Op::Write(extent, start) => {
                    self.disk.write_block(block, &extent, session.destination.payload(&extent, start));
                }
                Op::Zero { extent, allocate } => self.disk.zero_block(block, &extent, allocate),
                _ => unreachable!("only changes have blocks"),
            }
            session.at += 1;
            return true;
        }
        session.at = 0;
        let differing = self.run_whole(&op);
        session.destination.handle_done(Ok(differing)).expect("nothing failed");
        true
    }

    /// Runs an op that is not cut into blocks; returns the leaves that differ.
    fn run_whole(&mut self, op: &Op) -> Vec<u64> {
        match op {
            Op::Write(..) | Op::Zero { .. } => {}
            Op::Flush => self.disk.flush(),
            Op::RecordEpoch(epoch) => self.epoch = *epoch,
            Op::RecordSeal(generation) => self.sealed = *generation,
            Op::Compare(extent, digest) => {
                if blake3::hash(self.disk.read(extent)).as_bytes() != digest {
                    return vec![leaf_of(extent)];
                }
            }
            Op::CompareZeros(extent) => {
                let leaves = extent.touched_leaves();
                let differs = |leaf: &u64| {
                    !is_zero(self.disk.read(&Extent::of_leaves(*leaf..*leaf + 1, self.settings.size)))
                };
                return leaves.filter(differs).collect();
            }
        }
        Vec::new()
    }

    /// Ends the op in hand, and begins no other.
    fn finish_op(&mut self, session: &mut Session) {
        while session.at > 0 {
            self.step_op(session);
        }
    }
}
