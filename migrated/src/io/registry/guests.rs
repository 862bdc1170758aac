//! The guests of this host: what is kept of each, its machine while it has one, and who works on it.
//!
//! ```text
//!              ┌── claim (one at a time: run, stop, save, leave, arrive) ── dropped: free again
//! name ──► { record (kept on disk), machine, task, trouble }
//!              └── a guest that was moved away stays known, and is not started by accident
//! ```
//!
//! Generic over the machine: this only keeps it. Its state is asked where it runs, never remembered.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde::{Deserialize, Serialize};
use tokio::sync::Notify;
use tracing::warn;

use super::kept::Folder;
use crate::api::{Failure, FailureCode};
use crate::guest::Guest;
use crate::peer::GivenAddresses;

/// What outlives the daemon of a guest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GuestRecord {
    /// Its description.
    pub guest: Guest,
    /// Moves so far.
    pub generation: u64,
    /// The host that has it now; none: this one.
    #[serde(default)]
    pub moved_to: Option<String>,
    /// The host that sent it last; none: it was started here.
    #[serde(default)]
    pub came_from: Option<String>,
    /// The addresses that sites gave it, by its cards: its names may still lead to them.
    #[serde(default, skip_serializing_if = "GivenAddresses::is_empty")]
    pub given_addresses: GivenAddresses,
}

/// What somebody does with a guest that nobody else may do something with meanwhile.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Task {
    /// It is started.
    Start,
    /// It is ended, or its state is saved.
    Stop,
    /// It is paused or let go on.
    Pause,
    /// It is moved to another host.
    Leave {
        /// The migration's number.
        migration: String,
        /// The host.
        to: String,
    },
    /// It arrives from another host.
    Arrive {
        /// The migration's number.
        migration: String,
        /// The host.
        from: String,
    },
}

impl Task {
    /// What is being done, as the end of "guest x is …".
    pub fn words(&self) -> String {
        match self {
            Task::Start => "being started".to_owned(),
            Task::Stop => "being stopped".to_owned(),
            Task::Pause => "being paused or resumed".to_owned(),
            Task::Leave { migration, to } => format!("migrating to {to} ({migration})"),
            Task::Arrive { migration, from } => format!("arriving from {from} ({migration})"),
        }
    }
}

/// A guest as it is known at one moment.
#[derive(Clone, Debug)]
pub struct Known<M> {
    /// What is kept of it.
    pub record: GuestRecord,
    /// Its machine, while it has one.
    pub machine: Option<M>,
    /// What is done with it.
    pub task: Option<Task>,
    /// Why it stands still or did not start, if that is not by order.
    pub trouble: String,
}

/// All guests of this host. A clone is the same registry.
#[derive(Debug)]
pub struct Guests<M> {
    folder: Folder,
    known: Arc<Mutex<BTreeMap<String, Known<M>>>>,
    /// A claim was given back.
    freed: Arc<Notify>,
}

impl<M> Clone for Guests<M> {
    fn clone(&self) -> Self {
        Self { folder: self.folder.clone(), known: Arc::clone(&self.known), freed: Arc::clone(&self.freed) }
    }
}

