//! The source's commands: record, replicate, barrier, seal, unseal, fence, repair.
//!
//! ```text
//!           record on          replicate             seal                fence
//! serving ───────────► recording ───────► in step ───────────► sealed ─────────► fenced
//!    ▲    record off       ▲ stop-replicating │     unseal       │
//!    └─────────────────────┴──────────────────┴──────────────────┘
//! ```
//!
//! What must outlive the process is in the sidecar before it is answered (D11). The seal is in [`seal`].

mod seal;

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::{Value, json};

use crate::config::Deltas;
use crate::control::{Failure, FailureCode};
use crate::io::clock;
use crate::io::lock::lock;
use crate::io::mailbox::{Mailbox, Stopped};
use crate::io::replica_source::{Parts, Replicator, StreamTotals};
use crate::io::sidecar_file::SidecarFile;
use crate::recorder::{Guard, Recorder};
use crate::replica::encoding::Compression;
use crate::replica::source::{Source, SourceConfig};
use crate::replica::trouble::Trouble;
use crate::sidecar::{Header, IntentMap, Role};
use crate::store::BlockStore;
use crate::tracker::Tracker;

use self::seal::Seals;

/// Somebody who waits looks again after this long, whatever happened.
const LOOK_AGAIN: Duration = Duration::from_millis(50);

/// The source's side of a replicated disk.
pub struct Replication {
    store: Arc<dyn BlockStore>,
    sidecar: Arc<Mutex<SidecarFile>>,
    mailbox: Mailbox,
    deltas: Deltas,
    totals: Arc<StreamTotals>,
    trouble: Arc<Mutex<Trouble>>,
    active: Mutex<Active>,
    seals: Mutex<Seals>,
}

#[derive(Default)]
struct Active {
    // Before the recorder, so that the stream ends first.
    replicator: Option<Replicator>,
    recorder: Option<Recorder>,
}

type Done = Result<Value, Failure>;

impl Replication {
    /// For a disk that is not recorded yet.
    pub fn new(
        store: Arc<dyn BlockStore>,
        sidecar: Arc<Mutex<SidecarFile>>,
        mailbox: Mailbox,
        deltas: Deltas,
    ) -> Self {
        Self {
            store,
            sidecar,
            mailbox,
            deltas,
            totals: Arc::default(),
            trouble: Arc::default(),
            active: Mutex::default(),
            seals: Mutex::default(),
        }
    }

    /// Takes up what the sidecar says was under way: recording, the stream, the seal. To be called
    /// before the first request is served; returns the recorder for the volume.
    pub fn resume(&self, bits: Box<dyn IntentMap>) -> Result<Recorder, Failure> {
        let recorder = self.recorder_with(bits);
        let header = lock(&self.sidecar).header().clone();
        if header.sealed != 0 {
            recorder.lock().source.restore_seal(header.sealed);
        }
        let mut active = lock(&self.active);
        active.recorder = Some(recorder.clone());
        if !header.replicate_to.is_empty() {
            let to = Path::new(&header.replicate_to);
            active.replicator = Some(self.replicator(&recorder, to, Compression::Auto)?);
        }
        Ok(recorder)
    }

    /// What is recorded, if anything is.
    pub fn recorder(&self) -> Option<Recorder> {
        lock(&self.active).recorder.clone()
    }

    /// What was sent.
    pub fn totals(&self) -> &StreamTotals {
        &self.totals
    }

    /// Why the stream is down, or was last; empty while all is well.
    pub fn last_error(&self) -> String {
        lock(&self.trouble).text().to_owned()
    }

