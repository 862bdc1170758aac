//! What a visit promises to its source, journalled before it is said: taken, refused, and that all is over (M2).

use anyhow::{Context as _, Result};

use super::Visit;
use crate::incoming::Stage;
use crate::io::journal_file::unix_ms;
use crate::journal::{Record, Step};
use crate::peer::Answer;

impl Visit {
    pub(super) async fn take(
        &mut self,
        id: u64,
        migration: &str,
        generation: u64,
        run: bool,
    ) -> Option<Answer> {
        let Some(arrival) = self.arrival.as_ref().filter(|arrival| arrival.reserve.migration == migration)
        else {
            let reason = "nothing is reserved for this migration".to_owned();
            return Some(self.refuse(migration.to_owned(), generation, reason));
        };
        let looked = arrival.look(generation).await;
        let step = if looked.is_ok() { Step::Taken } else { Step::Refused };
        let record = arrival.record(step);
        let decided = tokio::task::block_in_place(|| self.site.journal.decide(record));
        let reason = match (decided, looked) {
            (Ok(true), _) => {
                // From here on nothing leads back; whether the source hears of it changes nothing.
                self.stage = Stage::Taken;
                let _ = self.writer.answer(id, Answer::Verdict { taken: true, running: false }).await;
                self.start(run).await;
                return None;
            }
            (Ok(false), Err(error)) => format!("{error:#}"),
            (Ok(false), Ok(())) => "it was refused before, and that holds for ever".to_owned(),
            // Nothing was promised: the source asks again.
            (Err(error), _) => {
                tracing::error!(migration, "{:#}", anyhow::Error::from(error));
                return None;
            }
        };
        Some(Answer::Refused { reasons: vec![reason] })
    }

    /// Journals the refusal before it is said (M2), unless the opposite was promised.
    pub(super) fn refuse(&self, migration: String, generation: u64, reason: String) -> Answer {
        match self.verdict(migration, generation) {
            Answer::Verdict { taken: false, .. } => Answer::Refused { reasons: vec![reason] },
            other => other,
        }
    }

    /// The source knows that the guest runs here: the account is closed, if it is written down that the guest is here. It
    /// may say so over another link than the one over which the guest came. Said once more over that one, it has nothing
    /// left to ask for, and the guest is let go of.
    pub(super) async fn conclude(&mut self, migration: &str) -> Result<()> {
        let records = self.site.journal.records();
        let last = records.iter().rev().find(|record| record.migration == migration);
        let Some(last) = last.filter(|last| last.peer == self.link.peer()) else { return Ok(()) };
        let is_this_one = self.arrival.as_ref().is_some_and(|arrival| arrival.reserve.migration == migration);
        match last.step {
            Step::Started => self.close_account(last.clone()),
            Step::Done if is_this_one && self.stage == Stage::Running => {
                self.let_go().await;
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn close_account(&self, last: Record) -> Result<()> {
        let site = &self.site;
        let done = Record { step: Step::Done, unix_ms: unix_ms(), ..last.clone() };
        tokio::task::block_in_place(|| {
            site.guests.save(&last.guest).context("cannot write down in state_dir that the guest is here")?;
            anyhow::Ok(site.journal.append(done)?)
        })?;
        site.arrivals_kept.remove(&last.guest)?;
        if self.arrival.is_none() {
            site.replace_arrival(&last.guest, self.link.peer());
        }
        Ok(())
    }

    pub(super) fn verdict(&self, migration: String, generation: u64) -> Answer {
        let refused = Record {
            guest: String::new(),
            peer: self.link.peer().to_owned(),
            step: Step::Refused,
            unix_ms: unix_ms(),
            migration: migration.clone(),
            generation,
        };
        match tokio::task::block_in_place(|| self.site.journal.decide(refused)) {
            Ok(taken) => {
                if !taken {
                    self.let_go_of(&migration);
                }
                let last = self.site.journal.last_step(&migration);
                let running = taken && matches!(last, Some(Step::Started | Step::Done));
                Answer::Verdict { taken, running }
            }
            Err(error) => Answer::Refused { reasons: vec![format!("{:#}", anyhow::Error::from(error))] },
        }
    }

    /// What came over another link for a migration that was refused will never be taken: nothing is kept for it.
    fn let_go_of(&self, migration: &str) {
        let records = self.site.journal.records();
        let reserved =
            records.iter().find(|record| record.migration == migration && record.step == Step::Reserved);
        if let Some(reserved) = reserved.filter(|_| self.arrival.is_none()) {
            self.site.replace_arrival(&reserved.guest, self.link.peer());
        }
    }
}
