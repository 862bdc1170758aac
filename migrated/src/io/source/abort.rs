//! The record of a migration that has not moved its guest: what failed first, and what was undone (S0-48).
//!
//! Errors come as chains; here they become numbers and words, once, and one line of the log.

use std::error::Error;
use std::io;

use nix::errno::Errno;

use super::Run;
use super::context::Context;
use crate::io::qmp::QmpError;
use crate::migration::{Event, Op};
use crate::phase::Phase;
use crate::report::{Abort, Cause, QmpRefusal, Report};

impl Run {
    /// Hands in what has happened, and keeps what led back.
    pub(super) fn hand_in(&mut self, event: Event) {
        self.follow(None, |run, now| run.migration.handle(event, now));
    }

    /// An operation has failed.
    pub(super) fn hand_in_failure(&mut self, op: Op, error: &anyhow::Error) {
        let event = Event::Failed(op, format!("{error:#}"));
        self.follow(Some((op, error)), |run, now| run.migration.handle(event, now));
    }

    /// The phase may have lasted too long.
    pub(super) fn hand_in_time(&mut self) {
        self.follow(None, |run, now| run.migration.handle_timeout(now));
    }

    fn follow(
        &mut self,
        failed: Option<(Op, &anyhow::Error)>,
        change: impl FnOnce(&mut Self, std::time::Duration),
    ) {
        let (before, now) = (self.migration.phase(), self.context.now());
        change(self, now);
        let after = self.migration.phase();
        if after == before || !matches!(after, Phase::RollingBack | Phase::InDoubt) || self.abort.is_some() {
            return;
        }
        // As it was shown: what is left in the same moment as it was entered was never there.
        let phase = self.context.handle.status().phase;
        let why = self.migration.reasons().last().map_or("", String::as_str);
        self.abort = Some(match failed {
            Some((op, error)) => Abort { operation: Some(op), causes: causes(error), ..Abort::of(phase, "") },
            None => Abort::of(phase, why),
        });
    }
}

fn causes(error: &anyhow::Error) -> Vec<Cause> {
    error.chain().map(cause).collect()
}

fn cause(error: &(dyn Error + 'static)) -> Cause {
    let errno = error
        .downcast_ref::<io::Error>()
        .and_then(io::Error::raw_os_error)
        .or_else(|| error.downcast_ref::<Errno>().map(|errno| *errno as i32));
    let qmp = match error.downcast_ref() {
        Some(QmpError::Refused { command, refused }) => Some(QmpRefusal {
            command: command.clone(),
            class: refused.class.clone(),
            desc: refused.text.clone(),
        }),
        _ => None,
    };
    Cause { text: error.to_string(), errno, qmp }
}

/// One line of the log for a migration that has not moved its guest, with the fields of the record.
pub(super) fn log(context: &Context, report: &Report) {
    let Some(abort) = &report.abort else { return };
    tracing::warn!(
        migration = report.id,
        guest = context.guest.name,
        destination = report.destination,
        outcome = report.outcome.name(),
        phase = abort.phase.name(),
        operation = abort.operation(),
        errno = abort.errno(),
        qmp_class = abort.qmp().map(|refusal| refusal.class.as_str()),
        undone = abort.undone(),
        cause = abort.cause(),
        "the guest was not moved"
    );
}

#[cfg(test)]
mod tests {
    use anyhow::{Context as _, anyhow};

    use super::*;
    use crate::qmp::Refused;

    #[test]
    fn a_chain_of_errors_keeps_the_numbers_of_the_system_and_the_words_of_qemu() {
        let full = io::Error::from_raw_os_error(nix::libc::ENOSPC);
        let found = causes(&anyhow!(full).context("cannot write the journal"));
        assert_eq!(found.len(), 2);
        assert_eq!((found[0].errno, found[1].errno), (None, Some(nix::libc::ENOSPC)));
        let refused = Refused { class: "CommandNotFound".into(), text: "never heard of it".into() };
        let error = Err::<(), _>(QmpError::Refused { command: "migrate".into(), refused });
        let found = causes(&error.context("memory").unwrap_err());
        let refusal = found[1].qmp.as_ref().expect("QEMU refused it");
        assert_eq!((refusal.command.as_str(), refusal.class.as_str()), ("migrate", "CommandNotFound"));
        assert_eq!((found[0].text.as_str(), refusal.desc.as_str()), ("memory", "never heard of it"));
    }
}
