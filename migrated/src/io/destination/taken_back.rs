//! An operator at the source has said that the guest is there again. Whatever was promised here is void: a guest that
//! runs here is stopped, and nothing starts it any more.
//!
//! Only the host that the guest came from in that very migration is believed.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use tokio::time::timeout;
use tracing::{error, warn};

use crate::io::journal_file::unix_ms;
use crate::io::registry::Task;
use crate::io::site::Site;
use crate::journal::{Record, Step};

/// How long whoever works on the guest may take to be done with it.
const FREE_LIMIT: Duration = Duration::from_secs(10);

/// Gives the guest up.
pub async fn obey(
    site: &Arc<Site>,
    source: &str,
    migration: &str,
    guest: &str,
    generation: u64,
) -> Result<()> {
    let records = site.journal.records();
    let ours = |record: &&Record| record.migration == migration;
    let Some(last) = records.iter().rev().find(ours) else {
        // It never came to be here.
        return Ok(());
    };
    if last.peer != source || last.guest != guest {
        bail!("migration {migration} is not one of guest {guest:?} from {source:?}");
    }
    if generation <= last.generation {
        bail!("generation {generation} is not newer than {}, which was promised", last.generation);
    }
    let void = Record { step: Step::HandedBack, unix_ms: unix_ms(), ..last.clone() };
    tokio::task::block_in_place(|| site.journal.append(void))?;
    let claim = timeout(FREE_LIMIT, site.guests.claim_when_free(guest, Task::Stop)).await;
    let Some(claim) = claim.context("somebody works on the guest; try again")? else { return Ok(()) };
    if claim.known().record.generation > last.generation {
        // It has been here again since, in another migration.
        return Ok(());
    }
    if let Ok(machine) = claim.machine()
        && let Err(error) = machine.pause().await
    {
        error!(guest, %error, "cannot pause a guest that is elsewhere by an operator's word; it is ended");
        machine.quit().await;
        claim.set_machine(None);
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
