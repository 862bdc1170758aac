//! Guests that were on their way here when the daemon before this one ended, dealt with as the journal says.
//!
//! ```text
//! arrivals/GUEST.json (what) + journal (how far) + QEMU ─► recover::destination ─► clear away │ start │ hand back │ keep
//! ```
//!
//! Done before this host answers anybody: a source that asks finds everything decided.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result};
use tokio::time::interval;
use tracing::{error, info, warn};

use super::arrival::{Arrival, KeptArrival, remove_copy};
use super::taken_back::give_disks_up;
use crate::guest::Guest;
use crate::io::machine::{Layout, Machine, MachineError};
use crate::io::registry::Task;
use crate::io::site::Site;
use crate::io::source::{ask_for_ever, tunnel_numbers, tunnels_of};
use crate::journal::{Step, Subject};
use crate::peer::{Answer, Request};
use crate::recover::{AtDestination, destination as decide};
use crate::status::Status;

/// How often, and after which pause, a QEMU that does not answer is looked at again.
const ADOPT_TRIES: u32 = 20;
const ADOPT_AGAIN: Duration = Duration::from_millis(250);

/// Deals with every guest that was on its way.
pub async fn recover(site: &Arc<Site>) {
    let kept: Vec<KeptArrival> = match site.arrivals_kept.load() {
        Ok(kept) => kept,
        Err(error) => return error!(%error, "cannot read what was on its way in state_dir"),
    };
    for arrival in kept {
        let (migration, guest) = (arrival.reserve.migration.clone(), arrival.reserve.guest.name.clone());
        if let Err(error) = recover_one(site, arrival).await {
            error!(migration, guest, "a guest that was on its way cannot be dealt with: {error:#}");
        }
    }
}

async fn recover_one(site: &Arc<Site>, kept: KeptArrival) -> Result<()> {
    let (id, guest) = (&kept.reserve.migration, &kept.reserve.guest);
    let machine = adopt(site, guest).await.context("cannot tell whether its QEMU runs")?;
    let holds_guest = match &machine {
        Some(machine) => machine.qmp().query_migrate().await.is_ok_and(|found| found.is_completed()),
        None => false,
    };
    let next = decide(&site.journal.records(), id, holds_guest);
    info!(migration = id, guest = guest.name, ?next, holds_guest, "a guest was on its way");
    match (next, machine) {
        (AtDestination::Start | AtDestination::Keep, Some(machine)) => go_on(site, kept, machine).await,
        (AtDestination::Keep, None) => keep_ended(site, &kept),
        (AtDestination::Start, None) => unreachable!("a QEMU that holds the guest is there"),
        (AtDestination::HandBack, machine) => {
            // The copies go before it is said: two of a disk must not be writable for one moment (M1).
            clear(site, &kept, machine, false).await?;
            promise(site, &kept, Step::HandedBack)?;
            Ok(site.arrivals_kept.remove(&guest.name)?)
        }
        (AtDestination::ClearAway, machine) => {
            clear(site, &kept, machine, true).await?;
            Ok(site.arrivals_kept.remove(&guest.name)?)
        }
        (AtDestination::Nothing, _) => Ok(site.arrivals_kept.remove(&guest.name)?),
    }
}

/// Its machine, if QEMU runs. A QEMU whose stream has just ended with the daemon is ending itself: it listens still, and does
/// not answer any more. Nothing is decided before that is clear.
async fn adopt(site: &Site, guest: &Guest) -> Result<Option<Machine>, MachineError> {
    let mut tick = interval(ADOPT_AGAIN);
    for _ in 0..ADOPT_TRIES {
        tick.tick().await;
        match Machine::adopt(&site.config, guest).await {
            Ok(machine) => return Ok(machine),
            Err(error) => info!(guest = guest.name, %error, "its QEMU does not answer yet"),
        }
    }
    Machine::adopt(&site.config, guest).await
}

fn promise(site: &Site, kept: &KeptArrival, step: Step) -> Result<()> {
    let subject = Subject {
        migration: kept.reserve.migration.clone(),
        guest: kept.reserve.guest.name.clone(),
        generation: kept.reserve.generation,
        peer: kept.source.clone(),
    };
    site.journal.promise(subject, step)?;
    Ok(())
}

