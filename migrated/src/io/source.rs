//! The source's side of a migration, done: operations run as tasks, what they bring goes back to `migration`.
//!
//! ```text
//! Migration ── start(op) ──► tasks (prepare, disks, memory, path, handover, restore)
//!     ▲                          │ finished, failed, verdict
//!     ├──────────────────────────┘
//!     ├── QEMU's events and end, the destination's notices, cancel, time
//!     └── watch: "the disks are nearly done"
//! ```
//!
//! Nothing is decided here.

mod context;
mod departure;
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
use std::time::Duration;

use anyhow::Result;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use crate::io::machine::Machine;
use crate::io::qmp::QmpError;
use crate::io::registry::Claim;
use crate::journal::Step;
use crate::migration::{Action, Event, Migration, Op};
use crate::phase::{Outcome, Phase};
use crate::quantity::ms;
use crate::report::Abort;

use self::account::Account;
use self::context::Context;
use self::recovery::{forget, tell_taken_back};

pub use self::context::Options;
pub use self::departure::Departure;
pub use self::path::{move_of, tap_of, tunnel_numbers, tunnels_of};
pub use self::prepare::control;
pub use self::recovery::{ask_for_ever, recover};
pub use self::start::{Started, start};

/// How long QEMU and blockd may take to end when their guest is gone.
const CLEAN_UP_LIMIT: Duration = Duration::from_secs(30);

/// How an operation ended well.
enum Ended {
    Done,
    Verdict(bool),
}

async fn perform(op: Op, context: Arc<Context>, keep_disks: bool) -> Result<Ended> {
    let context = &context;
    if context.site.hold_points.pass(&format!("source-{}", op.name())).await {
        context.event(format!("{} was held", op.name()));
    }
    let has_begun = context.known().has_begun();
    match op {
        Op::Inspect => prepare::inspect(context).await?,
        Op::Connect if has_begun => prepare::reconnect(context).await?,
        Op::Connect => prepare::first_connect(context).await?,
        Op::Reserve => prepare::reserve(context).await?,
        Op::Replicate => disks::replicate(context).await?,
        Op::PreparePath => path::prepare(context).await?,
        Op::StartRam => memory::start(context).await?,
        Op::AwaitPause => memory::await_pause(context).await?,
        Op::SwitchPath => path::switch(context).await?,
        Op::Seal => disks::seal(context).await?,
        Op::FinishRam => memory::finish(context).await?,
        Op::AwaitLoaded => handover::await_loaded(context).await?,
        Op::Release => handover::release(context).await?,
        Op::HandOver => return Ok(Ended::Verdict(handover::hand_over(context).await?)),
        Op::AskVerdict => return Ok(Ended::Verdict(handover::ask_verdict(context).await?)),
        Op::AwaitRunning if handover::await_running(context).await? => {}
        Op::AwaitRunning => return Ok(Ended::Verdict(false)),
        Op::Fence => {
            context.promise(Step::Released)?;
            disks::fence(context).await?;
            handover::conclude(context).await;
        }
        Op::Readdress => prepare::readdress(context).await?,
        Op::CleanUp => timeout(CLEAN_UP_LIMIT, context.machine.quit()).await?,
        Op::Retreat => restore::retreat(context).await?,
        Op::Restore => restore::restore(context, keep_disks).await,
    }
    Ok(Ended::Done)
}

/// True where an operation failed for no other reason than that QEMU has ended.
fn has_lost_qemu(error: &anyhow::Error) -> bool {
    error.chain().any(|cause| matches!(cause.downcast_ref(), Some(QmpError::Closed { .. })))
}

/// One migration, while it runs.
struct Run {
    context: Arc<Context>,
    migration: Migration,
    operations: JoinSet<(Op, Result<Ended>)>,
    account: Account,
    /// What led back first.
    abort: Option<Abort>,
    /// QEMU said that the guest is shutting down.
    has_shut_down: bool,
    /// QEMU said that a disk of the guest's own failed it.
    has_disk_failed: bool,
}

