//! The migrations of this host: those that run, and the last ones that ended, with their reports.
//!
//! ```text
//! begin ─► MigrationHandle ── update, enter ──► ended: the report is saved, and loaded by the next daemon
//!               ▲ cancelled
//! cancel ───────┤ accepted or refused under the same lock under which phases change (M5)
//! set_bandwidth ┘ kept here, so that a link that is made anew has it too
//! ```

use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use thiserror::Error;
use tokio::sync::watch;
use tokio::task::block_in_place;
use tracing::{info, warn};

use super::kept::Folder;
use crate::api::{Failure, FailureCode};
use crate::phase::Phase;
use crate::report::Report;
use crate::status::Status;

/// How many ended migrations are kept.
const ENDED_MAX: usize = 100;

/// All migrations that this host knows. A clone is the same registry.
#[derive(Clone, Debug)]
pub struct Migrations {
    inner: Arc<Mutex<Inner>>,
}

#[derive(Debug)]
struct Inner {
    reports: Folder,
    /// In the order in which they began.
    entries: Vec<Entry>,
}

#[derive(Debug)]
struct Entry {
    status: Status,
    cancel: watch::Sender<bool>,
    /// The limit of its link in bytes a second; none: what the link gives.
    bandwidth: watch::Sender<Option<u64>>,
    take_back: watch::Sender<bool>,
    /// A handle is out: somebody works on it.
    runs: bool,
}

/// A cancel was accepted before: the phase cannot be entered any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("it was cancelled")]
pub struct CancelRequested;

impl Migrations {
    /// The registry, with the reports that lie below `state_dir`.
    pub fn load(state_dir: &Path) -> io::Result<Self> {
        let reports = Folder::open(state_dir.join("reports"))?;
        let mut ended: Vec<Report> = reports.load()?;
        ended.sort_by_key(|report| (report.started_unix_s, report.total_ms));
        let entries = ended.into_iter().map(Entry::of_report).collect();
        let mut inner = Inner { reports, entries };
        inner.forget_oldest();
        Ok(Self { inner: Arc::new(Mutex::new(inner)) })
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // Changes are assignments of whole values: a panic elsewhere leaves none half done.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a new migration in, with the limit that its status says. Refused: its guest is in another one, or its number is taken.
    pub fn begin(&self, status: Status) -> Result<MigrationHandle, Failure> {
        let mut inner = self.lock();
        let conflict = |message, hint| Err(Failure::new(FailureCode::Conflict, message, hint));
        if let Some(other) =
            inner.entries.iter().find(|entry| entry.runs && entry.status.guest == status.guest)
        {
            let other = &other.status;
            let message =
                format!("guest {:?} is being moved to {:?} ({})", other.guest, other.destination, other.id);
            let hint = format!("wait for it, or give it up by `migrated cancel {}`", other.id);
            return conflict(message, hint);
        }
        // Another attempt is between the same hosts. Another host must not overwrite a report of this one.
        let ends = |status: &Status| [status.source.clone(), status.destination.clone()];
        let is_taken = |other: &Entry| other.runs || ends(&other.status) != ends(&status);
        if inner.entries.iter().any(|entry| entry.status.id == status.id && is_taken(entry)) {
            return conflict(format!("there is a migration {} already", status.id), "send again".to_owned());
        }
        inner.entries.retain(|entry| entry.status.id != status.id);
        let id = status.id.clone();
        inner.entries.push(Entry::of(status, true));
        Ok(MigrationHandle { migrations: self.clone(), id })
    }

    /// All of them, the oldest first. The reports stay out: who wants one asks for that migration.
    pub fn list(&self) -> Vec<Status> {
        let without_report = |entry: &Entry| Status { report: None, ..entry.status.clone() };
        self.lock().entries.iter().map(without_report).collect()
    }

    /// One of them, by its number, or the latest of a guest.
    pub fn find(&self, wanted: &str) -> Result<Status, Failure> {
        self.lock().find(wanted).map(|entry| entry.status.clone())
    }

    /// The number of the migration that a guest is in.
    pub fn running_of(&self, guest: &str) -> Option<Status> {
        let inner = self.lock();
        inner.entries.iter().find(|entry| entry.runs && entry.status.guest == guest).map(|e| e.status.clone())
    }

    /// Asks for the end of a migration (M5). Refused: it has ended, it is too late, or the source has to be asked.
    pub fn cancel(&self, wanted: &str) -> Result<Status, Failure> {
        let mut inner = self.lock();
        let entry = inner.find(wanted)?;
        entry.may_cancel()?;
        entry.cancel.send_replace(true);
        info!(migration = entry.status.id, "cancel accepted");
        Ok(entry.status.clone())
    }

    /// An operator's word for a guest that is in doubt: it is here. False: it is not in doubt, or not any more.
    pub fn take_back(&self, id: &str) -> bool {
        let mut inner = self.lock();
        let in_doubt = |entry: &Entry| entry.runs && entry.status.phase == Phase::InDoubt;
        let entry = inner.entries.iter_mut().find(|entry| entry.status.id == id && in_doubt(entry));
        entry.is_some_and(|entry| {
            entry.take_back.send_replace(true);
            true
        })
    }

    /// Limits what a migration's link may use, now and when it is made anew; none: what the link gives. Refused: it
    /// has ended, the source has to be asked, or nothing could move.
    pub fn set_bandwidth(&self, wanted: &str, bytes_per_s: Option<u64>) -> Result<Status, Failure> {
        let mut inner = self.lock();
        let entry = inner.find(wanted)?;
        entry.may_limit(bytes_per_s)?;
        entry.bandwidth.send_replace(bytes_per_s);
        entry.status.link.limit_bytes_per_s = bytes_per_s;
        info!(migration = entry.status.id, ?bytes_per_s, "bandwidth set");
        Ok(entry.status.clone())
    }
}

impl Inner {
    fn find(&mut self, wanted: &str) -> Result<&mut Entry, Failure> {
        let by_id = self.entries.iter().position(|entry| entry.status.id == wanted);
        let at = by_id.or_else(|| self.entries.iter().rposition(|entry| entry.status.guest == wanted));
        let Some(at) = at else {
            let message = format!("no migration and no guest of one is called {wanted:?}");
            return Err(Failure::new(FailureCode::NotFound, message, "see `migrated status`"));
        };
        Ok(&mut self.entries[at])
    }