/// The guest is this host's: it is started, if it has not been.
async fn go_on(site: &Arc<Site>, kept: KeptArrival, machine: Machine) -> Result<()> {
    let KeptArrival { source, reserve, reserved } = kept;
    let task = Task::Arrive { migration: reserve.migration.clone(), from: source.clone() };
    let claim = site.guests.claim_new(reserve.guest.clone(), task)?;
    let mut status = Status::new(&reserve.migration, &reserve.guest.name, &source, &site.config.name);
    status.incoming = true;
    let handle = site.migrations.begin(status)?;
    for address in reserved.new_addresses.iter().flatten() {
        site.hold_address(*address, &reserve.guest.name);
    }
    // Its tunnels are the kernel's.
    let tunnels = if reserve.wan { tunnels_of(&reserve.migration, &reserve.guest).await } else { Vec::new() };
    let arrival =
        Arrival { site: Arc::clone(site), source, reserve, reserved, machine, handle, claim, tunnels };
    // So that nobody takes its machine for one without a task.
    arrival.claim.set_machine(Some(arrival.machine.clone()));
    tokio::spawn(super::perform::go_on(Arc::clone(site), arrival));
    Ok(())
}

/// The guest has run here, and its QEMU has ended since: it is a guest of this host that is off.
fn keep_ended(site: &Arc<Site>, kept: &KeptArrival) -> Result<()> {
    let KeptArrival { source, reserve, .. } = kept;
    let task = Task::Arrive { migration: reserve.migration.clone(), from: source.clone() };
    let claim = site.guests.claim_new(reserve.guest.clone(), task)?;
    claim.keep(|record| {
        record.guest = reserve.guest.clone();
        record.generation = reserve.generation;
        record.moved_to = None;
    })?;
    let name = &reserve.guest.name;
    claim.set_trouble(&format!("its QEMU has ended; {source} is asked whether it has taken the guest back"));
    warn!(guest = name, "a guest that had moved here is off: its QEMU has ended");
    tokio::spawn(ask_whose_it_is(Arc::clone(site), kept.clone()));
    Ok(())
}

/// An operator may have taken the guest back at the source while this host was down. Nothing is started before that is
/// known.
async fn ask_whose_it_is(site: Arc<Site>, kept: KeptArrival) {
    let name = &kept.reserve.guest.name;
    let consult = Request::Consult { migration: kept.reserve.migration.clone() };
    let is_theirs = match ask_for_ever(&site, &kept.source, consult).await {
        Answer::Consulted { promised } => {
            matches!(promised, Some(Step::TakenBack | Step::RollingBack | Step::RolledBack))
        }
        other => return error!(guest = name, ?other, "an answer that does not fit"),
    };
    let Some(claim) = site.guests.claim_when_free(name, Task::Stop).await else { return };
    // The generation that it has there now; the source says so itself, too.
    let generation = kept.reserve.generation + 1;
    if is_theirs && let Err(error) = give_disks_up(&site, &kept.reserve.guest, &kept.source, generation).await
    {
        error!(guest = name, "cannot give up the disks of a guest that is elsewhere: {error:#}");
    }
    let written = || {
        if is_theirs {
            promise(&site, &kept, Step::HandedBack)?;
            claim.keep(|record| record.moved_to = Some(kept.source.clone()))?;
        } else {
            promise(&site, &kept, Step::Done)?;
        }
        anyhow::Ok(site.arrivals_kept.remove(name)?)
    };
    if let Err(error) = tokio::task::block_in_place(written) {
        return error!(guest = name, "cannot write down whose the guest is: {error:#}");
    }
    claim.set_trouble(if is_theirs { "" } else { "its QEMU has ended; start it by `migrated run`" });
}

/// The guest does not come: nothing of it is left, but for copies that another attempt goes on with.
async fn clear(
    site: &Arc<Site>,
    kept: &KeptArrival,
    machine: Option<Machine>,
    keep_disks: bool,
) -> Result<()> {
    let guest = &kept.reserve.guest;
    if let Some(machine) = machine {
        machine.quit().await;
    }
    for number in tunnel_numbers(&kept.reserve.migration, guest) {
        tunnel::remove_leftovers(number).await.context("cannot remove what is left of a tunnel")?;
    }
    if !keep_disks {
        let layout = Layout::of(&site.config, guest)?;
        for disk in guest.disks.iter().filter(|disk| !disk.shared) {
            remove_copy(&layout.disk(disk)?.image);
        }
    }
    Ok(())
}
