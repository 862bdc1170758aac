//! An operator at the source has said that the guest is there again. Whatever was promised here is void: a guest that
//! runs here is stopped, its disks are given up (D11), and nothing starts or serves them any more.
//!
//! Only the host that the guest came from in that very migration is believed (`crate::destination`).

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result};
use blockd::control::Command;
use blockd::io::revoke::revoke;
use tokio::task::spawn_blocking;
use tokio::time::timeout;
use tracing::{error, warn};

use crate::guest::Guest;
use crate::io::machine::{Layout, Machine};
use crate::io::registry::Task;
use crate::io::site::Site;

/// How long whoever works on the guest may take to be done with it.
const FREE_LIMIT: Duration = Duration::from_secs(10);

/// Gives a guest up that is at `source` again, as this generation: *handed-back* is durable.
pub async fn give_back(site: &Arc<Site>, source: &str, guest: &str, generation: u64) -> Result<()> {
    let claim = timeout(FREE_LIMIT, site.guests.claim_when_free(guest, Task::Stop)).await;
    let Some(claim) = claim.context("somebody works on the guest; try again")? else { return Ok(()) };
    if claim.known().record.generation >= generation {
        // It has been here again since, in another migration; or this is done.
        return Ok(());
    }
    if let Ok(machine) = claim.machine()
        && let Err(error) = stop(&machine, source, generation).await
    {
        error!(
            guest,
            "a guest that is elsewhere by an operator's word is ended, for it cannot be stopped: {error:#}"
        );
        machine.quit().await;
        claim.set_machine(None);
    }
    if claim.machine().is_err() {
        // Repeated by the source until it succeeds.
        give_disks_up(site, &claim.known().record.guest, source, generation).await?;
    }
    claim.keep(|record| {
        record.moved_to = Some(source.to_owned());
        record.generation = generation;
    })?;
    claim.set_trouble(&format!(
        "an operator at {source} has said that it is there; here it stands still, and is to be ended by `migrated stop --now`"
    ));
    warn!(guest, source, generation, "the guest is elsewhere by an operator's word; it stands still here");
    Ok(())
}

/// Pauses the guest, then has its disks take no write any more.
async fn stop(machine: &Machine, source: &str, generation: u64) -> Result<()> {
    machine.pause().await?;
    for disk in machine.disks() {
        disk.call(Command::Revoke { generation, moved_to: source.to_owned() }).await?;
    }
    Ok(())
}

/// Gives up the disks of a guest that has no machine here.
pub async fn give_disks_up(site: &Site, guest: &Guest, source: &str, generation: u64) -> Result<()> {
    let layout = Layout::of(&site.config, guest)?;
    for disk in guest.disks.iter().filter(|disk| !disk.shared) {
        let (image, moved_to, name) = (layout.disk(disk)?.image, source.to_owned(), guest.disk_name(disk));
        let done = spawn_blocking(move || revoke(&image, &name, generation, &moved_to));
        done.await.context("it was stopped")?.with_context(|| format!("disk {:?}", disk.id))?;
    }
    Ok(())
}