async fn run(context: Arc<Context>, claim: Claim<Machine>, migration: Migration) {
    let mut run = Run {
        context: Arc::clone(&context),
        migration,
        operations: JoinSet::new(),
        account: Account::default(),
        abort: None,
        has_shut_down: false,
        has_disk_failed: false,
    };
    run.until_final().await;
    let outcome = run.migration.outcome().expect("it has ended");
    if outcome != Outcome::Moved {
        run.account.ask_disks(&context).await;
    }
    let mut report = run.account.report(&context, outcome, run.migration.reasons());
    if outcome != Outcome::Moved {
        let earlier = || Abort::of(Phase::RollingBack, "the daemon before this one has given it up");
        let undone = std::mem::take(&mut context.known().undone);
        report.abort = Some(Abort { undone, ..run.abort.unwrap_or_else(earlier) });
    }
    abort::log(&context, &report);
    context.keep_no_more();
    let is_settled = settle(&context, &claim, outcome).await;
    if context.known().is_taken_back {
        tell_taken_back(&context, &claim);
    } else if is_settled && !context.known().is_mended_later {
        forget(&context.site, context.handle.id());
    }
    if outcome == Outcome::Moved {
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

/// Writes down where the guest is now. False: it could not be, and the daemon after this one has to do it.
async fn settle(context: &Arc<Context>, claim: &Claim<Machine>, outcome: Outcome) -> bool {
    if outcome == Outcome::Moved {
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
    } else if context.machine.has_ended() {
        // Its disks and taps are still there; nobody else ends them, for nobody else has it.
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
        while !self.migration.phase().is_final() {
            let deadline = self.migration.poll_timeout();
            let wait = deadline.map(|at| at.saturating_sub(context.now()));
            tokio::select! {
                Some(ended) = self.operations.join_next() => self.handle_ended(ended).await,
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
                    self.handle_end_of_qemu();
                }
                () = sleep(wait.unwrap_or_default()), if wait.is_some() => self.hand_in_time(),
            }
            self.act().await;
        }
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
            Ok(()) => {
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
        while let Some(action) = self.migration.poll_action() {
            match action {
                Action::Enter(phase) => self.enter(phase).await,
                Action::Start(op) => {
                    let keep_disks = self.migration.outcome() == Some(Outcome::RolledBack);
                    let task = perform(op, Arc::clone(&self.context), keep_disks);
                    self.operations.spawn(async move { (op, task.await) });
                }
                Action::StopAll => self.operations.shutdown().await,
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
        if phase == Phase::RollingBack && self.migration.has_begun() {
            // So that a daemon after this one does not begin again what was given up. The guest does not wait for a disk
            // that fails: it is here either way.
            if let Err(error) = self.context.promise(Step::RollingBack) {
                self.context.warn(format!("{error:#}"));
            }
        }
        self.account.enter(phase, now);
        if let Some(link) = &self.context.known().link {
            link.set_stays((Phase::StopAndCopy..=Phase::Resume).contains(&phase));
        }
        if phase == Phase::Recovering {
            self.account.forget_pause();
        }
        {
            let mut known = self.context.known();
            known.costs.pauses.enter(phase);
            if phase == Phase::Bulk {
                known.costs.recorded_since.get_or_insert(now);
            }
        }
        if !phase.row().paused {
            // Else the journal's promises would wait for the same disk, and the guest for them.
            self.context.keep_costs();
        }
        let reasons = self.migration.reasons().to_vec();
        let outcome = self.migration.outcome().filter(|_| phase == Phase::InDoubt);
        self.context.handle.update(|status| {
            status.reasons = reasons;
            status.outcome = outcome;
        });
        if phase == Phase::Readdress {
            self.account.ask_disks(&self.context).await;
        }
    }

    async fn handle_ended(&mut self, ended: Result<(Op, Result<Ended>), tokio::task::JoinError>) {
        let event = match ended {
            Ok((op, Ok(Ended::Done))) => Event::Finished(op),
            Ok((_, Ok(Ended::Verdict(taken)))) => Event::Verdict { taken },
            // Who hears that QEMU has ended says why.
            Ok((_, Err(error))) if has_lost_qemu(&error) && self.migration.phase() <= Phase::StopAndCopy => {
                return;
            }
            // What needs the link cannot go on without; how the link ended says more.
            Ok((op, Err(error)))
                if self.migration.phase() <= Phase::Commitment
                    && let Some(why) = self.lost_link() =>
            {
                self.context.event(format!("{op:?} ended with the link: {error:#}"));
                Event::LinkLost(why)
            }
            Ok((op, Err(error))) => {
                self.context.event(format!("{op:?} failed: {error:#}"));
                return self.hand_in_failure(op, &error);
            }
            Err(stopped) if stopped.is_cancelled() => return,
            Err(panicked) => Event::Broken(format!("a defect of this program: {panicked}")),
        };
        if let Event::Finished(Op::FinishRam) = event {
            let now = self.context.now();
            let mut known = self.context.known();
            known.final_pass_ms = known.costs.pauses.since().map_or(0, |since| ms(now.saturating_sub(since)));
        }
        self.hand_in(event);
    }
}
