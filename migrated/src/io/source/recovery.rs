//! The migrations that were under way from here when the daemon before this one ended, taken up as the journal says.
//!
//! ```text
//! departures/ID.json (how) + journal (how far) ─► recover::source ─► retry │ ask │ finish ─► run
//! ```
//!
//! The guest comes first: the daemon's start waits for nothing of this, and what is taken up begins with the guest.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use tokio::time::{sleep, timeout};

use super::context::Context;
use super::departure::Departure;
use super::path;
use super::prepare::control;
use super::start::limits;
use crate::api::{Failure, FailureCode};
use crate::guest::Guest;
use crate::io::link::Link;
use crate::io::machine::Machine;
use crate::io::registry::{Claim, Task};
use crate::io::site::Site;
use crate::journal::{Step, Subject};
use crate::peer::{Answer, Request};
use crate::recover::{AtSource, source as decide};
use crate::source::Source;
use crate::status::Status;
use crate::trouble::Repeated;

/// How long one attempt to ask a peer may take, and the pause after it.
const ASK_LIMIT: Duration = Duration::from_secs(15);
const ASK_AGAIN: Duration = Duration::from_secs(5);

/// Takes up the migrations that were under way when the daemon before this one ended, each as its journal says.
pub fn recover(site: &Arc<Site>) {
    let departures: Vec<Departure> = match site.departures.load() {
        Ok(departures) => departures,
        Err(error) => return tracing::error!(%error, "cannot read what was under way in state_dir"),
    };
    for departure in departures {
        let id = departure.migration.clone();
        let next = decide(&site.journal.records(), &id);
        let is_told_of = departure.is_taken_back && next == AtSource::Nothing;
        if is_told_of {
            tokio::spawn(tell(Arc::clone(site), departure));
        } else if next == AtSource::Nothing {
            tokio::spawn(tidy(Arc::clone(site), departure));
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
    let task = Task::Leave { migration: departure.migration.clone(), to: departure.to.clone() };
    let claim = site.guests.claim(&departure.guest, task)?;
    let Ok(machine) = claim.machine() else {
        tokio::spawn(without_machine(Arc::clone(site), claim, departure, next));
        return Ok(());
    };
    let Departure {
        migration: id,
        guest,
        to,
        options,
        bandwidth_bytes_per_s,
        ran,
        generation,
        is_taken_back,
        to_home,
        costs,
    } = departure;
    let peer = site.link.peers.by_name(&to).ok_or_else(|| {
        let message = format!("guest {guest:?} was on its way to {to:?}, which is not paired any more");
        Failure::new(FailureCode::NotFound, message, "pair it again, and restart this daemon")
    })?;
    let guest = claim.known().record.guest;
    let status = Status::new(&id, &guest.name, &site.config.name, &peer.name).limited(bandwidth_bytes_per_s);
    let handle = site.migrations.begin(status)?;
    let mut context = Context::new(Arc::clone(site), handle, machine, guest, peer, options);
    context.go_on_with(costs);
    let context = Arc::new(context);
    {
        let mut known = context.known();
        known.ran = ran;
        known.generation = generation;
        known.accel = context.machine.accelerator().name().to_owned();
        known.is_taken_up = true;
        known.to_home = to_home;
        known.is_taken_back = is_taken_back && next == AtSource::RollBack;
    }
    context.event(format!("a new daemon takes it up: {}", words(next)));
    // There is no link yet: who waits for a word of the destination has to make one.
    context.heard.send_modify(|heard| heard.gone = true);
    let migration = Source::taken_up(next, limits(site), context.now());
    let migration = migration.expect("something is open");
    tokio::spawn(super::run(context, claim, migration));
    Ok(())
}

/// The guest's QEMU has ended meanwhile, so nothing can be moved any more: where the guest is has to be found out all the
/// same.
async fn without_machine(site: Arc<Site>, claim: Claim<Machine>, departure: Departure, next: AtSource) {
    let Departure { migration: id, to, .. } = &departure;
    let taken = match next {
        AtSource::Retry | AtSource::RollBack | AtSource::Nothing => false,
        AtSource::Finish => true,
        AtSource::Ask => {
            claim.set_trouble(&format!("its QEMU has ended here, and {to} may have it ({id})"));
            let verdict = Request::Verdict { migration: id.clone(), generation: departure.generation };
            loop {
                match ask_for_ever(&site, to, verdict.clone()).await {
                    Answer::Verdict { taken: false, .. } => break false,
                    Answer::Verdict { running: true, .. } => break true,
                    // Taken, and perhaps handed back before it runs (M8).
                    Answer::Verdict { .. } => sleep(ASK_AGAIN).await,
                    other => return tracing::error!(migration = id, ?other, "an answer that does not fit"),
                }
            }
        }
    };
    let written = || {
        if taken {
            promise(&site, &departure, Step::Released)?;
            claim.keep(|record| {
                record.moved_to = Some(to.clone());
                record.generation = departure.generation;
            })?;
        }
        promise(&site, &departure, if taken { Step::Done } else { Step::RolledBack })
    };
    if let Err(error) = tokio::task::block_in_place(written) {
        return tracing::error!(migration = id, "cannot write down where the guest is: {error:#}");
    }
    if taken {
        let tunnels = path::tunnels_of(id, &claim.known().record.guest).await;
        site.paths.left(claim.name(), tunnels, departure.to_home).await;
        site.release_addresses(claim.name());
    }
    let trouble = match taken {
        true => format!("it has moved to {to} ({id})"),
        false => format!("its QEMU ended while it was on its way to {to} ({id}); it is here, and can be run"),
    };
    tracing::warn!(guest = claim.name(), "{trouble}");
    claim.set_trouble(if taken { "" } else { &trouble });
    forget(&site, id);
    drop(claim);
    if !taken {
        // So that nothing is kept there for a guest that does not come. It refuses by being asked.
        let verdict = Request::Verdict { migration: id.clone(), generation: departure.generation };
        let limit = Duration::from_millis(site.config.migration.lease_ms);
        let _ = timeout(limit, ask_for_ever(&site, to, verdict)).await;
    }
}

fn promise(site: &Site, departure: &Departure, step: Step) -> Result<()> {
    let subject = Subject {
        migration: departure.migration.clone(),
        guest: departure.guest.clone(),
        generation: departure.generation,
        peer: departure.to.clone(),
    };
    site.journal.promise(subject, step)?;
    Ok(())
}

/// Nothing is open, but the daemon ended before it had tidied up.
async fn tidy(site: Arc<Site>, departure: Departure) {
    let known = site.guests.find(&departure.guest).ok();
    for disk in known.iter().flat_map(|known| &known.machine).flat_map(Machine::disks) {
        if let Err(error) = disk.reclaim().await {
            tracing::warn!(migration = departure.migration, %error, "a disk still records");
        }
    }
    if let Some(known) = known.filter(|known| departure.options.wan && known.record.moved_to.is_none()) {
        remove_leftovers(&departure.migration, &known.record.guest).await;
    }
    forget(&site, &departure.migration);
}

/// Packet rules and devices of a move that was rolled back and that could not be removed then.
async fn remove_leftovers(migration: &str, guest: &Guest) {
    for number in path::tunnel_numbers(migration, guest) {
        let mut repeated = Repeated::default();
        let begun = Instant::now();
        while let Err(error) = tunnel::remove_leftovers(number).await {
            if repeated.handle_failure(begun.elapsed()) {
                tracing::error!(
                    migration,
                    guest = guest.name,
                    "what is left of a tunnel stays yet: {error:#}"
                );
            }
            sleep(ASK_AGAIN).await;
        }
    }
}

/// The guest is here by an operator's word: the destination is told when it can be reached, however long that takes.
pub(super) fn tell_taken_back(context: &Arc<Context>, claim: &Claim<Machine>) {
    let generation = context.known().generation;
    let kept = claim.keep(|record| record.generation = generation);
    let kept = kept.map_err(anyhow::Error::from).and_then(|()| context.keep_departure());
    if let Err(error) = kept {
        tracing::error!(
            migration = context.handle.id(),
            "cannot write down that the guest is here: {error:#}"
        );
    }
    tokio::spawn(tell(Arc::clone(&context.site), context.departure()));
}

async fn tell(site: Arc<Site>, departure: Departure) {
    let Departure { migration, guest, generation, .. } = departure.clone();
    ask_for_ever(&site, &departure.to, Request::TakenBack { migration, guest, generation }).await;
    tracing::info!(migration = departure.migration, "the destination knows that the guest is here");
    forget(&site, &departure.migration);
}

/// Asks a peer something, over a link of its own, until it answers.
pub async fn ask_for_ever(site: &Site, to: &str, request: Request) -> Answer {
    loop {
        match timeout(ASK_LIMIT, ask_once(site, to, request.clone())).await {
            Ok(Ok(answer)) => return answer,
            Ok(Err(error)) => tracing::debug!(to, "cannot be asked yet: {error:#}"),
            Err(_) => tracing::debug!(to, "does not answer yet"),
        }
        sleep(ASK_AGAIN).await;
    }
}

async fn ask_once(site: &Site, to: &str, request: Request) -> Result<Answer> {
    let peer = site.link.peers.by_name(to).with_context(|| format!("{to} is not paired any more"))?;
    let link = Link::dial(&site.link_config(None), &peer).await?;
    let (client, _notices) = control(&link).await?;
    let answer = client.call(request).await?;
    link.close().await;
    Ok(answer)
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
        AtSource::RollBack => "it was decided that the guest stays here, and it goes on",
    }
}
