//! The source's side of a migration, done: operations run as tasks, and what happens goes to the decider as it is.
//!
//! ```text
//! crate::source ── start(op, promise) ──► perform: prepare, disks, memory, path, handover, restore
//!     ▲                                        │ finished, failed, verdict
//!     ├────────────────────────────────────────┘
//!     ├── QEMU's events and end, the destination's notices, cancel, time
//!     └── watch: "the disks are nearly done"
//! ```
//!
//! It decides neither what comes next nor what a failure leads to.

mod context;
mod departure;
mod perform;
mod prepare;
mod disks;
mod memory;
mod path;
mod handover;
mod restore;
mod mend;
mod recovery;
mod start;
mod watch;
mod account;
mod abort;
mod hearing;

use std::sync::Arc;

use anyhow::Result;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::sleep;

use crate::io::machine::Machine;
use crate::io::registry::Claim;
use crate::journal::Step;
use crate::phase::{OnFailure, Op, Outcome, Phase};
use crate::report;
use crate::source::{Action, Cause, Event, Failure, Notice, Source};

use self::abort::{causes, record};
use self::account::Account;
use self::context::Context;
use self::perform::{Ended, has_lost_qemu, perform};
use self::recovery::{forget, tell_taken_back};

pub use self::context::Options;
pub use self::departure::Departure;
pub use self::path::{move_of, tap_of, tunnel_numbers, tunnels_of};
pub use self::prepare::control;
pub use self::recovery::{ask_for_ever, recover};
pub use self::start::{Started, start};

/// One migration, while it runs.
struct Run {
    context: Arc<Context>,
    source: Source,
    operations: JoinSet<(Op, Result<Ended>)>,
    account: Account,
    /// Why the operation failed that led back.
    causes: Vec<report::Cause>,
}

async fn run(context: Arc<Context>, claim: Claim<Machine>, source: Source) {
    let mut run = Run {
        context: Arc::clone(&context),
        source,
        operations: JoinSet::new(),
        account: Account::default(),
        causes: Vec::new(),
    };
    run.until_final().await;
    let outcome = run.source.outcome().expect("it has ended");
    let has_moved = outcome == Outcome::Moved;
    if !has_moved {
        run.account.ask_disks(&context).await;
    }
    let mut report = run.account.report(&context, outcome, run.source.reasons());
    if !has_moved {
        report.abort = Some(record(&context, run.source.turn(), run.causes));
    }
    abort::log(&context, &report);
    context.keep_no_more();
    let is_settled = if has_moved { settle(&context, &claim).await } else { stay(&context, &claim).await };
    if context.known().is_taken_back {
        tell_taken_back(&context, &claim);
    } else if is_settled && !context.known().is_mended_later {
        forget(&context.site, context.handle.id());
    }
    if has_moved {
        handover::let_go(&context).await;
    }
    let link = context.known().link.take();
    context.end_tasks();
    if let Some(link) = link {
        link.close().await;
    }
    // Who is told of the end may do the next thing with the guest.
    drop(claim);
    context.handle.end(report);
    if context.known().is_mended_later {
        mend::mend(context).await;
    }
}

/// Writes down that the guest is at the destination. False: it could not be, and the daemon after this one has to do it.
async fn settle(context: &Arc<Context>, claim: &Claim<Machine>) -> bool {
    let (to, generation) = (context.peer.name.clone(), context.known().generation);
    claim.set_machine(None);
    let (mut tunnels, to_home) = {
        let mut known = context.known();
        (std::mem::take(&mut known.tunnels), known.to_home)
    };
    if tunnels.is_empty() && context.options.wan {
        tunnels = tunnels_of(context.handle.id(), &context.guest).await;
    }
    context.site.paths.left(&context.guest.name, tunnels, to_home).await;
    context.site.release_addresses(&context.guest.name);
    let kept = claim.keep(|record| {
        record.moved_to = Some(to);
        record.generation = generation;
    });
    // However it once came here, with an account that may still be open: that is over.
    let written = kept
        .and_then(|()| context.site.arrivals_kept.remove(&context.guest.name))
        .map_err(anyhow::Error::from)
        .and_then(|()| context.promise(Step::Done));
    if let Err(error) = written {
        let why = format!("it has moved, which cannot be written down in state_dir: {error:#}");
        tracing::error!(migration = context.handle.id(), "{why}");
        claim.set_trouble(&why);
        return false;
    }
    true
}

/// The guest is here. Where its QEMU has ended, its disks and taps are still there; nobody else ends them, for nobody else
/// has it.
async fn stay(context: &Arc<Context>, claim: &Claim<Machine>) -> bool {
    if context.machine.has_ended() {
        context.machine.quit().await;
        claim.set_machine(None);
        claim.set_trouble("QEMU ended while the guest was being moved");
    }
    true
}