    /// `record on` and `record off`.
    pub fn record(&self, on: bool) -> Done {
        if on {
            self.record_on(&mut lock(&self.active))?;
            return Ok(json!({ "recording": true }));
        }
        let seals = lock(&self.seals);
        if seals.is_under_way() {
            return Err(refused("the disk is being sealed", "unseal it first"));
        }
        let mut active = lock(&self.active);
        if lock(&self.sidecar).header().sealed != 0 {
            return Err(refused("the disk is sealed", "unseal it first"));
        }
        active.replicator = None;
        if active.recorder.take().is_some() {
            self.mailbox.ask(|server, _| server.volume_mut().detach().is_some()).map_err(stopped)?;
            let change = |header: &mut Header| {
                header.recording = false;
                header.replicate_to.clear();
            };
            lock(&self.sidecar).update(change).map_err(sidecar_failed)?;
        }
        Ok(json!({ "recording": false }))
    }

    /// `replicate`: records if nobody does yet, and keeps the replica at `to` in step. Whether to compress is not
    /// remembered past this process: a restarted one does as it sees fit.
    pub fn replicate(&self, to: &Path, compression: Compression) -> Done {
        let place = to.to_str().filter(|_| to.is_absolute());
        let place = place
            .ok_or_else(|| refused("the replica's socket is no absolute path", "give the whole path"))?;
        self.check_own(lock(&self.sidecar).header())?;
        let mut active = lock(&self.active);
        let recorder = self.record_on(&mut active)?;
        active.replicator = None;
        let change = |header: &mut Header| header.replicate_to = place.to_owned();
        lock(&self.sidecar).update(change).map_err(sidecar_failed)?;
        active.replicator = Some(self.replicator(&recorder, to, compression)?);
        Ok(json!({ "replicating_to": to }))
    }

    /// `stop-replicating`: the stream ends, the recording goes on.
    pub fn stop(&self) -> Done {
        lock(&self.active).replicator = None;
        lock(&self.sidecar).update(|header| header.replicate_to.clear()).map_err(sidecar_failed)?;
        Ok(json!({}))
    }

    /// `barrier`: waits until everything answered before is durable at the replica.
    pub fn barrier(&self, timeout: Duration) -> Done {
        let recorder = self.recording()?;
        let started = clock::now();
        let mut guard = recorder.lock();
        let barrier = guard.tracker.add_barrier();
        recorder.wake();
        while !guard.tracker.barrier_passed(barrier) && clock::now() - started < timeout {
            guard = recorder.wait_for_progress(guard, LOOK_AGAIN);
        }
        if guard.tracker.end_barrier(barrier) {
            return Ok(json!({ "waited_ms": millis_since(started) }));
        }
        Err(self.timed_out("the replica does not have everything yet", &guard))
    }

    /// `fence`: the disk lives elsewhere from here on, and is never served here by accident (D11).
    pub fn fence(&self, generation: u64, moved_to: &str) -> Done {
        let sealed = lock(&self.sidecar).header().sealed;
        if sealed == 0 || sealed != generation {
            let message = format!("the disk is not sealed for generation {generation}");
            return Err(Failure::new(FailureCode::WrongGeneration, message, "seal it first"));
        }
        lock(&self.active).replicator = None;
        let change = |header: &mut Header| {
            header.role = Role::Fenced;
            header.generation = generation;
            header.recording = false;
            header.replicate_to.clear();
            moved_to.clone_into(&mut header.moved_to);
        };
        lock(&self.sidecar).update(change).map_err(sidecar_failed)?;
        Ok(json!({ "fenced": generation }))
    }

    /// `repair`: sends again what was found to differ.
    pub fn repair(&self) -> Done {
        let recorder = self.recording()?;
        let leaves = recorder.lock().tracker.repair();
        recorder.wake();
        Ok(json!({ "leaves": leaves }))
    }

    /// Only the guest's own disk is recorded, sealed, and unsealed: not a replica, and not one that
    /// moved away (D11).
    fn check_own(&self, header: &Header) -> Result<(), Failure> {
        if matches!(header.role, Role::Primary | Role::Promoted) {
            return Ok(());
        }
        let message = format!("this disk is {} (generation {})", header.role.name(), header.generation);
        Err(Failure::new(FailureCode::WrongRole, message, ""))
    }

