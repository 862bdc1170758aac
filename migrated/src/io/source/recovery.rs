//! The migrations that were under way from here when the daemon before this one ended, taken up as the journal says.
//!
//! ```text
//! departures/ID.json (how) + journal (how far) ─► recover::source ─► retry │ ask │ finish ─► run
//! ```
//!
//! The guest comes first: the daemon's start waits for nothing of this, and what is taken up begins with the guest.

use std::sync::Arc;

use super::context::{Context, Departure};
use crate::api::{Failure, FailureCode};
use crate::io::journal_file::unix_ms;
use crate::io::machine::Machine;
use crate::io::registry::{Claim, Task};
use crate::io::site::Site;
use crate::journal::{Record, Step};
use crate::migration::Migration;
use crate::recover::{AtSource, source as decide};
use crate::status::Status;

/// Takes up the migrations that were under way when the daemon before this one ended, each as its journal says.
pub fn recover(site: &Arc<Site>) {
    let departures: Vec<Departure> = match site.departures.load() {
        Ok(departures) => departures,
        Err(error) => return tracing::error!(%error, "cannot read what was under way in state_dir"),
    };
    for departure in departures {
        let id = departure.migration.clone();
        let next = decide(&site.journal.records(), &id);
        if next == AtSource::Nothing {
            forget(site, &id);
        } else if let Err(failure) = take_up(site, departure, next) {
            tracing::error!(
                migration = id,
                "a migration that was under way cannot go on: {}",
                failure.message
            );
        }
    }
}

fn take_up(site: &Arc<Site>, departure: Departure, next: AtSource) -> Result<(), Failure> {
    let Departure { migration: id, guest, to, options, ran, generation } = departure;
    let claim = site.guests.claim(&guest, Task::Leave { migration: id.clone(), to: to.clone() })?;
    let machine = claim.machine().inspect_err(|_| give_up_without_machine(site, &claim, &id, &to, next))?;
    let peer = site.link.peers.by_name(&to).ok_or_else(|| {
        let message = format!("guest {guest:?} was on its way to {to:?}, which is not paired any more");
        Failure::new(FailureCode::NotFound, message, "pair it again, and restart this daemon")
    })?;
    let guest = claim.known().record.guest;
    let handle = site.migrations.begin(Status::new(&id, &guest.name, &site.config.name, &peer.name))?;
    let context = Arc::new(Context::new(Arc::clone(site), handle, machine, guest, peer, options));
    {
        let mut known = context.known();
        known.ran = ran;
        known.generation = generation;
        known.accel = context.machine.accelerator().name().to_owned();
        known.is_taken_up = true;
    }
    context.event(format!("a new daemon takes it up: {}", words(next)));
    let migration = match next {
        AtSource::Retry => Migration::again(super::limits(site), context.now()),
        AtSource::Ask | AtSource::Finish | AtSource::Nothing => {
            // There is no link yet: who waits for a word of the destination has to make one.
            context.heard.send_modify(|heard| heard.gone = true);
            Migration::in_doubt(super::limits(site), context.now())
        }
    };
    tokio::spawn(super::run(context, claim, migration));
    Ok(())
}

/// The guest's QEMU has ended with the daemon, so nothing can be moved any more.
fn give_up_without_machine(site: &Site, claim: &Claim<Machine>, id: &str, to: &str, next: AtSource) {
    let trouble = match next {
        AtSource::Retry => {
            let rolled_back = Record {
                migration: id.to_owned(),
                guest: claim.name().to_owned(),
                generation: claim.known().record.generation,
                peer: to.to_owned(),
                step: Step::RolledBack,
                unix_ms: unix_ms(),
            };
            match tokio::task::block_in_place(|| site.journal.append(rolled_back)) {
                Ok(()) => forget(site, id),
                Err(error) => tracing::error!(migration = id, "{error}"),
            }
            format!("its QEMU ended while it was on its way to {to} ({id}); it is here, and can be run")
        }
        _ => format!("its QEMU has ended here, and {to} may have it ({id}): see `migrated recover`"),
    };
    tracing::error!(guest = claim.name(), "{trouble}");
    claim.set_trouble(&trouble);
}

pub(super) fn forget(site: &Site, id: &str) {
    if let Err(error) = site.departures.remove(id) {
        tracing::warn!(migration = id, %error, "cannot forget a migration that is over");
    }
}

fn words(next: AtSource) -> &'static str {
    match next {
        AtSource::Nothing => "nothing is open",
        AtSource::Retry => "nothing was promised, the guest goes on and the migration begins again",
        AtSource::Ask => "the guest was being handed over, the destination is asked",
        AtSource::Finish => "the guest runs at the destination, what is left of it here is cleared away",
    }
}
