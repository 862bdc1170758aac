//! The destination's side of a migration, done: one visit a link, its requests one after another.
//!
//! ```text
//! link ─┬─ control ─► requests ─► arrival (machine, disks, tunnels) ─► answers, notices
//!       ├─ disk n  ◄──► blockd's replica socket
//!       └─ ram     ───► QEMU's incoming socket
//! ```
//!
//! When the link ends before the guest was taken, everything is given up; after that it is started whatever the link
//! does (M2). Which request is allowed when stands in `incoming`.

mod arrival;
mod names;
mod reserve;
mod recovery;
mod taken_back;
mod promises;
pub mod ports;
mod trial;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use tokio::net::UnixStream;
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio::time::{interval, timeout};

use crate::incoming::{Stage, allow};
use crate::io::link::{Channel, Link, copy_both};
use crate::io::machine::Machine;
use crate::io::peer_channel::{PeerServer, PeerWriter};
use crate::io::ram::receive;
use crate::io::site::Site;
use crate::link::Label;
use crate::peer::{Answer, Asked, Notice, Request};
use crate::phase::{Outcome, Phase};
use crate::report::Report;
use crate::status::Status;

use self::arrival::{Arrival, Start, report_of};
use self::ports::{Ports, loaded};
use self::trial::Trial;

pub use self::arrival::KeptArrival;
pub use self::recovery::recover;

/// How long a new link may take to say what it is for.
const OPEN_LIMIT: Duration = Duration::from_secs(10);

/// How often QEMU is asked whether it holds the guest, should its event be lost.
const ASKED_EVERY: Duration = Duration::from_millis(50);

/// How often it is looked whether a source is still heard.
const QUIET_LOOKED: Duration = Duration::from_secs(1);

/// A source that has not been heard for so long has given up what it had left to ask for: its own deadline for that has
/// passed (`phase`).
const QUIET_LIMIT: Duration = Duration::from_secs(60);

/// Serves a link until it ends.
pub async fn serve(site: Arc<Site>, link: Link) {
    let source = link.peer().to_owned();
    match visit(site, link).await {
        Ok(()) => tracing::debug!(source, "the link ended"),
        Err(error) => tracing::info!(source, "the link ended: {error:#}"),
    }
}

async fn visit(site: Arc<Site>, link: Link) -> Result<()> {
    let (label, channel) = timeout(OPEN_LIMIT, link.accept()).await.context("it opens no channel")??;
    if label != Label::Control {
        bail!("its first channel is {label:?} and not the control channel");
    }
    let server = PeerServer::start(channel);
    let writer = server.writer();
    let mut visit = Visit {
        site,
        link,
        writer,
        stage: Stage::Nothing,
        arrival: None,
        relays: JoinSet::new(),
        is_readdressed: false,
        replaced: None,
        ports: None,
        trial: None,
    };
    let ended = visit.run(server).await;
    visit.leave("the link ended").await;
    ended
}

/// One source's visit.
struct Visit {
    site: Arc<Site>,
    link: Link,
    writer: PeerWriter,
    stage: Stage,
    arrival: Option<Arrival>,
    relays: JoinSet<()>,
    /// The source has asked for the names to lead here.
    is_readdressed: bool,
    /// Told when the source begins anew, or has nothing left to ask for.
    replaced: Option<Arc<Notify>>,
    /// Of what is to come.
    ports: Option<Ports>,
    /// Of a guest that was only looked at.
    trial: Option<Trial>,
}

impl Visit {
    async fn run(&mut self, mut server: PeerServer) -> Result<()> {
        loop {
            let awaits_memory = self.stage == Stage::Reserved;
            let machine = self.arrival.as_ref().map(|arrival| arrival.machine.clone());
            let watched = machine.clone();
            let (replaced, ports) = (self.replaced.clone(), self.ports.clone());
            tokio::select! {
                () = async { replaced.expect("it is there in these stages").notified().await },
                    if self.replaced.is_some() && matches!(self.stage, Stage::Reserved | Stage::Loaded | Stage::Running) =>
                {
                    if self.stage < Stage::Taken {
                        self.give_up("the source has begun anew, or given up", true).await;
                    }
                    return Ok(());
                }
                // Whatever became of its source: the guest is here, and others may do something with it.
                () = quiet(&self.link), if self.stage == Stage::Running => return Ok(()),
                call = server.next() => match call {
                    Some(asked) => self.handle(asked).await?,
                    None => return Ok(()),
                },
                accepted = self.link.accept() => {
                    let (label, channel) = accepted?;
                    self.connect(label, channel).await?;
                }
                loaded = async { loaded(&machine.expect("it is there"), &ports.expect("so are its ports")).await },
                    if awaits_memory && self.arrival.is_some() =>
                {
                    self.handle_memory(loaded).await?;
                }
                () = async { watched.as_ref().expect("it is there in these stages").qmp().closed().await },
                    if watched.is_some() && self.stage == Stage::Loaded =>
                {
                    self.fail("the destination's QEMU has ended").await?;
                }
            }
        }
    }