    /// Keeps the last ones only, also on disk.
    fn forget_oldest(&mut self) {
        let mut surplus = self.entries.iter().filter(|entry| !entry.runs).count().saturating_sub(ENDED_MAX);
        let reports = &self.reports;
        self.entries.retain(|entry| {
            let is_old = !entry.runs && surplus > 0;
            if is_old {
                surplus -= 1;
                if let Err(error) = reports.remove(&entry.status.id) {
                    warn!(migration = entry.status.id, %error, "cannot remove an old report");
                }
            }
            !is_old
        });
    }
}

impl Entry {
    fn of_report(report: Report) -> Self {
        Self::of(Status::of_report(report), false)
    }

    fn of(status: Status, runs: bool) -> Self {
        let bandwidth = watch::Sender::new(status.link.limit_bytes_per_s);
        let [cancel, take_back] = [false, false].map(watch::Sender::new);
        Self { status, cancel, bandwidth, take_back, runs }
    }

    fn may_limit(&self, bytes_per_s: Option<u64>) -> Result<(), Failure> {
        let status = &self.status;
        if bytes_per_s == Some(0) {
            let message = format!("a bandwidth of 0: nothing of migration {} could move", status.id);
            let hint = "give it more, or give it up by `migrated cancel`; none is no limit";
            return Err(Failure::new(FailureCode::BadRequest, message, hint));
        }
        let refused = |message, hint| Err(Failure::new(FailureCode::Conflict, message, hint));
        if !self.runs {
            let message = format!("migration {} has ended: {}", status.id, status.phase.name());
            return refused(message, "there is nothing to limit");
        }
        if status.incoming {
            let message =
                format!("the bandwidth of migration {} is set at its source, {:?}", status.id, status.source);
            return refused(message, "give the command there");
        }
        Ok(())
    }

