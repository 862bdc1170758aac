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
mod prepare;
mod disks;
mod memory;
mod path;
mod handover;
mod restore;
mod recovery;
mod watch;
mod account;

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Result;
use tokio::sync::{broadcast, mpsc};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use crate::api::{Failure, FailureCode, Send};
use crate::io::keys::Peer;
use crate::io::machine::Machine;
use crate::io::qmp::QmpError;
use crate::io::registry::{Claim, Task};
use crate::io::site::Site;
use crate::journal::Step;
use crate::migration::{Action, Event, Limits, Migration, Op};
use crate::phase::{Outcome, Phase};
use crate::status::Status;

use self::account::Account;
use self::context::{Context, Heard, Options};
use self::recovery::{forget, tell_taken_back};

pub use self::path::{move_of, tap_of, tunnel_number};
pub use self::prepare::control;
pub use self::recovery::recover;

/// How long QEMU and blockd may take to end when their guest is gone.
const CLEAN_UP_LIMIT: Duration = Duration::from_secs(30);

/// Begins to move a guest, and answers the migration's number. A dry run ends before anything is started.
pub async fn start(site: &Arc<Site>, send: Send) -> Result<String, Failure> {
    // Who names a guest that is not here is told so, wherever it was to go.
    site.guests.find(&send.guest)?;
    let peer = peer_of(site, &send)?;
    let id = site.new_id();
    let task = Task::Leave { migration: id.clone(), to: peer.name.clone() };
    let claim = site.guests.claim(&send.guest, task)?;
    let machine = claim.machine()?;
    let guest = claim.known().record.guest;
    let defaults = &site.config.migration;
    let options = Options {
        wan: send.wan,
        max_downtime: Duration::from_millis(send.max_downtime_ms.unwrap_or(defaults.max_downtime_ms)),
        ram_start: Duration::from_millis(defaults.ram_start_ms),
        transport: prepare::transport(&send)?,
    };
    let limit = send.bandwidth_bytes_per_s.or(defaults.bandwidth_bytes_per_s);
    let status = Status::new(&id, &guest.name, &site.config.name, &peer.name).limited(limit);
    let handle = site.migrations.begin(status)?;
    let context = Arc::new(Context::new(Arc::clone(site), handle, machine, guest, peer, options));
    if send.dry_run {
        let found = dry_run(&context).await;
        context.end_tasks();
        context.handle.forget();
        let refused = |error: anyhow::Error| {
            Failure::new(FailureCode::Failed, format!("{error:#}"), "nothing was started")
        };
        return found.map(|()| id).map_err(refused);
    }
    let migration = Migration::new(limits(site), context.now());
    tokio::spawn(run(context, claim, migration));
    Ok(id)
}

fn limits(site: &Site) -> Limits {
    let settings = &site.config.migration;
    Limits {
        paused: Duration::from_millis(settings.paused_deadline_ms),
        retry: Duration::from_millis(settings.lease_ms),
    }
}

/// The host that a guest shall go to. Not this one, by whatever name it is paired with itself (S0-28).
fn peer_of(site: &Site, send: &Send) -> Result<Peer, Failure> {
    let peer = site.link.peers.by_name(&send.to);
    if send.to == site.config.name || peer.as_ref().is_some_and(|peer| peer.key == *site.link.keys.spki()) {
        let message = format!("guest {:?} is at {:?} already: that is this host", send.guest, send.to);
        return Err(Failure::new(FailureCode::Conflict, message, "see `migrated hosts` for others"));
    }
    peer.ok_or_else(|| {
        let message = format!("no host {:?} is paired with this one", send.to);
        Failure::new(FailureCode::NotFound, message, "see `migrated hosts`, or pair them by `migrated pair`")
    })
}

async fn dry_run(context: &Arc<Context>) -> Result<()> {
    prepare::inspect(context).await?;
    prepare::connect(context).await?;
    let request = prepare::request(context, true).await?;
    context.client()?.call(crate::peer::Request::Reserve(Box::new(request))).await?;
    Ok(())
}

/// How an operation ended well.
enum Ended {
    Done,
    Verdict(bool),
}