impl<M: Clone> Guests<M> {
    /// The registry, with the guests that are kept below `state_dir`, none of which has a machine yet.
    pub fn load(state_dir: &Path) -> io::Result<Self> {
        let folder = Folder::open(state_dir.join("records"))?;
        let records: Vec<GuestRecord> = folder.load()?;
        let known = |record| Known { record, machine: None, task: None, trouble: String::new() };
        let by_name =
            records.into_iter().map(|record: GuestRecord| (record.guest.name.clone(), known(record)));
        let known = Arc::new(Mutex::new(by_name.collect()));
        Ok(Self { folder, known, freed: Arc::default() })
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Known<M>>> {
        // Changes are assignments of whole values: a panic elsewhere leaves none half done.
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// All of them by name.
    pub fn list(&self) -> Vec<Known<M>> {
        self.lock().values().cloned().collect()
    }

    /// One of them.
    pub fn find(&self, name: &str) -> Result<Known<M>, Failure> {
        self.lock().get(name).cloned().ok_or_else(|| no_guest(name))
    }

    /// Writes down once more what is kept of a guest, which may have failed when it came; durable when this returns.
    pub fn save(&self, name: &str) -> io::Result<()> {
        let Some(record) = self.lock().get(name).map(|known| known.record.clone()) else { return Ok(()) };
        self.folder.save(name, &record)?;
        if let Some(known) = self.lock().get_mut(name) {
            // What troubled it was that.
            known.trouble.clear();
        }
        Ok(())
    }

    /// Takes a guest that is known, to do something with it. Refused: somebody else does.
    pub fn claim(&self, name: &str, task: Task) -> Result<Claim<M>, Failure> {
        let mut known = self.lock();
        let entry = known.get_mut(name).ok_or_else(|| no_guest(name))?;
        entry.take(task)?;
        Ok(Claim { guests: self.clone(), name: name.to_owned(), is_new: false })
    }

    /// Takes a guest as soon as nobody else has it; none: it is not known any more.
    pub async fn claim_when_free(&self, name: &str, task: Task) -> Option<Claim<M>> {
        loop {
            let freed = self.freed.notified();
            match self.claim(name, task.clone()) {
                Ok(claim) => return Some(claim),
                Err(failure) if failure.code == FailureCode::NotFound => return None,
                Err(_) => freed.await,
            }
        }
    }

    /// Takes a guest that shall be here: one that is not known yet, or has no machine. To be saved by [`Claim::keep`]
    /// when it is here for good. Refused: it has a machine, or somebody works on it, or it was moved away and
    /// `task` is not that it arrives.
    pub fn claim_new(&self, guest: Guest, task: Task) -> Result<Claim<M>, Failure> {
        let name = guest.name.clone();
        let mut known = self.lock();
        let is_new = !known.contains_key(&name);
        match known.get_mut(&name) {
            Some(entry) => {
                let arrives = matches!(task, Task::Arrive { .. });
                entry.may_begin(arrives)?;
                entry.take(task)?;
                entry.record.guest = guest;
                entry.trouble.clear();
            }
            None => {
                let record = GuestRecord {
                    guest,
                    generation: 0,
                    moved_to: None,
                    came_from: None,
                    given_addresses: GivenAddresses::new(),
                };
                let entry = Known { record, machine: None, task: Some(task), trouble: String::new() };
                known.insert(name.clone(), entry);
            }
        }
        Ok(Claim { guests: self.clone(), name, is_new })
    }
}

impl<M> Known<M> {
    fn take(&mut self, task: Task) -> Result<(), Failure> {
        if let Some(other) = &self.task {
            let name = &self.record.guest.name;
            if let (Task::Arrive { migration, from }, Some(_)) = (other, &self.machine) {
                let message = format!("guest {name:?} has just arrived from {from} ({migration})");
                let hint = "try again in a moment: that move is being ended";
                return Err(Failure::new(FailureCode::Conflict, message, hint));
            }
            let message = format!("guest {name:?} is {}", other.words());
            let hint = match other {
                Task::Leave { migration, .. } => {
                    format!("wait for it, or give it up by `migrated cancel {migration}`")
                }
                Task::Arrive { from, .. } => format!("wait for it, or cancel it at {from:?}"),
                Task::Start | Task::Stop | Task::Pause => "try again when that is done".to_owned(),
            };
            return Err(Failure::new(FailureCode::Conflict, message, hint));
        }
        self.task = Some(task);
        Ok(())
    }

    fn may_begin(&self, arrives: bool) -> Result<(), Failure> {
        let name = &self.record.guest.name;
        let refused = |message, hint: &str| Err(Failure::new(FailureCode::Conflict, message, hint));
        if self.machine.is_some() && self.task.is_none() {
            return refused(format!("guest {name:?} has a machine here already"), "see `migrated list`");
        }
        if let (Some(host), false) = (&self.record.moved_to, arrives) {
            let message =
                format!("guest {name:?} was moved to {host:?} (generation {})", self.record.generation);
            return refused(message, "run it there, or send it back from there");
        }
        Ok(())
    }
}

fn no_guest(name: &str) -> Failure {
    let message = format!("there is no guest {name:?} here");
    Failure::new(FailureCode::NotFound, message, "see `migrated list`")
}

/// The right to do something with a guest; given back when it is dropped.
#[derive(Debug)]
pub struct Claim<M: Clone> {
    guests: Guests<M>,
    name: String,
    is_new: bool,
}

impl<M: Clone> Claim<M> {
    fn with<R>(&self, change: impl FnOnce(&mut Known<M>) -> R) -> R {
        let mut known = self.guests.lock();
        change(known.get_mut(&self.name).expect("a guest that is claimed is known"))
    }

    /// The guest's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// As it is known now.
    pub fn known(&self) -> Known<M> {
        self.with(|known| known.clone())
    }

    /// Its machine. Refused: it has none.
    pub fn machine(&self) -> Result<M, Failure> {
        self.with(|known| known.machine.clone()).ok_or_else(|| {
            let known = self.known();
            let state =
                known.record.moved_to.map_or_else(|| "stopped".to_owned(), |to| format!("moved to {to}"));
            let message = format!("guest {:?} does not run here: {state}", self.name);
            Failure::new(FailureCode::Conflict, message, "see `migrated list`")
        })
    }

    /// It has this machine from now on, or none.
    pub fn set_machine(&self, machine: Option<M>) {
        self.with(|known| known.machine = machine);
    }

    /// Says why it stands still or did not start; empty: it does not.
    pub fn set_trouble(&self, trouble: &str) {
        self.with(|known| trouble.clone_into(&mut known.trouble));
    }

    /// Keeps what outlives the daemon; durable when this returns.
    pub fn keep(&self, change: impl FnOnce(&mut GuestRecord)) -> io::Result<()> {
        let record = self.with(|known| {
            change(&mut known.record);
            known.record.clone()
        });
        self.guests.folder.save(&self.name, &record)
    }

    /// The guest does not come: it is what it was before, one that moved away, or one that nobody knows.
    pub fn leave(self) {
        self.set_machine(None);
        self.forget_if_new();
    }

    /// Forgets the guest if it was not known before this claim: it never came to be here.
    pub fn forget_if_new(self) {
        if !self.is_new {
            return;
        }
        self.guests.lock().remove(&self.name);
        if let Err(error) = self.guests.folder.remove(&self.name) {
            warn!(guest = self.name, %error, "cannot remove what was kept of a guest that is not here");
        }
    }
}

impl<M: Clone> Drop for Claim<M> {
    fn drop(&mut self) {
        if let Some(known) = self.guests.lock().get_mut(&self.name) {
            known.task = None;
        }
        self.guests.freed.notify_waiters();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GUEST: &str = "name = \"web\"\nmemory_mib = 128\n[boot]\nkernel = \"k\"\n";

    #[test]
    fn who_wants_a_guest_that_arrives_is_told_to_cancel_only_while_that_can_be() {
        let folder = std::env::temp_dir().join(format!("migrated-guests-{}", std::process::id()));
        let guests = Guests::<u32>::load(&folder).unwrap();
        let task = Task::Arrive { migration: "0e2f9a61".into(), from: "site-a".into() };
        let claim = guests.claim_new(Guest::parse(GUEST).unwrap(), task).unwrap();
        let refused = || guests.claim("web", Task::Pause).unwrap_err();
        let on_its_way = refused();
        assert!(on_its_way.message.contains("is arriving from site-a"), "{on_its_way:?}");
        assert!(on_its_way.hint.contains("cancel it at \"site-a\""), "{on_its_way:?}");
        // It runs here, and the move is only being ended.
        claim.set_machine(Some(7));
        let here = refused();
        assert!(here.message.contains("has just arrived from site-a (0e2f9a61)"), "{here:?}");
        assert!(here.hint.contains("in a moment") && !here.hint.contains("cancel"), "{here:?}");
        drop(claim);
        assert!(guests.claim("web", Task::Pause).is_ok());
        std::fs::remove_dir_all(folder).unwrap();
    }
}