    fn may_cancel(&self) -> Result<(), Failure> {
        let status = &self.status;
        let refused = |message, hint: &str| Err(Failure::new(FailureCode::Conflict, message, hint));
        if !self.runs {
            let message = format!("migration {} has ended: {}", status.id, status.phase.name());
            return refused(message, "there is nothing to cancel");
        }
        if status.incoming {
            let message = format!("migration {} is cancelled at its source, {:?}", status.id, status.source);
            return refused(message, "give the command there");
        }
        if status.phase == Phase::RollingBack {
            let message = format!("migration {} is being rolled back already", status.id);
            return refused(message, "the guest goes on here; see its status for the reason");
        }
        if !status.phase.row().cancellable {
            let message = format!(
                "migration {} is in {}: {:?} may have the guest already",
                status.id,
                status.phase.name(),
                status.destination
            );
            return refused(message, "wait for its end, and send the guest back if need be");
        }
        Ok(())
    }
}

/// The right to say how one migration stands. A clone is the same one.
#[derive(Clone, Debug)]
pub struct MigrationHandle {
    migrations: Migrations,
    id: String,
}

impl MigrationHandle {
    /// The migration's number.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Looks at its entry or changes it.
    fn with<R>(&self, change: impl FnOnce(&mut Entry) -> R) -> R {
        let mut inner = self.migrations.lock();
        let entry = inner.entries.iter_mut().find(|entry| entry.status.id == self.id);
        change(entry.expect("a migration that runs is never forgotten"))
    }

    /// As it stands now.
    pub fn status(&self) -> Status {
        self.with(|entry| entry.status.clone())
    }

    /// Changes numbers and words. Phases change by [`Self::enter`].
    pub fn update(&self, change: impl FnOnce(&mut Status)) {
        self.with(|entry| change(&mut entry.status));
    }

    /// Goes on to a phase. Where no cancel is accepted in it, and one was accepted before, this refuses: so a cancel
    /// that was said to be accepted always happens (M5).
    pub fn enter(&self, phase: Phase) -> Result<(), CancelRequested> {
        self.with(|entry| {
            let is_way_out = matches!(phase, Phase::RollingBack | Phase::RolledBack);
            if *entry.cancel.borrow() && entry.status.phase.row().cancellable && !is_way_out {
                return Err(CancelRequested);
            }
            entry.status.phase = phase;
            entry.status.phase_elapsed_ms = 0;
            Ok(())
        })
    }

    /// The guest is here: what is left is its names.
    pub fn shows_the_end(&self) {
        // A migration to here is not cancelled here.
        let _ = self.enter(Phase::Readdress);
    }

    /// Comes back when a cancel was accepted; never, if none is.
    pub async fn cancelled(&self) {
        let mut requested = self.with(|entry| entry.cancel.subscribe());
        if requested.wait_for(|requested| *requested).await.is_err() {
            std::future::pending::<()>().await;
        }
    }

    /// Comes back when an operator has said that the guest is here; never, if none does.
    pub async fn taken_back(&self) {
        let mut said = self.with(|entry| entry.take_back.subscribe());
        if said.wait_for(|said| *said).await.is_err() {
            std::future::pending::<()>().await;
        }
    }

    /// The limit of its link in bytes a second, as it is wanted now and later.
    pub fn bandwidth(&self) -> watch::Receiver<Option<u64>> {
        self.with(|entry| entry.bandwidth.subscribe())
    }

    /// It never was one: a look, or something that could not even begin.
    pub fn forget(&self) {
        self.migrations.lock().entries.retain(|entry| entry.status.id != self.id);
    }

    /// It has ended so. The report is kept; a disk that cannot take it is no reason to fail.
    pub fn end(&self, report: Report) {
        // Not under the lock: who asks how a migration stands does not wait for a disk.
        let reports = self.migrations.lock().reports.clone();
        if let Err(error) = block_in_place(|| reports.save(&self.id, &report)) {
            warn!(migration = self.id, %error, "cannot save the report");
        }
        let mut inner = self.migrations.lock();
        if let Some(entry) = inner.entries.iter_mut().find(|entry| entry.status.id == self.id) {
            entry.runs = false;
            entry.status.end(report);
        }
        inner.forget_oldest();
    }
}