async fn perform(op: Op, context: Arc<Context>, keep_disks: bool) -> Result<Ended> {
    let context = &context;
    let has_begun = context.known().has_begun();
    match op {
        Op::Inspect => prepare::inspect(context).await?,
        Op::Connect if has_begun => prepare::reconnect(context).await?,
        Op::Connect => prepare::connect(context).await?,
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
    /// QEMU said that the guest is shutting down.
    has_shut_down: bool,
}

async fn run(context: Arc<Context>, claim: Claim<Machine>, migration: Migration) {
    let mut run = Run {
        context: Arc::clone(&context),
        migration,
        operations: JoinSet::new(),
        account: Account::default(),
        has_shut_down: false,
    };
    run.until_final().await;
    let outcome = run.migration.outcome().expect("it has ended");
    if outcome != Outcome::Moved {
        run.account.ask_disks(&context).await;
    }
    let report = run.account.report(&context, outcome, run.migration.reasons());
    settle(&context, &claim, outcome).await;
    if context.known().is_taken_back {
        tell_taken_back(&context, &claim);
    } else {
        forget(&context.site, context.handle.id());
    }
    let link = context.known().link.take();
    context.end_tasks();
    if let Some(link) = link {
        link.close().await;
    }
    context.handle.end(report);
}

/// Writes down where the guest is now.
async fn settle(context: &Arc<Context>, claim: &Claim<Machine>, outcome: Outcome) {
    if outcome == Outcome::Moved {
        let (to, generation) = (context.peer.name.clone(), context.known().generation);
        claim.set_machine(None);
        let tunnels = std::mem::take(&mut context.known().tunnels);
        context.site.keep_paths(&context.guest.name, tunnels).await;
        let kept = claim.keep(|record| {
            record.moved_to = Some(to);
            record.generation = generation;
        });
        let done = context.promise(Step::Done);
        for error in [kept.map_err(anyhow::Error::from).err(), done.err()].into_iter().flatten() {
            tracing::error!(migration = context.handle.id(), "the move cannot be written down: {error:#}");
        }
    } else if context.machine.has_ended() {
        claim.set_machine(None);
        claim.set_trouble("QEMU ended while the guest was being moved");
    }
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
                Some(event) = told.recv() => self.migration.handle(event, context.now()),
                () = context.handle.cancelled(), if !has_cancelled => {
                    has_cancelled = true;
                    self.migration.handle(Event::Cancelled, context.now());
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
                () = sleep(wait.unwrap_or_default()), if wait.is_some() => self.migration.handle_timeout(context.now()),
            }
            self.act().await;
        }
    }

    /// An operator has said that the destination is gone for good: the guest is here, as the next generation.
    fn take_back(&mut self) {
        self.context.known().generation += 1;
        match self.context.promise(Step::TakenBack) {
            Ok(()) => {
                self.context.known().is_taken_back = true;
                self.context.warn("an operator has said that the guest is here");
                self.migration.handle(Event::Verdict { taken: false }, self.context.now());
            }
            Err(error) => self.context.warn(format!("the guest stays in doubt: {error:#}")),
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
            self.migration.handle(Event::Cancelled, now);
            return;
        }
        self.context.event(format!("phase {}", phase.name()));
        self.account.enter(phase, now);
        if phase == Phase::Recovering {
            self.account.forget_pause();
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
        let now = self.context.now();
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
                Event::Failed(op, format!("{error:#}"))
            }
            Err(stopped) if stopped.is_cancelled() => return,
            Err(panicked) => Event::Broken(format!("a defect of this program: {panicked}")),
        };
        if let Event::Finished(Op::FinishRam) = event {
            let mut known = self.context.known();
            let paused_at = known.paused_at;
            known.final_pass_ms = paused_at.map_or(0, |at| at.elapsed().as_millis() as u64);
        }
        self.migration.handle(event, now);
    }

    /// Events wake and time things; what QEMU's state is, queries say (M4).
    fn handle_qemu(&mut self, event: Result<crate::qmp::Event, broadcast::error::RecvError>) {
        let Ok(event) = event else { return };
        let phase = self.migration.phase();
        match event.name.as_str() {
            "STOP" if phase == Phase::PreCopy => {
                self.context.known().paused_at.get_or_insert_with(Instant::now);
                let raw = self.context.known().ram.as_ref().map_or(0, |ram| ram.bytes().0);
                self.account.note_pause(raw);
                self.context.event("the guest is paused");
            }
            "RESUME" if matches!(phase, Phase::StopAndCopy | Phase::Commitment) => {
                let reason = "QEMU let the guest go on by itself: its migration failed late";
                self.migration.handle(Event::Broken(reason.to_owned()), self.context.now());
            }
            "BLOCK_IO_ERROR" => self.context.warn(format!("a disk of the guest failed: {}", event.fields)),
            // Later it is we who end what the guest has left here.
            "SHUTDOWN" if phase < Phase::Commitment => {
                self.has_shut_down = true;
                self.context.event("the guest is shutting down");
            }
            "RESET" => self.context.event("the guest restarted itself"),
            _ => {}
        }
    }

    fn handle_heard(&mut self, heard: &Heard) {
        let now = self.context.now();
        if let Some(reason) = &heard.failed {
            let reason = format!("{}: {reason}", self.context.peer.name);
            self.migration.handle(Event::Broken(reason), now);
        } else if heard.gone && self.migration.phase().row().begins_again {
            let why = self.lost_link().unwrap_or_else(|| format!("{} has hung up", self.context.peer.name));
            self.lose_link(why);
        }
    }

    /// Why the link is over, if it is.
    fn lost_link(&self) -> Option<String> {
        let over = self.context.known().link.as_ref().and_then(|link| link.over())?;
        Some(format!("the link to {} ended: {over}", self.context.peer.name))
    }

    fn lose_link(&mut self, why: String) {
        self.context.event(why.clone());
        self.migration.handle(Event::LinkLost(why), self.context.now());
    }

    fn handle_end_of_qemu(&mut self) {
        // After the guest has moved that is what is wanted.
        if self.migration.phase() <= Phase::StopAndCopy {
            let reason = match self.has_shut_down {
                true => "the guest has shut itself down",
                false => "the guest's QEMU has ended; its log says more",
            };
            self.migration.handle(Event::Broken(reason.to_owned()), self.context.now());
        }
    }
}