    async fn handle(&mut self, asked: Asked) -> Result<()> {
        let call = match asked {
            Asked::Call(call) => call,
            Asked::Unknown { id, reason } => {
                tracing::warn!(source = self.link.peer(), reason, "a request is refused");
                return Ok(self.writer.answer(id, Answer::Refused { reasons: vec![reason] }).await?);
            }
        };
        let answer = match allow(self.stage, &call.request) {
            Ok(()) => self.perform(call.id, call.request).await,
            Err(reason) => Some(match call.request {
                Request::Take { migration, generation, .. } => self.refuse(migration, generation, reason),
                _ => Answer::Refused { reasons: vec![reason] },
            }),
        };
        if let Some(answer) = answer {
            self.writer.answer(call.id, answer).await?;
        }
        Ok(())
    }

    /// Does what a request asks for. None: it has been answered already.
    async fn perform(&mut self, id: u64, request: Request) -> Option<Answer> {
        let done = |result: Result<()>| match result {
            Ok(()) => Answer::Done {},
            Err(error) => Answer::Refused { reasons: vec![format!("{error:#}")] },
        };
        self.site.hold_points.pass(&format!("destination-{}", request.name())).await;
        Some(match request {
            Request::Reserve(wanted) => self.reserve(*wanted).await,
            Request::PathPrepare(order) => match self.arrival.as_mut() {
                Some(arrival) => done(arrival.prepare_path(&order).await),
                None => nothing_reserved(),
            },
            Request::PathTry(order) => match self.trial.as_mut() {
                Some(trial) => done(trial.make(&order).await),
                None => nothing_reserved(),
            },
            Request::PathSwitch {} => match &self.arrival {
                Some(arrival) => done(arrival.switch_path().await),
                None => nothing_reserved(),
            },
            Request::PathBack {} => match &self.arrival {
                Some(arrival) => done(arrival.switch_path_back().await),
                None => nothing_reserved(),
            },
            Request::Take { migration, generation, run } => {
                return self.take(id, &migration, generation, run).await;
            }
            Request::Verdict { migration, generation } => self.verdict(migration, generation),
            Request::Concluded { migration } => done(self.conclude(&migration).await),
            Request::Consult { migration } => {
                Answer::Consulted { promised: self.site.journal.last_step(&migration) }
            }
            Request::Introduce {} => Answer::Introduced { version: env!("CARGO_PKG_VERSION").to_owned() },
            Request::TakenBack { migration, guest, generation } => {
                done(taken_back::obey(&self.site, self.link.peer(), &migration, &guest, generation).await)
            }
            Request::Readdress {} => match &self.arrival {
                Some(arrival) => {
                    self.is_readdressed = true;
                    let (names, troubles) = names::readdress(arrival).await;
                    Answer::Readdressed { names, troubles }
                }
                None => nothing_reserved(),
            },
            Request::Abort { reason, keep_disks } => {
                self.give_up(&reason, keep_disks).await;
                Answer::Done {}
            }
            Request::Mirror(status) => {
                self.mirror(*status);
                Answer::Done {}
            }
        })
    }

    async fn reserve(&mut self, wanted: crate::peer::Reserve) -> Answer {
        let looked = wanted.dry_run.then(|| Trial::new(&self.site, wanted.clone()));
        match reserve::reserve(&self.site, self.link.peer(), wanted).await {
            Ok(reserve::Kept::Looked(reserved)) => {
                self.end_trial().await;
                self.trial = looked;
                Answer::Reserved(reserved)
            }
            Ok(reserve::Kept::Arrival(arrival)) => {
                let reserved = arrival.reserved.clone();
                self.replaced = Some(self.site.note_arrival(&arrival.reserve.guest.name, &arrival.source));
                self.ports = Some(Ports::of(&arrival.machine));
                self.arrival = Some(*arrival);
                self.stage = Stage::Reserved;
                Answer::Reserved(reserved)
            }
            Err(reasons) => {
                tracing::warn!(source = self.link.peer(), ?reasons, "a guest is refused");
                Answer::Refused { reasons }
            }
        }
    }

