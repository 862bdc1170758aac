//! One action of a visit, done; what it brings goes back to the decider as an event.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result};
use tokio::time::sleep;

use super::arrival::{Arrival, report_of};
use super::ports::Ports;
use super::reserve::{self, Kept};
use super::trial::Trial;
use super::{Visit, names, taken_back};
use crate::destination::{Action, Arriving, Destination, Event, Promise, Trouble};
use crate::io::journal_file::JournalError;
use crate::io::site::Site;
use crate::journal::{Step, Subject};
use crate::peer::{Answer, Request, Reserve};
use crate::phase::Outcome;
use crate::report::Report;
use crate::status::Status;

/// Between two attempts to start a guest that was taken.
const AGAIN: Duration = Duration::from_millis(250);

impl Visit {
    /// Does it. None: it brings nothing that anybody waits for.
    pub(super) async fn perform(&mut self, action: Action) -> Option<Event> {
        match action {
            Action::Reserve { id, wanted } => Some(self.reserve(id, *wanted).await),
            Action::Do { id, request } => {
                self.site.hold_points.pass(&format!("destination-{}", request.name())).await;
                let done = self.obey(request).await.map_err(|error| format!("{error:#}"));
                Some(Event::Done { id, done })
            }
            Action::Look { generation } => Some(Event::Looked(self.look(generation).await)),
            Action::Promise(promise) => Some(Event::Promised(self.promise(promise))),
            Action::Answer { id, answer } => {
                self.answer(id, answer).await;
                None
            }
            Action::Notify(notice) => {
                if let Some(writer) = &self.writer {
                    // Whether it is heard changes nothing: the source asks.
                    let _ = writer.notice(notice).await;
                }
                None
            }
            Action::Promote => Some(Event::Promoted(self.promote().await)),
            Action::Run(run) => {
                Some(Event::Runs(self.try_with(async |arrival| arrival.run(run).await).await))
            }
            Action::Wait { why } => {
                self.say_trouble(&why);
                sleep(AGAIN).await;
                Some(Event::TryAgain)
            }
            Action::RemoveCopies { why } => {
                self.arrival.as_ref()?.remove_copies().await;
                Some(Event::CopiesRemoved(why))
            }
            Action::Settle => {
                self.settle().await;
                None
            }
            Action::CloseAccount { id, migration, ends_other_visit } => {
                let closed = self.close_account(&migration, ends_other_visit);
                let done = closed.map(|()| Answer::Done {}).map_err(|error| format!("{error:#}"));
                Some(Event::Done { id, done })
            }
            Action::EndOtherVisit { migration } => {
                self.end_other_visit(&migration);
                None
            }
            Action::GiveGuestBack { id, guest, generation } => {
                let given = taken_back::give_back(&self.site, &self.peer, &guest, generation).await;
                let done = given.map(|()| Answer::Done {}).map_err(|error| format!("{error:#}"));
                Some(Event::Done { id, done })
            }
            Action::GiveUp { reason, keep_copies } => {
                self.give_up(&reason, keep_copies).await;
                None
            }
            Action::LetGo { sees_to_names } => {
                self.let_go(sees_to_names).await;
                None
            }
        }
    }

    async fn reserve(&mut self, id: u64, wanted: Reserve) -> Event {
        self.site.hold_points.pass("destination-reserve").await;
        let looked = wanted.dry_run.then(|| Trial::new(&self.site, wanted.clone()));
        let reserved = match reserve::reserve(&self.site, &self.peer, wanted).await {
            Ok(Kept::Looked(reserved)) => {
                self.end_trial().await;
                self.trial = looked;
                Ok((reserved, None))
            }
            Ok(Kept::Arrival(arrival)) => {
                self.replaced = Some(self.site.note_arrival(&arrival.reserve.guest.name, &arrival.source));
                self.ports = Some(Ports::of(&arrival.machine));
                let arriving = arriving(&arrival.reserve);
                let reserved = arrival.reserved.clone();
                self.arrival = Some(*arrival);
                Ok((reserved, Some(arriving)))
            }
            Err(reasons) => {
                tracing::warn!(source = self.peer, ?reasons, "a guest is refused");
                Err(reasons)
            }
        };
        Event::Reserved { id, reserved }
    }