    fn record_on(&self, active: &mut Active) -> Result<Recorder, Failure> {
        if let Some(recorder) = &active.recorder {
            return Ok(recorder.clone());
        }
        let mut sidecar = lock(&self.sidecar);
        self.check_own(sidecar.header())?;
        // The space first: a write to a mapped page that finds none would be fatal.
        sidecar.reserve().map_err(sidecar_failed)?;
        let mut bits = sidecar.bits().map_err(sidecar_failed)?;
        bits.set_all();
        sidecar.update(|header| header.recording = true).map_err(sidecar_failed)?;
        drop(sidecar);
        let recorder = self.recorder_with(Box::new(bits));
        let attached = recorder.clone();
        self.mailbox.ask(move |server, _| server.volume_mut().attach(attached)).map_err(stopped)?;
        active.recorder = Some(recorder.clone());
        Ok(recorder)
    }

    fn recorder_with(&self, bits: Box<dyn IntentMap>) -> Recorder {
        let size = self.store.geometry().size;
        let disk_id = lock(&self.sidecar).header().disk_id.clone();
        let source = Source::new(SourceConfig {
            size,
            disk_id,
            batch_bytes: self.deltas.batch_bytes,
            batch_age: self.deltas.batch_age,
            window_bytes: self.deltas.window_bytes,
        });
        Recorder::new(Tracker::new(size, self.deltas.budget_bytes, bits), source)
    }

    fn replicator(
        &self,
        recorder: &Recorder,
        to: &Path,
        compression: Compression,
    ) -> Result<Replicator, Failure> {
        *lock(&self.trouble) = Trouble::default();
        let parts = Parts {
            store: Arc::clone(&self.store),
            recorder: recorder.clone(),
            sidecar: Arc::clone(&self.sidecar),
            totals: Arc::clone(&self.totals),
            trouble: Arc::clone(&self.trouble),
            compression,
        };
        let started = Replicator::start(parts, PathBuf::from(to));
        started.map_err(|error| Failure::new(FailureCode::Io, format!("cannot start a thread: {error}"), ""))
    }

    fn recording(&self) -> Result<Recorder, Failure> {
        self.recorder().ok_or_else(|| {
            Failure::new(FailureCode::NotRecording, "writes are not recorded", "use record on, or replicate")
        })
    }

    fn timed_out(&self, what: &str, guard: &Guard<'_>) -> Failure {
        if !guard.source.is_streaming() {
            let error = self.last_error();
            let why = if error.is_empty() { "no replica is connected".into() } else { error };
            return Failure::new(
                FailureCode::NotConnected,
                format!("{what}: {why}"),
                "use replicate, or wait longer",
            );
        }
        let backlog = guard.tracker.on_the_way_bytes() + guard.tracker.pending().queue_bytes();
        let blocks = guard.tracker.pending().dirty_blocks();
        let error = self.last_error();
        let why = if error.is_empty() { String::new() } else { format!(" ({error})") };
        let message = format!("{what}: {blocks} blocks and {backlog} bytes are still to go{why}");
        Failure::new(FailureCode::Timeout, message, "wait longer (--timeout-ms)")
    }
}

fn refused(message: impl Into<String>, hint: &str) -> Failure {
    Failure::new(FailureCode::Refused, message, hint)
}

/// The sidecar could not be written.
pub fn sidecar_failed(error: std::io::Error) -> Failure {
    let hint = match error.raw_os_error() {
        Some(libc::ENOSPC | libc::EDQUOT) => "make space where the sidecar lies",
        Some(libc::EROFS | libc::EACCES | libc::EPERM) => "have its file system let this daemon write there",
        Some(libc::EIO) => "see to the disk that the sidecar lies on",
        _ => "its file system may not do what a sidecar needs: name another place for it (--sidecar)",
    };
    Failure::new(FailureCode::Io, format!("cannot write the sidecar: {error}"), hint)
}

fn millis_since(started: Duration) -> u64 {
    (clock::now() - started).as_millis() as u64
}

/// The failure of a command that comes too late.
pub fn stopped(_: Stopped) -> Failure {
    Failure::new(FailureCode::Stopping, "the daemon is ending", "")
}
