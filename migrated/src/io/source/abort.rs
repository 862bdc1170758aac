//! The record of a migration that has not moved its guest: what failed first, and what was undone (S0-48).
//!
//! Errors come as chains; here they become numbers and words, once, and one line of the log.

use std::error::Error;
use std::io;

use nix::errno::Errno;

use super::context::Context;
use crate::io::qmp::QmpError;
use crate::phase::Phase;
use crate::report::{Abort, Cause, QmpRefusal, Report};
use crate::source::Turn;

/// The record of a migration that is over: what led back, and what was undone.
pub(super) fn record(context: &Context, turn: Option<&Turn>, causes: Vec<Cause>) -> Abort {
    let undone = std::mem::take(&mut context.known().undone);
    let abort = match turn {
        Some(turn) if turn.op.is_some() => Abort { operation: turn.op, causes, ..Abort::of(turn.phase, "") },
        Some(turn) => Abort::of(turn.phase, &turn.reason),
        None => Abort::of(Phase::RollingBack, "the daemon before this one has given it up"),
    };
    Abort { undone, ..abort }
}

/// An error and what it comes of, as numbers and words.
pub(super) fn causes(error: &anyhow::Error) -> Vec<Cause> {
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