    async fn look(&self, generation: u64) -> Result<(), String> {
        self.site.hold_points.pass("destination-take").await;
        let looked = match &self.arrival {
            Some(arrival) => arrival.look(generation).await,
            None => Err(nothing_reserved()),
        };
        looked.map_err(|error| format!("{error:#}"))
    }

    async fn promote(&self) -> Result<(), Trouble> {
        if let Some(arrival) = &self.arrival {
            // Who asks over another link is not told that it runs, before it does.
            self.site.note_starting(&arrival.reserve.migration);
        }
        self.try_with(Arrival::promote).await
    }

    /// What changes no stage and promises nothing.
    async fn obey(&mut self, request: Request) -> Result<Answer> {
        match request {
            Request::PathPrepare(order) => {
                self.arrival.as_mut().ok_or_else(nothing_reserved)?.prepare_path(&order).await?;
            }
            Request::PathTry(order) => {
                self.trial.as_mut().ok_or_else(nothing_reserved)?.make(&order).await?;
            }
            Request::PathSwitch {} => {
                self.arrival.as_ref().ok_or_else(nothing_reserved)?.switch_path().await?
            }
            Request::PathBack {} => {
                self.arrival.as_ref().ok_or_else(nothing_reserved)?.switch_path_back().await?;
            }
            Request::Mirror(status) => self.mirror(*status),
            Request::Readdress {} => {
                let arrival = self.arrival.as_ref().ok_or_else(nothing_reserved)?;
                let (names, troubles) = names::readdress(arrival).await;
                return Ok(Answer::Readdressed { names, troubles });
            }
            other => anyhow::bail!("{} is no order", other.name()),
        }
        Ok(Answer::Done {})
    }

    /// Journals a promise: the one place where a visit does. Gives whether the guest was taken, as far as it was asked for.
    fn promise(&self, promise: Promise) -> Result<bool, String> {
        let Promise { migration, guest, generation, step } = promise;
        if step == Step::Started && self.arrival.as_ref().is_some_and(|arrival| arrival.machine.has_ended()) {
            // A moment later the guest would be this host's without its memory, which the source has still (M8).
            return Err("its QEMU has ended".to_owned());
        }
        let subject = Subject { migration, guest, generation, peer: self.peer.clone() };
        let written = match step {
            Step::Taken | Step::Refused => self.site.journal.decide(subject, step),
            _ => self.site.journal.promise(subject, step).map(|durable| durable.step() != Step::HandedBack),
        };
        written.map_err(|error: JournalError| {
            let error = anyhow::Error::from(error);
            tracing::error!(source = self.peer, "a promise is not made: {error:#}");
            format!("{error:#}")
        })
    }

    /// Does something with a guest that was taken.
    async fn try_with(&self, work: impl AsyncFnOnce(&Arrival) -> Result<()>) -> Result<(), Trouble> {
        let Some(arrival) = &self.arrival else {
            return Err(Trouble { why: format!("{:#}", nothing_reserved()), qemu_has_ended: true });
        };
        let done = work(arrival).await;
        done.map_err(|error| Trouble {
            why: format!("{error:#}"),
            qemu_has_ended: arrival.machine.has_ended(),
        })
    }

    fn say_trouble(&self, why: &str) {
        if let Some(arrival) = &self.arrival {
            let guest = &arrival.reserve.guest.name;
            tracing::error!(guest, "cannot start the guest that was taken: {why}");
            arrival.claim.set_trouble(&format!("it was taken, and cannot be started yet: {why}"));
        }
    }

