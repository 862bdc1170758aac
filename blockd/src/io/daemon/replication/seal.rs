//! The seal and its end (D8): the guest's writes are held, what is left is sent, and both disks are compared.
//!
//! ```text
//!            seal                    sent, compared
//!  open ───────────► under way ────────────────────────► sealed
//!    ▲  unseal, a failure, time,       │      unseal       │
//!    └─ or nobody waits any more ◄─────┴───────────────────┘
//! ```
//!
//! The guest waits meanwhile, so nothing holds its writes that nobody will let go: a seal ends with whoever asked for it.

use std::time::Duration;

use serde_json::json;

use super::{Done, LOOK_AGAIN, Replication, millis_since, refused, sidecar_failed, stopped};
use crate::control::{Failure, FailureCode, Sealed, Verify};
use crate::extent::LEAF_BYTES;
use crate::io::clock;
use crate::io::control_server::Asker;
use crate::io::lock::lock;
use crate::recorder::{Recorder, Recording};
use crate::replica::source::SealState;

/// Whose turn it is to seal: one at a time, and none once it was told to end.
#[derive(Default)]
pub(super) struct Seals {
    begun: u64,
    under_way: Option<u64>,
}

impl Seals {
    /// The guest's writes are held for a seal that is not complete.
    pub(super) fn is_under_way(&self) -> bool {
        self.under_way.is_some()
    }

    fn begin(&mut self) -> u64 {
        self.begun += 1;
        self.under_way = Some(self.begun);
        self.begun
    }
}

impl Replication {
    /// A seal is under way: the guest's writes are held.
    pub fn is_sealing(&self) -> bool {
        lock(&self.seals).is_under_way()
    }

    /// `seal` (D8): holds the guest's writes, drains, compares; on any failure lets them go on.
    pub fn seal(&self, generation: u64, verify: Verify, timeout: Duration, asker: &Asker<'_>) -> Done {
        let recorder = self.recording()?;
        let started = clock::now();
        let mine = {
            let mut seals = lock(&self.seals);
            if self.is_sealed(&seals, generation)? {
                return Ok(json!(counted(&recorder, generation)));
            }
            // Its unseal may have overtaken it.
            check_asker(asker)?;
            let mine = seals.begin();
            self.mailbox.ask(|server, _| server.volume_mut().hold()).map_err(stopped)?;
            let mut guard = recorder.lock();
            let Recording { tracker, source, .. } = &mut *guard;
            source.seal(tracker, generation, verify == Verify::All);
            mine
        };
        recorder.wake();
        let compared = self.wait_until_equal(&recorder, timeout, asker);
        let mut seals = lock(&self.seals);
        if seals.under_way != Some(mine) {
            return Err(unsealed());
        }
        seals.under_way = None;
        let sealed = compared.and_then(|()| {
            lock(&self.sidecar).update(|header| header.sealed = generation).map_err(sidecar_failed)
        });
        if sealed.is_err() {
            self.let_go(&recorder);
        }
        sealed.map(|()| {
            let took_ms = Some(millis_since(started));
            json!(Sealed { took_ms, ..counted(&recorder, generation) })
        })
    }

    /// `unseal`: the guest's writes go on here, also if a seal is under way.
    pub fn unseal(&self) -> Done {
        let recorder = self.recording()?;
        let mut seals = lock(&self.seals);
        self.check_own(lock(&self.sidecar).header())?;
        lock(&self.sidecar).update(|header| header.sealed = 0).map_err(sidecar_failed)?;
        seals.under_way = None;
        self.let_go(&recorder);
        Ok(json!({ "sealed": 0 }))
    }

    /// Ends a seal that is under way for a disk that is given up: its writes stay held.
    pub fn end_seal(&self) {
        let mut seals = lock(&self.seals);
        if seals.under_way.take().is_some()
            && let Some(recorder) = self.recorder()
        {
            recorder.lock().source.unseal();
            recorder.wake();
        }
    }

    /// True if the disk is sealed for that generation. Refused: it cannot be.
    fn is_sealed(&self, seals: &Seals, generation: u64) -> Result<bool, Failure> {
        let header = lock(&self.sidecar).header().clone();
        self.check_own(&header)?;
        if header.sealed == generation {
            return Ok(true);
        }
        if header.sealed != 0 {
            let message = format!("the disk is sealed for generation {}", header.sealed);
            return Err(refused(message, "unseal it first"));
        }
        if seals.is_under_way() {
            return Err(refused("the disk is being sealed", "wait for that, or unseal it"));
        }
        if generation <= header.generation {
            let message =
                format!("generation {generation} is not newer than this disk's {}", header.generation);
            return Err(Failure::new(FailureCode::WrongGeneration, message, "use the next one"));
        }
        Ok(false)
    }

    fn wait_until_equal(
        &self,
        recorder: &Recorder,
        timeout: Duration,
        asker: &Asker<'_>,
    ) -> Result<(), Failure> {
        let started = clock::now();
        let mut guard = recorder.lock();
        loop {
            match guard.source.seal_state() {
                SealState::Sealed(_) => return Ok(()),
                SealState::Differs(leaf) => {
                    return Err(differs(leaf, guard.tracker.agreement().mismatched_leaves()));
                }
                SealState::Open => return Err(unsealed()),
                SealState::Sealing(_) | SealState::Told(_) => {}
            }
            check_asker(asker)?;
            if clock::now() - started >= timeout {
                return Err(self.timed_out("the disk could not be sealed in time", &guard));
            }
            guard = recorder.wait_for_progress(guard, LOOK_AGAIN);
        }
    }

    /// Undoes what a seal did, on this side.
    fn let_go(&self, recorder: &Recorder) {
        recorder.lock().source.unseal();
        recorder.wake();
        // If the data plane has stopped there is nobody to let go.
        let _ = self.mailbox.ask(|server, now| {
            server.volume_mut().release();
            server.handle_timeout(now);
        });
    }
}

/// What was compared for the seal that is complete, as far as this process has seen it.
fn counted(recorder: &Recorder, generation: u64) -> Sealed {
    let mut guard = recorder.lock();
    let agreement = guard.tracker.agreement();
    let compared_leaves = agreement.counted_leaves();
    let compared_before_leaves = compared_leaves.map(|compared| agreement.leaves() - compared);
    Sealed { sealed: generation, compared_leaves, compared_before_leaves, took_ms: None }
}

fn check_asker(asker: &Asker<'_>) -> Result<(), Failure> {
    if asker.is_gone() {
        return Err(refused("whoever asked for the seal is gone", "ask again, and wait for the answer"));
    }
    Ok(())
}

fn unsealed() -> Failure {
    refused("the disk was unsealed before the seal was complete", "seal it again")
}

fn differs(leaf: u64, leaves: u64) -> Failure {
    let offset = leaf * LEAF_BYTES;
    let message = format!(
        "the two disks differ in {leaves} of their {LEAF_BYTES}-byte leaves, first in the one at byte {offset}"
    );
    Failure::new(FailureCode::DigestMismatch, message, "check both disks; repair sends those leaves again")
}