    /// Connects a channel of the source with what it is for.
    async fn connect(&mut self, label: Label, channel: Channel) -> Result<()> {
        // blockd dials again when its stream ends; here nobody waits for it any more.
        let Some(arrival) = &self.arrival else { return Ok(()) };
        match label {
            Label::Disk(number) => {
                let described = arrival.reserve.guest.disks.get(usize::from(number));
                let disk = described.and_then(|described| {
                    arrival.machine.disks().iter().find(|disk| disk.id() == described.id)
                });
                let disk =
                    disk.with_context(|| format!("a channel came for disk {number}, which is not reserved"))?;
                let stream = UnixStream::connect(&disk.places().replica)
                    .await
                    .context("the disk's copy does not answer")?;
                self.relays.spawn(async move {
                    if let Err(error) = copy_both(stream, channel).await {
                        tracing::debug!(number, %error, "a disk's stream ended");
                    }
                });
            }
            Label::Ram(_) => {
                let socket = incoming_socket(&arrival.machine);
                let stream = UnixStream::connect(&socket).await.context("QEMU does not take the memory")?;
                let ports = self.ports.clone().context("memory came for nobody")?;
                self.relays.spawn(async move {
                    // Who waits for the memory hears of it, and ends this.
                    if ports.pass().await.is_err() {
                        return std::future::pending().await;
                    }
                    if let Err(error) = receive(channel, stream).await {
                        tracing::debug!(%error, "the memory's stream ended");
                    }
                });
            }
            Label::Control => bail!("a second control channel"),
        }
        Ok(())
    }

    async fn handle_memory(&mut self, loaded: Result<()>) -> Result<()> {
        match loaded {
            Ok(()) => {
                self.stage = Stage::Loaded;
                Ok(self.writer.notice(Notice::Loaded {}).await?)
            }
            Err(error) => self.fail(&format!("{error:#}")).await,
        }
    }

    /// The guest cannot come: says so, and gives up.
    async fn fail(&mut self, reason: &str) -> Result<()> {
        self.give_up(reason, true).await;
        Ok(self.writer.notice(Notice::Failed { reason: reason.to_owned() }).await?)
    }

    async fn give_up(&mut self, reason: &str, keep_disks: bool) {
        self.stage = Stage::Over;
        self.relays.abort_all();
        self.end_trial().await;
        self.replaced = None;
        if let Some(arrival) = self.arrival.take() {
            let name = arrival.reserve.guest.name.clone();
            let handle = arrival.handle.clone();
            let status = handle.status();
            let abort = arrival.give_up(reason, keep_disks).await;
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

    async fn start(&mut self, run: bool) {
        let arrival = self.arrival.as_ref().expect("it was taken");
        if let Start::HandedBack(reason) = arrival.start(run).await {
            self.give_up(&reason, false).await;
            let _ = self.writer.notice(Notice::Failed { reason }).await;
            return;
        }
        self.stage = Stage::Running;
        let _ = self.writer.notice(Notice::Running {}).await;
        let _ = arrival.handle.enter(Phase::Readdress);
        self.relays.abort_all();
        // What fails now is done again when the source says that all is over, or by the daemon after this one.
        if let Err(error) = arrival.settle().await {
            arrival.say_unsettled(&error);
        }
    }

    fn mirror(&self, source: Status) {
        let Some(arrival) = &self.arrival else { return };
        arrival.handle.update(|status| {
            *status = Status { incoming: true, id: status.id.clone(), report: None, outcome: None, ..source };
        });
    }

    /// The link has ended.
    async fn leave(mut self, reason: &str) {
        if self.stage < Stage::Taken {
            self.give_up(reason, true).await;
        } else {
            self.let_go().await;
        }
    }

    /// The guest is here, and its source asks for nothing more: others may do something with it.
    async fn let_go(&mut self) {
        self.stage = Stage::Over;
        self.replaced = None;
        if let Some(arrival) = self.arrival.take() {
            self.site.forget_arrival(&arrival.reserve.guest.name);
            if !self.is_readdressed {
                names::readdress_unasked(&arrival).await;
            }
            arrival.end_well().await;
        }
    }
}

/// Waits until nothing has been heard of the source for so long that it has given up what it had left to ask for.
async fn quiet(link: &Link) {
    let mut tick = interval(QUIET_LOOKED);
    while Duration::from_millis(link.status().quiet_ms) < QUIET_LIMIT {
        tick.tick().await;
    }
}

/// Where QEMU waits for the memory.
fn incoming_socket(machine: &Machine) -> PathBuf {
    machine.layout().runtime().join("incoming")
}

fn nothing_reserved() -> Answer {
    Answer::Refused { reasons: vec!["nothing is reserved for this migration".to_owned()] }
}