impl Run {
    async fn until_final(&mut self) {
        let context = Arc::clone(&self.context);
        let mut qemu = context.machine.qmp().events();
        let mut heard = context.heard.subscribe();
        let (tell, mut told) = mpsc::channel(4);
        context.spawn(watch::watch(Arc::clone(&context), tell));
        let (mut has_cancelled, mut has_closed, mut has_taken_back) = (false, false, false);
        self.act().await;
        while !self.source.phase().is_final() {
            let deadline = self.source.poll_timeout();
            let wait = deadline.map(|at| at.saturating_sub(context.now()));
            tokio::select! {
                Some(ended) = self.operations.join_next() => self.handle_ended(ended),
                event = qemu.recv() => self.handle_qemu(event),
                Ok(()) = heard.changed() => { let heard = heard.borrow_and_update().clone(); self.handle_heard(&heard) }
                Some(event) = told.recv() => self.hand_in(event),
                () = context.handle.cancelled(), if !has_cancelled => {
                    has_cancelled = true;
                    self.hand_in(Event::Cancelled);
                }
                () = context.handle.taken_back(), if !has_taken_back => {
                    has_taken_back = true;
                    self.take_back();
                }
                () = context.machine.qmp().closed(), if !has_closed => {
                    has_closed = true;
                    // Its last words say why.
                    while let Ok(event) = qemu.try_recv() {
                        self.handle_qemu(Ok(event));
                    }
                    self.hand_in(Event::Notice(Notice::QemuEnded));
                }
                () = sleep(wait.unwrap_or_default()), if wait.is_some() => self.source.handle_timeout(context.now()),
            }
            self.act().await;
        }
    }

    fn hand_in(&mut self, event: Event) {
        self.source.handle(event, self.context.now());
    }

    /// An operator has said that the destination is gone for good: the guest is here, as the next generation.
    fn take_back(&mut self) {
        {
            let mut known = self.context.known();
            known.generation += 1;
            known.is_taken_back = true;
        }
        // First how, then that: a daemon after this one has to know whom to tell.
        match self.context.keep_departure().and_then(|()| self.context.promise(Step::TakenBack)) {
            Ok(_) => {
                self.context.warn("an operator has said that the guest is here");
                self.hand_in(Event::Verdict { taken: false });
            }
            Err(error) => {
                let mut known = self.context.known();
                known.generation -= 1;
                known.is_taken_back = false;
                drop(known);
                self.context.warn(format!("the guest stays in doubt: {error:#}"));
            }
        }
    }

    /// Does what the migration wants done.
    async fn act(&mut self) {
        while let Some(action) = self.source.poll_action() {
            match action {
                Action::Enter(phase) => self.enter(phase).await,
                Action::Start(op, promise) => {
                    let keep_copies = self.source.keeps_copies();
                    let task = perform(op, promise, Arc::clone(&self.context), keep_copies);
                    self.operations.spawn(async move { (op, task.await) });
                }
                Action::StopAll => self.operations.shutdown().await,
                Action::NotePause => {
                    self.context.note_pause();
                    self.context.keep_costs();
                    let raw = self.context.known().ram.as_ref().map_or(0, |ram| ram.bytes().0);
                    self.account.note_pause(raw);
                }
                Action::Note(what) => self.context.event(what),
                Action::Warn(what) => self.context.warn(what),
            }
        }
    }

    async fn enter(&mut self, phase: Phase) {
        let now = self.context.now();
        if self.context.handle.enter(phase).is_err() {
            self.hand_in(Event::Cancelled);
            return;
        }
        self.context.event(format!("phase {}", phase.name()));
        self.account.enter(phase, now);
        {
            let mut known = self.context.known();
            if let Some(link) = &known.link {
                link.set_stays(phase.row().paused);
            }
            known.costs.enter(phase, now);
        }
        if !phase.row().paused {
            // Else the journal's promises would wait for the same disk, and the guest for them.
            self.context.keep_costs();
        }
        let reasons = self.source.reasons().to_vec();
        let outcome = self.source.outcome().filter(|_| self.source.is_in_doubt());
        self.context.handle.update(|status| {
            status.reasons = reasons;
            status.outcome = outcome;
        });
        if phase.row().on_failure == OnFailure::GoOn {
            self.account.ask_disks(&self.context).await;
        }
    }

    fn handle_ended(&mut self, ended: Result<(Op, Result<Ended>), tokio::task::JoinError>) {
        match ended {
            Ok((op, Ok(Ended::Done))) => {
                if op == Op::FinishRam {
                    self.context.note_final_pass();
                }
                self.hand_in(Event::Finished(op));
            }
            Ok((op, Ok(Ended::CannotMove))) => {
                self.hand_in(Event::CannotMove);
                self.hand_in(Event::Finished(op));
            }
            Ok((_, Ok(Ended::Verdict(taken)))) => self.hand_in(Event::Verdict { taken }),
            Ok((op, Err(error))) => {
                let cause = match (has_lost_qemu(&error), self.context.lost_link()) {
                    (true, _) => Cause::Qemu,
                    (false, Some(how)) => Cause::Link(how),
                    (false, None) => Cause::Other,
                };
                self.hand_in(Event::Failed(op, Failure { why: format!("{error:#}"), cause }));
                if self.source.turn().is_some_and(|turn| turn.op == Some(op)) && self.causes.is_empty() {
                    self.causes = causes(&error);
                }
            }
            Err(stopped) if stopped.is_cancelled() => {}
            Err(panicked) => self.hand_in(Event::Broken(format!("a defect of this program: {panicked}"))),
        }
    }
}
