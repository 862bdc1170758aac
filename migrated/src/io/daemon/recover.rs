//! `recover`: says in plain words what both hosts have promised about a guest, and takes an operator's word for it when
//! one of them is gone for good.
//!
//! What can be decided without a person the daemon has begun to do by itself ([`crate::recover`]); this explains it. The
//! one thing that only a person can know is that the other host will not come back.

use std::time::Duration;

use anyhow::{Context as _, Result};
use tokio::time::timeout;

use crate::api::{Failure, FailureCode, Recovery};
use crate::io::journal_file::JournalError;
use crate::io::link::Link;
use crate::io::site::Site;
use crate::io::source::control;
use crate::journal::{Record, Step};
use crate::peer::{Answer, Request};

/// How long the other host may take to say what it has promised.
const CONSULT_LIMIT: Duration = Duration::from_secs(10);

/// Explains, and with an operator's word takes the guest back.
pub(super) async fn recover(site: &Site, guest: &str, lost: Option<&str>) -> Result<Recovery, Failure> {
    site.guests.find(guest)?;
    let Some(last) = site.journal.last_of(guest) else { return never_moved(guest, lost) };
    let there = match timeout(CONSULT_LIMIT, consult(site, &last)).await {
        Ok(Ok(promised)) => Ok(promised),
        Ok(Err(error)) => Err(format!("it cannot be asked: {error:#}")),
        Err(_) => Err(format!("it does not answer within {} s", CONSULT_LIMIT.as_secs())),
    };
    let safe = match lost {
        None => advice(&last, &there),
        Some(host) => take_back(site, &last, host, &there)?,
    };
    Ok(Recovery {
        guest: guest.to_owned(),
        migration: Some(last.migration.clone()),
        here: format!("{}: {}", site.config.name, words(Some(last.step))),
        there: match there {
            Ok(promised) => format!("{}: {}", last.peer, words(promised)),
            Err(why) => format!("{}: {why}", last.peer),
        },
        safe,
    })
}

fn never_moved(guest: &str, lost: Option<&str>) -> Result<Recovery, Failure> {
    if lost.is_some() {
        let message = format!("guest {guest:?} was never moved from or to here");
        return Err(Failure::new(FailureCode::Conflict, message, "there is nothing to take back"));
    }
    Ok(Recovery {
        guest: guest.to_owned(),
        migration: None,
        here: "nothing was promised".to_owned(),
        there: "no other host has to do with it".to_owned(),
        safe: "the guest is here; `migrated run` and `migrated resume` are safe".to_owned(),
    })
}

/// Asks the other host, which promises nothing by answering.
async fn consult(site: &Site, last: &Record) -> Result<Option<Step>> {
    let peer = site.link.peers.by_name(&last.peer).context("it is not paired with this host any more")?;
    let link = Link::dial(&site.link_config(None), &peer).await?;
    let (client, _notices) = control(&link).await?;
    let answer = client.call(Request::Consult { migration: last.migration.clone() }).await?;
    link.close().await;
    match answer {
        Answer::Consulted { promised } => Ok(promised),
        other => anyhow::bail!("it gave an answer that does not fit: {other:?}"),
    }
}

fn words(step: Option<Step>) -> &'static str {
    match step {
        None => "nothing was promised",
        Some(Step::Begun) => "the guest is to move; nothing was promised",
        Some(Step::Releasing) => "the guest was handed over; nobody here knows whether it was taken",
        Some(Step::Released) => "the guest has moved, and ran there",
        Some(Step::RollingBack) => "the guest stays at the source, which is being made as it was",
        Some(Step::RolledBack) => "the guest stays at the source",
        Some(Step::Reserved) => "room is kept for the guest; nothing was promised",
        Some(Step::Refused) => "the guest will never be taken in this migration",
        Some(Step::Taken) => "the guest was taken, and has not run there yet",
        Some(Step::Started) => "the guest was taken, and may have run there",
        Some(Step::HandedBack) => "the guest was handed back before it ran",
        Some(Step::TakenBack) => "an operator has said that the guest is at the source",
        Some(Step::Done) => "the migration is over",
    }
}

