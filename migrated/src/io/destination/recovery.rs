//! Guests that were on their way here when the daemon before this one ended, dealt with as the journal says.
//!
//! ```text
//! arrivals/GUEST.json (what) + journal (how far) + QEMU ─► recover::destination ─► clear away │ start │ hand back │ keep
//! ```
//!
//! Done before this host answers anybody: a source that asks finds everything decided.

use std::sync::Arc;

use anyhow::{Context as _, Result};
use tracing::{error, info, warn};

use super::arrival::{Arrival, KeptArrival, Start, remove_copy};
use super::{conclude, see_to_names};
use crate::io::journal_file::unix_ms;
use crate::io::machine::{Layout, Machine};
use crate::io::registry::Task;
use crate::io::site::Site;
use crate::io::source::tunnel_number;
use crate::journal::{Record, Step};
use crate::recover::{AtDestination, destination as decide};
use crate::status::Status;

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
    let machine = Machine::adopt(&site.config, guest).await.context("cannot tell whether its QEMU runs")?;
    let holds_guest = match &machine {
        Some(machine) => machine.qmp().query_migrate().await.is_ok_and(|found| found.status == "completed"),
        None => false,
    };
    let next = decide(&site.journal.records(), id, holds_guest);
    info!(migration = id, guest = guest.name, ?next, holds_guest, "a guest was on its way");
    match (next, machine) {
        (AtDestination::Start | AtDestination::Keep, Some(machine)) => go_on(site, kept, machine),
        (AtDestination::Keep, None) => keep_ended(site, &kept),
        (AtDestination::Start, None) => unreachable!("a QEMU that holds the guest is there"),
        (AtDestination::HandBack, machine) => {
            let handed_back = Record { step: Step::HandedBack, ..record(&kept) };
            tokio::task::block_in_place(|| site.journal.append(handed_back))?;
            clear(site, &kept, machine, false).await
        }
        (AtDestination::ClearAway, machine) => clear(site, &kept, machine, true).await,
        (AtDestination::Nothing, _) => Ok(site.arrivals_kept.remove(&guest.name)?),
    }
}

fn record(kept: &KeptArrival) -> Record {
    Record {
        migration: kept.reserve.migration.clone(),
        guest: kept.reserve.guest.name.clone(),
        generation: kept.reserve.generation,
        peer: kept.source.clone(),
        step: Step::Reserved,
        unix_ms: unix_ms(),
    }
}

/// The guest is this host's: it is started, if it has not been.
fn go_on(site: &Arc<Site>, kept: KeptArrival, machine: Machine) -> Result<()> {
    let KeptArrival { source, reserve, reserved } = kept;
    let task = Task::Arrive { migration: reserve.migration.clone(), from: source.clone() };
    let claim = site.guests.claim_new(reserve.guest.clone(), task)?;
    let mut status = Status::new(&reserve.migration, &reserve.guest.name, &source, &site.config.name);
    status.incoming = true;
    let handle = site.migrations.begin(status)?;
    // Its tunnels are the kernel's, and stay as they are.
    let tunnels = Vec::new();
    let arrival =
        Arrival { site: Arc::clone(site), source, reserve, reserved, machine, handle, claim, tunnels };
    // So that nobody takes its machine for one without a task.
    arrival.claim.set_machine(Some(arrival.machine.clone()));
    tokio::spawn(async move {
        if let Start::HandedBack(reason) = arrival.start(arrival.reserve.runs).await {
            return arrival.give_up(&reason, false).await;
        }
        if let Err(error) = arrival.settle().await {
            error!(guest = arrival.reserve.guest.name, "cannot write down that the guest is here: {error:#}");
        }
        see_to_names(&arrival).await;
        conclude(&arrival);
    });
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
    claim.set_trouble("its QEMU ended while this host's daemon was down; start it by `migrated run`");
    warn!(guest = reserve.guest.name, "a guest that had moved here is off: its QEMU has ended");
    tokio::task::block_in_place(|| site.journal.append(Record { step: Step::Done, ..record(kept) }))?;
    Ok(site.arrivals_kept.remove(&reserve.guest.name)?)
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
    let first = tunnel_number(&kept.reserve.migration);
    for (number, _) in (first..).zip(&guest.nics) {
        tunnel::remove_leftovers(number).await.context("cannot remove what is left of a tunnel")?;
    }
    if !keep_disks {
        let layout = Layout::of(&site.config, guest)?;
        for disk in guest.disks.iter().filter(|disk| !disk.shared) {
            remove_copy(&layout.disk(disk)?.image);
        }
    }
    Ok(site.arrivals_kept.remove(&guest.name)?)
}
