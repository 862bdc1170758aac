//! One seed: its world, its faults, and its verdict.

use std::time::Duration;

use blockd::extent::{BLOCK_BYTES, Extent};
use blockd::replica::source::SealState;

use super::disk::Disk;
use super::guest::{Guest, SECTOR_BYTES};
use super::kept::Kept;
use super::link::Link;
use super::replica_host::ReplicaHost;
use super::rng::Rng;
use super::source_host::{Settings, SourceHost};

/// Steps with faults and a writing guest.
const STEPS: u64 = 1200;
/// Steps within which everything has to come to rest.
const STEPS_TO_REST: u64 = 200_000;

/// What a seed came to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    /// Faults that were made.
    pub faults: u64,
    /// Barriers that were passed.
    pub barriers: u64,
    /// Deltas that were recorded by the last process.
    pub deltas: u64,
}

struct Barrier {
    id: u64,
    /// Per sector: the numbers that the replica may hold. Empty: not checked.
    allowed: Vec<Vec<u64>>,
}

struct World {
    rng: Rng,
    now: Duration,
    settings: Settings,
    guest: Guest,
    source: SourceHost,
    replica: ReplicaHost,
    link: Option<Link>,
    barrier: Option<Barrier>,
    /// An older state of the replica.
    copy: (Disk, u64, u64),
    outcome: Outcome,
}

/// Runs a seed. The error says what the oracle found.
pub fn run(seed: u64, kept: Kept) -> Result<Outcome, String> {
    let mut rng = Rng::new(seed);
    let blocks = 6 + rng.below(40);
    // One disk in three has a short last block.
    let tail = if rng.chance(33) { SECTOR_BYTES * (1 + rng.below(7)) } else { 0 };
    let size = blocks * BLOCK_BYTES + tail;
    let settings = Settings {
        size,
        budget_bytes: rng.below(20) * (BLOCK_BYTES + 200),
        window_bytes: (1 + rng.below(6)) * 32 * 1024,
        kept,
    };
    let mut guest = Guest::new(size);
    let source = SourceHost::new(settings, &mut guest);
    let replica = ReplicaHost::new(settings);
    let now = Duration::from_secs(1);
    let copy = (Disk::new(size), 0, 0);
    let outcome = Outcome::default();
    World { rng, now, settings, guest, source, replica, link: None, barrier: None, copy, outcome }.run()
}

impl World {
    fn run(mut self) -> Result<Outcome, String> {
        for _ in 0..STEPS {
            if self.rng.below(1000) < 12 {
                self.fault()?;
            } else {
                self.step(true)?;
            }
        }
        self.come_to_rest()?;
        self.outcome.deltas = self.source.recorder().lock().tracker.pending().counts().deltas_total;
        Ok(self.outcome)
    }

    /// One random thing that the world may do.
    fn step(&mut self, guest_writes: bool) -> Result<(), String> {
        match self.rng.below(12) {
            0 | 1 if guest_writes && self.guest.outstanding() < 8 => {
                let bytes = self.guest.issue(&mut self.rng);
                self.source.receive_from_guest(&bytes);
            }
            2..=5 if self.source.disk_is_busy() => {
                self.source.step_disk(&mut self.rng, self.now);
                self.note_disk_step();
            }
            6 | 7 => self.step_stream(),
            8 | 9 => {
                self.replica.step(&mut self.rng, self.link.as_mut());
            }
            10 => self.now += Duration::from_micros(self.rng.below(2000)),
            11 if guest_writes && self.rng.chance(5) => self.set_barrier(),
            _ => self.move_bytes(),
        }
        self.source.serve(&mut self.guest, self.now);
        self.check_barrier()
    }

    fn step_stream(&mut self) {
        match &mut self.link {
            Some(link) if link.source_gone => {
                self.link = None;
            }
            Some(link) if link.cut && self.rng.chance(20) => {
                link.source_gone = true;
                self.source.disconnect();
            }
            Some(link) => {
                self.source.step_sender(link, self.now);
            }
            None => {
                self.link = Some(Link::default());
                self.source.connect();
                self.replica.accept();
            }
        }
    }

    fn move_bytes(&mut self) {
        let Some(link) = &mut self.link else { return };
        let longest = if self.rng.chance(50) { 100 } else { 100_000 };
        let most = 1 + self.rng.below(longest) as usize;
        if self.rng.chance(50) {
            let bytes = link.down.take(most);
            self.replica.receive(&bytes);
        } else if !link.source_gone && self.replica.is_connected() {
            let bytes = link.up.take(most);
            self.source.receive_from_replica(&bytes);
        }
    }