fn advice(last: &Record, there: &Result<Option<Step>, String>) -> String {
    let Record { guest, peer, .. } = last;
    match (last.step, there) {
        (Step::Releasing, Ok(Some(Step::Taken | Step::Started | Step::Done))) => {
            format!("the guest is at {peer}; this daemon clears away what is left of it here")
        }
        (Step::Releasing, Ok(_)) => {
            "the guest was not taken; this daemon lets it go on here, and no step of yours is needed"
                .to_owned()
        }
        (Step::Releasing, Err(_)) => format!(
            "wait: the guest stays paused until {peer} answers, and is asked every few seconds. If {peer} is gone \
             for good, `migrated recover {guest} --lost {peer}` lets the guest go on here. The risk: if {peer} \
             lives after all and has taken the guest, it runs twice until the two hosts reach each other, and what \
             was written there since is lost"
        ),
        (Step::Begun, _) => "the guest is here, and this daemon goes on with the migration".to_owned(),
        (Step::Released, _) => format!("the guest is at {peer}; start nothing here"),
        (Step::Reserved | Step::Refused | Step::HandedBack, _) => format!("the guest is at {peer}"),
        (Step::Taken, _) => "the guest is here, and this daemon starts it".to_owned(),
        (Step::Started, Ok(Some(Step::TakenBack | Step::RollingBack | Step::RolledBack))) => {
            format!("an operator has said that the guest is at {peer}; start nothing here")
        }
        (Step::Started, Ok(_)) => "the guest is here".to_owned(),
        (Step::Started, Err(_)) => format!(
            "the guest is here; if its QEMU has ended, this daemon asks {peer} whether an operator has taken it back \
             meanwhile, before it may be run. If {peer} is gone for good, `migrated recover {guest} --lost {peer}` \
             lets it be run here"
        ),
        (Step::RollingBack | Step::RolledBack | Step::TakenBack, _) => "the guest is here".to_owned(),
        (Step::Done, _) => "nothing is open; `migrated list` says where the guest is".to_owned(),
    }
}

/// Does as an operator says, whose word is that the other host is gone for good.
fn take_back(
    site: &Site,
    last: &Record,
    lost: &str,
    there: &Result<Option<Step>, String>,
) -> Result<String, Failure> {
    let refused = |message: String, hint: &str| Err(Failure::new(FailureCode::Conflict, message, hint));
    let Record { guest, peer, migration, .. } = last;
    if lost != peer {
        return refused(
            format!("guest {guest:?} was on its way to {peer:?}, not {lost:?}"),
            "name that host",
        );
    }
    if let Ok(promised) = there {
        let message = format!("{peer:?} is not lost, it answers: {}", words(*promised));
        return refused(message, "what it says is done without your word; see `migrated status`");
    }
    if last.step == Step::Started {
        let failed =
            |error: JournalError| Failure::new(FailureCode::Failed, error.to_string(), "look at state_dir");
        site.journal.promise(last.subject(), Step::Done).map_err(failed)?;
        return Ok(format!(
            "by your word {peer} is gone: the guest is here, and `migrated run` may start it"
        ));
    }
    if last.step != Step::Releasing {
        let message = format!("guest {guest:?} is not in doubt: {}", words(Some(last.step)));
        return refused(message, "only a guest in doubt can be taken back");
    }
    if !site.migrations.take_back(migration) {
        let message = format!("migration {migration} is not in doubt at this moment");
        return refused(message, "look again in a moment");
    }
    Ok(format!(
        "by your word {peer} is gone: the guest goes on here, as generation {}; {peer} is told as soon as it answers, \
         and stops the guest if it has it",
        last.generation + 1
    ))
}
