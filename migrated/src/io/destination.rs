//! The destination's side of a migration, done: one visit a link, its requests one after another.
//!
//! ```text
//! link ─┬─ control ─► requests ─► crate::destination ─► perform: arrival (machine, disks, tunnels) ─► answers, notices
//!       ├─ disk n  ◄──► blockd's replica socket
//!       └─ ram     ───► QEMU's incoming socket
//! ```
//!
//! It decides neither what is allowed nor what comes next: what happens goes to the decider as it is.

mod arrival;
mod names;
mod reserve;
mod recovery;
mod taken_back;
mod perform;
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

use crate::destination::{Destination, Event};
use crate::io::link::{Channel, Link, copy_both};
use crate::io::machine::Machine;
use crate::io::peer_channel::{PeerServer, PeerWriter};
use crate::io::ram::receive;
use crate::io::site::Site;
use crate::link::Label;
use crate::peer::{Answer, Asked};

use self::arrival::Arrival;
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

/// How long a link without a connection is kept over which no guest comes.
const UNRESERVED_LIMIT: Duration = Duration::from_secs(30);

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
    let decider = Destination::new(link.peer());
    let mut visit = Visit::new(site, link.peer().to_owned(), decider, Some(server.writer()));
    let ended = visit.run(&link, server).await;
    let why = if visit.is_replaced { "the source has begun anew, or given up" } else { "the link ended" };
    visit.handle(Event::LinkEnded(why.to_owned())).await;
    ended
}

/// One source's visit. One that a daemon takes up that was started anew has no link.
struct Visit {
    site: Arc<Site>,
    peer: String,
    decider: Destination,
    /// None: there is no link, and nobody to be told.
    writer: Option<PeerWriter>,
    arrival: Option<Arrival>,
    relays: JoinSet<()>,
    /// Told when the source begins anew, or has nothing left to ask for.
    replaced: Option<Arc<Notify>>,
    /// It was.
    is_replaced: bool,
    /// Of what is to come.
    ports: Option<Ports>,
    /// Of a guest that was only looked at.
    trial: Option<Trial>,
}

impl Visit {
    fn new(site: Arc<Site>, peer: String, decider: Destination, writer: Option<PeerWriter>) -> Self {
        Self {
            site,
            peer,
            decider,
            writer,
            arrival: None,
            relays: JoinSet::new(),
            replaced: None,
            is_replaced: false,
            ports: None,
            trial: None,
        }
    }

    async fn run(&mut self, link: &Link, mut server: PeerServer) -> Result<()> {
        let lease = Duration::from_millis(self.site.config.migration.lease_ms);
        loop {
            // What was only asked over a link can be asked over another: nobody takes up the room of links for that.
            link.set_patience(if self.arrival.is_some() { lease } else { UNRESERVED_LIMIT.min(lease) });
            let machine = self.arrival.as_ref().map(|arrival| arrival.machine.clone());
            let expected = machine.clone().zip(self.ports.clone()).filter(|_| self.decider.awaits_memory());
            let watched = machine.filter(|_| self.decider.watches_qemu());
            let replaced = self.replaced.clone().filter(|_| self.decider.may_be_replaced());
            tokio::select! {
                Some(()) = when(replaced, async |replaced| replaced.notified().await) => {
                    self.is_replaced = true;
                    return Ok(());
                }
                // Whatever became of its source: the guest is here, and others may do something with it.
                () = quiet(link), if self.decider.ends_when_quiet() => return Ok(()),
                call = server.next() => match call {
                    Some(asked) => self.handle_asked(asked).await?,
                    None => return Ok(()),
                },
                accepted = link.accept() => {
                    let (label, channel) = accepted?;
                    self.connect(label, channel).await?;
                }
                Some(loaded) = when(expected, async |(machine, ports)| loaded(&machine, &ports).await) => {
                    self.handle(Event::Loaded(loaded.map_err(|error| format!("{error:#}")))).await;
                }
                Some(()) = when(watched, async |machine| machine.qmp().closed().await) => {
                    self.handle(Event::QemuEnded).await;
                }
            }
        }
    }

    async fn handle_asked(&mut self, asked: Asked) -> Result<()> {
        match asked {
            Asked::Call(call) => {
                let migration = call.request.migration();
                // In this order: what has been started since is at least written down.
                let is_starting = migration.is_some_and(|migration| self.site.is_starting(migration));
                let account =
                    migration.map(|migration| self.site.journal.account(migration)).unwrap_or_default();
                let (id, request) = (call.id, Box::new(call.request));
                self.handle(Event::Asked { id, request, account, is_starting }).await;
            }
            Asked::Unknown { id, reason } => {
                tracing::warn!(source = self.peer, reason, "a request is refused");
                self.answer(id, Answer::Refused { reasons: vec![reason] }).await;
            }
        }
        Ok(())
    }

    /// Tells the decider what happened, and does what comes of it.
    async fn handle(&mut self, event: Event) {
        self.decider.handle(event);
        self.act().await;
    }

    /// Does what is to be done, one thing after another.
    async fn act(&mut self) {
        while let Some(action) = self.decider.poll_action() {
            if let Some(event) = self.perform(action).await {
                self.decider.handle(event);
            }
        }
    }

    /// Whether it is heard changes nothing: a link that does not carry it has ended.
    async fn answer(&self, id: u64, answer: Answer) {
        if let Some(writer) = &self.writer
            && let Err(error) = writer.answer(id, answer).await
        {
            tracing::debug!(source = self.peer, %error, "an answer does not leave");
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
}

/// What comes of `wait` with something, where it is there. Where it is not, nothing ever does.
async fn when<T, R>(what: Option<T>, wait: impl AsyncFnOnce(T) -> R) -> Option<R> {
    match what {
        Some(what) => Some(wait(what).await),
        None => std::future::pending().await,
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