    fn fault(&mut self) -> Result<(), String> {
        self.outcome.faults += 1;
        let crash = self.rng.chance(15);
        match self.rng.below(3) {
            0 => self.cut_link(),
            1 => {
                self.cut_link();
                self.link = None;
                self.barrier = None;
                if self.rng.chance(30) {
                    self.guest.reset();
                }
                if crash {
                    self.source.crash(&mut self.rng, &mut self.guest);
                } else {
                    self.source.kill(&mut self.rng, &mut self.guest);
                }
                self.source.serve(&mut self.guest, self.now);
                self.guest
                    .check(self.source.disk.bytes())
                    .map_err(|wrong| format!("after a death: {wrong}"))?;
            }
            _ if self.rng.chance(20) => {
                self.cut_link();
                let old = std::mem::replace(&mut self.copy, self.replica.copy());
                // A copy made in the very session that is still the last cannot be told from the replica.
                if old.1 < self.replica.epoch() {
                    self.replica.replace(&mut self.rng, old);
                }
            }
            _ => {
                self.cut_link();
                if crash { self.replica.crash(&mut self.rng) } else { self.replica.kill(&mut self.rng) }
            }
        }
        Ok(())
    }

    fn cut_link(&mut self) {
        if let Some(link) = &mut self.link {
            link.cut(&mut self.rng);
        }
    }

    /// Sets a barrier, noting what the replica may hold when it is passed.
    fn set_barrier(&mut self) {
        if self.barrier.is_some() {
            return;
        }
        let in_flight = self.source.extents_in_flight();
        let bytes = self.source.disk.bytes();
        let allowed = bytes.chunks(SECTOR_BYTES as usize).enumerate().map(|(index, chunk)| {
            let sector = Extent::new(index as u64 * SECTOR_BYTES, SECTOR_BYTES);
            let unsure = in_flight.iter().any(|extent| extent.overlaps(&sector));
            if unsure { Vec::new() } else { vec![number_in(chunk)] }
        });
        let allowed = allowed.collect();
        let id = self.source.recorder().lock().tracker.add_barrier();
        self.barrier = Some(Barrier { id, allowed });
    }

    /// Whatever the source's disk holds after the barrier may also be at the replica.
    fn note_disk_step(&mut self) {
        let Some(barrier) = &mut self.barrier else { return };
        let chunks = self.source.disk.bytes().chunks(SECTOR_BYTES as usize);
        for (allowed, chunk) in barrier.allowed.iter_mut().zip(chunks) {
            let number = number_in(chunk);
            if !allowed.is_empty() && !allowed.contains(&number) {
                allowed.push(number);
            }
        }
    }

    fn check_barrier(&mut self) -> Result<(), String> {
        let Some(barrier) = &self.barrier else { return Ok(()) };
        if !self.source.recorder().lock().tracker.barrier_passed(barrier.id) {
            return Ok(());
        }
        let barrier = self.barrier.take().expect("just seen");
        self.source.recorder().lock().tracker.end_barrier(barrier.id);
        self.outcome.barriers += 1;
        let durable = self.replica.disk.durable_bytes();
        for (index, (allowed, chunk)) in
            barrier.allowed.iter().zip(durable.chunks(SECTOR_BYTES as usize)).enumerate()
        {
            if !allowed.is_empty() && !allowed.contains(&number_in(chunk)) {
                let found = number_in(chunk);
                return Err(format!("a passed barrier lacks sector {index}: {found} is not in {allowed:?}"));
            }
        }
        Ok(())
    }

    /// No more faults; the guest falls silent; the disk is sealed; both sides must agree.
    fn come_to_rest(&mut self) -> Result<(), String> {
        let verify_all = self.rng.chance(50);
        let mut sealing = false;
        for _ in 0..STEPS_TO_REST {
            self.step(false)?;
            if !sealing && self.guest.outstanding() == 0 {
                sealing = true;
                self.source.volume_mut().hold();
                let recorder = self.source.recorder().clone();
                let mut guard = recorder.lock();
                let blockd::recorder::Recording { tracker, source, .. } = &mut *guard;
                source.seal(tracker, 2, verify_all);
            }
            let state = self.source.recorder().lock().source.seal_state();
            match state {
                SealState::Sealed(_) => return self.judge(),
                SealState::Differs(leaf) => return Err(format!("the seal found leaf {leaf} to differ")),
                SealState::Open | SealState::Sealing(_) | SealState::Told(_) => {}
            }
            // Time passes, so that nothing waits for a clock that stands still.
            self.now += Duration::from_micros(200);
        }
        Err(format!("not at rest after {STEPS_TO_REST} steps"))
    }

    fn judge(&self) -> Result<(), String> {
        self.guest.check(self.source.disk.bytes())?;
        if self.replica.sealed() != 2 {
            return Err("the source believes in a seal that the replica did not record".into());
        }
        let durable = self.replica.disk.durable_bytes();
        let differing = (0..self.settings.size / SECTOR_BYTES).find(|sector| {
            let range = (sector * SECTOR_BYTES) as usize..((sector + 1) * SECTOR_BYTES) as usize;
            durable[range.clone()] != self.source.disk.bytes()[range]
        });
        match differing {
            Some(sector) => Err(format!("sealed, but sector {sector} differs")),
            None => Ok(()),
        }
    }
}

fn number_in(sector: &[u8]) -> u64 {
    u64::from_le_bytes(sector[..8].try_into().expect("eight bytes"))
}