    /// The guest is here: that is written down. What fails is done again when the source says that all is over, or by the
    /// daemon after this one.
    async fn settle(&mut self) {
        self.relays.abort_all();
        let Some(arrival) = &self.arrival else { return };
        self.site.forget_starting(&arrival.reserve.migration);
        arrival.claim.set_trouble("");
        arrival.handle.shows_the_end();
        if let Err(error) = arrival.settle().await {
            arrival.say_unsettled(&error);
        }
    }

    fn close_account(&self, migration: &str, ends_other_visit: bool) -> Result<()> {
        let site = &self.site;
        let account = site.journal.account(migration);
        let last = account.last().context("nothing is written about this migration")?;
        tokio::task::block_in_place(|| site.guests.save(&last.guest))
            .context("cannot write down in state_dir that the guest is here")?;
        let (guest, generation) = (last.guest.clone(), last.generation);
        let done = Promise { migration: migration.to_owned(), guest, generation, step: Step::Done };
        self.promise(done).map_err(anyhow::Error::msg)?;
        site.arrivals_kept.remove(&last.guest)?;
        if ends_other_visit {
            site.replace_arrival(&last.guest, &self.peer);
        }
        Ok(())
    }

    fn end_other_visit(&self, migration: &str) {
        let account = self.site.journal.account(migration);
        if let Some(guest) = account.reserved_guest().filter(|_| self.arrival.is_none()) {
            self.site.replace_arrival(guest, &self.peer);
        }
    }

    async fn give_up(&mut self, reason: &str, keep_copies: bool) {
        self.relays.abort_all();
        self.end_trial().await;
        self.replaced = None;
        if let Some(arrival) = self.arrival.take() {
            let name = arrival.reserve.guest.name.clone();
            self.site.forget_starting(&arrival.reserve.migration);
            let handle = arrival.handle.clone();
            let status = handle.status();
            let abort = arrival.give_up(reason, keep_copies).await;
            self.site.forget_arrival(&name);
            let report = report_of(&status, Outcome::RolledBack, vec![reason.to_owned()]);
            handle.end(Report { abort: Some(abort), ..report });
        }
    }

    async fn end_trial(&mut self) {
        if let Some(trial) = self.trial.take() {
            trial.end().await;
        }
    }

    async fn let_go(&mut self, sees_to_names: bool) {
        self.replaced = None;
        if let Some(arrival) = self.arrival.take() {
            self.site.forget_arrival(&arrival.reserve.guest.name);
            if sees_to_names {
                names::readdress_unasked(&arrival).await;
            }
            arrival.end_well().await;
        }
    }

    /// Shows how far the source is. Whose migration of which guest it is, this host knows better.
    fn mirror(&self, source: Status) {
        let Some(arrival) = &self.arrival else { return };
        arrival.handle.update(|status| {
            *status = Status {
                id: status.id.clone(),
                guest: status.guest.clone(),
                source: status.source.clone(),
                destination: status.destination.clone(),
                incoming: true,
                report: None,
                outcome: None,
                ..source
            };
        });
    }
}

/// The guest of a reservation, as the decider knows it.
pub fn arriving(reserve: &Reserve) -> Arriving {
    Arriving {
        migration: reserve.migration.clone(),
        guest: reserve.guest.name.clone(),
        generation: reserve.generation,
    }
}

fn nothing_reserved() -> anyhow::Error {
    anyhow::anyhow!("nothing is reserved for this migration")
}

/// Goes on with a guest that was taken before this daemon was started, without a link to its source.
pub async fn go_on(site: Arc<Site>, arrival: Arrival) {
    let reserve = &arrival.reserve;
    let is_started = site.journal.account(&reserve.migration).has_started();
    let decider = Destination::taken_up(&arrival.source, arriving(reserve), reserve.runs, is_started);
    let mut visit = Visit::new(site, arrival.source.clone(), decider, None);
    visit.arrival = Some(arrival);
    visit.act().await;
    visit.handle(Event::LinkEnded("there is no link to its source yet".to_owned())).await;
}
