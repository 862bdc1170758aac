//! The commands that start, end and pause a guest of this host.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::timeout;

use super::starting;
use crate::api::{Failure, FailureCode, GuestState};
use crate::guest::Guest;
use crate::io::machine::{DiskRoles, Machine, MachineError, Start};
use crate::io::registry::{Claim, Known, Task};
use crate::io::site::Site;
use crate::journal::{Record, Step};
use crate::qmp::RunState;
use crate::trouble::of_the_guest;

/// How long a guest may take to switch itself off.
const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(60);

type Answer = Result<GuestState, Failure>;

/// Starts a guest.
pub async fn run(site: &Arc<Site>, guest: Guest, restore: Option<PathBuf>) -> Answer {
    guest.check().map_err(|faults| {
        let hint = "correct the description, and run it again";
        Failure::new(FailureCode::BadRequest, faults.join("\n"), hint)
    })?;
    let claim = site.guests.claim_new(guest.clone(), Task::Start)?;
    is_not_elsewhere(site, &guest.name)?;
    let (room, warnings) = match starting::promise(site, &guest).await {
        Ok(promised) => promised,
        Err(failure) => {
            claim.forget_if_new();
            return Err(failure);
        }
    };
    let how = restore.map_or(Start::Boot, Start::Restore);
    let machine = match Machine::start(&site.config, &guest, how, DiskRoles::Primary).await {
        Ok(machine) => machine,
        Err(error) => {
            claim.set_trouble(&error.to_string());
            site.reservations().release(claim.name());
            // One that never ran is not a guest of this host.
            claim.forget_if_new();
            return Err(failed(&error));
        }
    };
    if let Err(error) = claim.keep(|record| record.guest = guest) {
        machine.quit().await;
        site.reservations().release(claim.name());
        claim.forget_if_new();
        let message = format!("cannot keep the guest in state_dir: {error}");
        return Err(Failure::new(FailureCode::Failed, message, "nothing of it is left running"));
    }
    site.tend(&claim, machine);
    room.keep();
    let state = answered(claim).await?;
    Ok(GuestState { trouble: warnings.join("; "), ..state })
}

/// Ends a guest: by its power button, at once, or into a file.
pub async fn stop(site: &Site, name: &str, now: bool, save: Option<&Path>) -> Answer {
    let claim = site.guests.claim(name, Task::Stop)?;
    let machine = claim.machine()?;
    match save {
        Some(path) => machine.save(path).await.map_err(|error| failed(&error))?,
        None => {
            if !now {
                machine.ask_to_shut_down().await.map_err(|error| failed(&error))?;
                timeout(SHUTDOWN_TIMEOUT, machine.ended()).await.map_err(|_| stubborn(name))?;
            }
            machine.quit().await;
        }
    }
    claim.set_machine(None);
    claim.set_trouble("");
    answered(claim).await
}

/// Pauses a guest, or lets it go on.
pub async fn pause(site: &Site, name: &str, paused: bool) -> Answer {
    let claim = site.guests.claim(name, Task::Pause)?;
    let machine = claim.machine()?;
    if !paused {
        is_not_elsewhere(site, name)?;
    }
    let done = if paused { machine.pause().await } else { machine.cont().await };
    done.map_err(|error| failed(&error))?;
    answered(claim).await
}

/// Two of one guest would destroy its disks: one that may be at another host is not let go on here (M2).
fn is_not_elsewhere(site: &Site, name: &str) -> Result<(), Failure> {
    if let Some(Record { step: Step::Started, peer, migration, .. }) = site.journal.last_of(name)
        && site.guests.find(name)?.machine.is_none()
    {
        let message = format!(
            "guest {name:?} came from {peer:?} ({migration}), and ended here before {peer:?} knew that it ran: it has to \
             say first that it has not taken the guest back"
        );
        return Err(Failure::new(FailureCode::Conflict, message, format!("see `migrated recover {name}`")));
    }
    let elsewhere = match (site.journal.handed_over(name), site.guests.find(name)?.record.moved_to) {
        (Some(promise), _) => {
            format!("guest {name:?} may run at {:?}: {} handed it over", promise.peer, promise.migration)
        }
        (None, Some(host)) => format!("guest {name:?} is at {host:?}"),
        (None, None) => return Ok(()),
    };
    Err(Failure::new(FailureCode::Conflict, elsewhere, format!("see `migrated recover {name}`")))
}

/// All guests, as they are now.
pub async fn list(site: &Site) -> Vec<GuestState> {
    let mut states = Vec::new();
    for known in site.guests.list() {
        states.push(state(&known).await);
    }
    states
}

async fn answered(claim: Claim<Machine>) -> Answer {
    let mut known = claim.known();
    known.task = None;
    Ok(state(&known).await)
}

async fn state(known: &Known<Machine>) -> GuestState {
    let record = &known.record;
    let state = match (&known.task, &known.machine, &record.moved_to) {
        (Some(Task::Leave { .. }), ..) => "migrating".to_owned(),
        (Some(Task::Arrive { .. }), None, _) => "incoming".to_owned(),
        (_, Some(machine), _) => match machine.state().await {
            Ok(state) => state.to_string(),
            Err(error) => format!("unknown ({error})"),
        },
        (_, None, Some(_)) => "moved".to_owned(),
        (_, None, None) => "stopped".to_owned(),
    };
    let remark = match (&known.task, &record.moved_to) {
        (Some(task), _) => task.words(),
        (None, Some(host)) => format!("moved to {host}, generation {}", record.generation),
        (None, None) if state == RunState::IoError.word() => {
            of_the_guest(&record.guest.name, "a disk of its own failed")
        }
        (None, None) => String::new(),
    };
    GuestState {
        name: record.guest.name.clone(),
        state,
        pid: known.machine.as_ref().map(Machine::pid),
        memory_mib: record.guest.memory_mib,
        generation: record.generation,
        remark,
        trouble: known.trouble.clone(),
    }
}

fn stubborn(name: &str) -> Failure {
    let message = format!(
        "guest {name:?} was asked and has not switched itself off in {} s",
        SHUTDOWN_TIMEOUT.as_secs()
    );
    Failure::new(FailureCode::Failed, message, "it runs on; end it by `migrated stop --now`")
}

fn failed(error: &MachineError) -> Failure {
    let code = match error {
        MachineError::Description(_) => FailureCode::BadRequest,
        MachineError::Running(_) => FailureCode::Conflict,
        _ => FailureCode::Failed,
    };
    Failure::new(code, error.to_string(), "")
}
