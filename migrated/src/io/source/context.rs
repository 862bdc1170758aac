//! What the operations of one outgoing migration share: what was asked, what was found, and what is held open.

use std::collections::BTreeMap;
use std::future::Future;
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow};
use blockd::control::{Sealed, Status as DiskStatus};
use blockd::replica::encoding::Compression;
use serde::{Deserialize, Serialize};
use tokio::sync::{Mutex as AsyncMutex, watch};
use tokio::task::{AbortHandle, JoinSet};
use tunnel::Tunnel;

use crate::convergence::TimeLimit;
use crate::costs::{Costs, Tally};
use crate::guest::{Disk as DiskOf, Guest};
use crate::io::disk::{Disk, DiskError};
use crate::io::journal_file::Durable;
use crate::io::keys::Peer;
use crate::io::link::Link;
use crate::io::machine::Machine;
use crate::io::peer_channel::PeerClient;
use crate::io::ram::RamOut;
use crate::io::registry::MigrationHandle;
use crate::io::site::Site;
use crate::journal::{Step, Subject};
use crate::peer::Reserved;
use crate::progress::Series;
use crate::quantity::ms;
use crate::report::{PauseEnd, ReachReport, Undone};
use crate::transport::Transport;

/// What was asked for, with the host's defaults filled in.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Options {
    /// The address and the names change with the site.
    pub wan: bool,
    /// How long the guest may stand still.
    pub max_downtime: Duration,
    /// Memory starts when what is left of the disks takes this long.
    pub ram_start: Duration,
    /// What carries the link; none: as this host is configured.
    #[serde(default)]
    pub transport: Option<Transport>,
    /// The guest stands still for the whole move.
    #[serde(default)]
    pub cold: bool,
    /// Whether to compress.
    #[serde(default)]
    pub compression: Compression,
    /// How long it may take.
    #[serde(default)]
    pub time_limit: TimeLimit,
}

/// What the destination has said so far.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Heard {
    /// Its QEMU holds the whole guest.
    pub loaded: bool,
    /// The guest runs there.
    pub running: bool,
    /// Something failed there.
    pub failed: Option<String>,
    /// Its control channel has ended.
    pub gone: bool,
}

/// Whether a migration is kept for the daemon after this one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Kept {
    /// Nothing was promised yet.
    #[default]
    NotYet,
    /// It is.
    Open,
    /// It has ended.
    Over,
}

/// The context of one migration.
pub struct Context {
    /// This host.
    pub site: Arc<Site>,
    /// The migration's entry.
    pub handle: MigrationHandle,
    /// The guest's machine.
    pub machine: Machine,
    /// The guest.
    pub guest: Guest,
    /// Where it goes.
    pub peer: Peer,
    /// How it goes.
    pub options: Options,
    /// When it was asked for.
    pub begun: Instant,
    /// What the destination has said.
    pub heard: watch::Sender<Heard>,
    /// What of it is kept for the daemon after this one.
    pub(super) kept: Mutex<Kept>,
    known: Mutex<Known>,
    /// Who looks at the disks, so that none counts what another has counted since.
    look: AsyncMutex<()>,
    /// Relays and listeners that live as long as the migration.
    tasks: Mutex<JoinSet<()>>,
}

/// What operations have found and made.
#[derive(Default)]
pub struct Known {
    /// The guest ran when it was asked for; otherwise it stays paused.
    pub ran: bool,
    /// Why it cannot move, as far as this host knows: said together with what the destination says.
    pub reasons: Vec<String>,
    /// Its addresses that answered a ping before it moved.
    pub answered_before: Vec<Ipv4Addr>,
    /// What became of them after it had moved.
    pub reached: Vec<ReachReport>,
    /// The generation of its disks after the move.
    pub generation: u64,
    /// What runs the guest's code.
    pub accel: String,
    /// The link.
    pub link: Option<Link>,
    /// An operator has said that the guest is here.
    pub is_taken_back: bool,
    /// The guest is at home where it goes.
    pub to_home: bool,
    /// A daemon before this one has begun it.
    pub is_taken_up: bool,
    /// Links so far: what an earlier one says does not count any more.
    pub links: u32,
    /// *Releasing* is durable, and was promised while the link of this number was there.
    pub released: Option<(Durable, u32)>,
    /// Who carries the disks' streams into the link.
    pub carriers: Vec<AbortHandle>,
    /// The destination's daemon.
    pub client: Option<PeerClient>,
    /// What it keeps for the guest.
    pub reserved: Option<Reserved>,
    /// One for each of the guest's addresses.
    pub tunnels: Vec<Tunnel>,
    /// The memory's way into the link.
    pub ram: Option<RamOut>,
    /// What it has cost so far.
    pub costs: Costs,
    /// When the destination said that the guest runs.
    pub running_at: Option<Duration>,
    /// Milliseconds from the pause until QEMU had sent the last memory.
    pub final_pass_ms: u64,
    /// Smallest round trip and best goodput of the link that were seen.
    pub link_best: Option<(u64, u64)>,
    /// Round trips that were waited for while the guest was paused.
    pub round_trips: u32,
    /// Each disk's seal that was complete.
    pub seals: BTreeMap<String, Seal>,
    /// Deltas of each disk over time.
    pub deltas: BTreeMap<String, Series>,
    /// What happened, with the time since the request.
    pub events: Vec<(u64, String)>,
    /// The guest's packets were turned to the destination.
    pub is_switched: bool,
    /// Why the guest's packets have not got their way back yet.
    pub path_trouble: Option<anyhow::Error>,
    /// Something of its path could not be removed, which is tried again when the migration has ended.
    pub is_mended_later: bool,
    /// What was undone.
    pub undone: Vec<Undone>,
}

/// The seal of a disk.
#[derive(Clone, Copy, Debug)]
pub struct Seal {
    /// Milliseconds that it took, as seen from here.
    pub took_ms: u64,
    /// What its blockd said.
    pub sealed: Sealed,
}

impl Known {
    /// A link was made before, by this daemon or the one before it.
    pub fn has_begun(&self) -> bool {
        self.links > 0 || self.is_taken_up
    }

    /// Counts what link and memory have carried since the last look at them. To be called before one of them goes.
    pub fn count_carried(&mut self) -> &Tally {
        let tally = &mut self.costs.tally;
        if let Some(link) = &self.link {
            tally.handle_link(&link.status());
        }
        if let Some(ram) = &self.ram {
            tally.handle_memory(ram.bytes());
        }
        tally
    }
}

impl Context {
    /// The context of a migration that has just been asked for.
    pub fn new(
        site: Arc<Site>,
        handle: MigrationHandle,
        machine: Machine,
        guest: Guest,
        peer: Peer,
        options: Options,
    ) -> Self {
        Self {
            site,
            handle,
            machine,
            guest,
            peer,
            options,
            begun: Instant::now(),
            heard: watch::Sender::default(),
            kept: Mutex::default(),
            known: Mutex::default(),
            look: AsyncMutex::default(),
            tasks: Mutex::new(JoinSet::new()),
        }
    }

    /// Time since the request.
    pub fn now(&self) -> Duration {
        self.begun.elapsed()
    }

    /// What was found so far. Held for a look or a change, never while something is awaited.
    pub fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().expect("nothing panics while it holds what is known")
    }

    /// The guest stands still from now on.
    pub fn note_pause(&self) {
        let phase = self.handle.status().phase;
        self.known().costs.pauses.begin(phase, self.now());
    }

    /// The destination has said that the guest runs.
    pub fn note_running(&self) {
        let now = self.now();
        let mut known = self.known();
        known.running_at.get_or_insert(now);
        known.costs.pauses.end(PauseEnd::Moved, now);
    }

    /// The link, once it is made.
    pub fn link(&self) -> Result<Link> {
        self.known().link.clone().context("there is no link yet")
    }

    /// The destination's daemon, once there is a link.
    pub fn client(&self) -> Result<PeerClient> {
        self.known().client.clone().context("there is no link yet")
    }

    /// The disks that are copied: number in the description, description, daemon.
    pub fn copied_disks(&self) -> Vec<(u16, DiskOf, Disk)> {
        let of = |id: &str| self.machine.disks().iter().find(|disk| disk.id() == id).cloned();
        let numbered = (0..).zip(&self.guest.disks);
        numbered.filter_map(|(number, disk)| Some((number, disk.clone(), of(&disk.id)?))).collect()
    }

    /// What a disk's daemon says of itself; what has gone over of it counts.
    pub async fn look_at(&self, id: &str, disk: &Disk) -> Result<DiskStatus, DiskError> {
        let _turn = self.look.lock().await;
        let status = disk.status().await?;
        self.known().costs.tally.handle_disk(id, &status.replication);
        Ok(status)
    }

    /// A path for a socket of this migration, nothing at it.
    pub fn socket(&self, name: &str) -> Result<PathBuf> {
        let path = self.machine.layout().runtime().join(name);
        match std::fs::remove_file(&path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(anyhow!(error).context(format!("cannot remove {}", path.display())))
            }
            _ => Ok(path),
        }
    }

    /// Runs a task until the migration ends.
    pub fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) -> AbortHandle {
        self.tasks.lock().expect("nothing panics while it holds the tasks").spawn(task)
    }

    /// Says something that the destination has said over the link of this number, unless that is over and replaced.
    pub fn hear(&self, link: u32, change: impl FnOnce(&mut Heard)) {
        let known = self.known();
        if known.links == link {
            self.heard.send_modify(change);
        }
    }

    /// Ends all tasks.
    pub fn end_tasks(&self) {
        self.tasks.lock().expect("nothing panics while it holds the tasks").abort_all();
    }

    /// Notes something that happened, for the report and the log.
    pub fn event(&self, what: impl Into<String>) {
        let what = what.into();
        let at_ms = ms(self.now());
        tracing::info!(migration = self.handle.id(), at_ms, "{what}");
        self.known().events.push((at_ms, what));
    }

    /// Notes something worth knowing that stops nothing.
    pub fn warn(&self, what: impl Into<String>) {
        let what = what.into();
        self.event(format!("warning: {what}"));
        self.handle.update(|status| {
            if !status.warnings.contains(&what) {
                status.warnings.push(what);
            }
        });
    }

    /// Notes what has happened to the link.
    pub fn hear_link(&self, link: &Link) {
        for news in link.news() {
            if news.is_warning { self.warn(news.text) } else { self.event(news.text) }
        }
    }

    /// Notes something that was undone, once.
    pub fn undone(&self, what: Undone) {
        let mut known = self.known();
        if !known.undone.contains(&what) {
            known.undone.push(what);
        }
    }

    /// Counts a round trip that the paused guest waits for.
    pub fn count_round_trip(&self) {
        let mut known = self.known();
        known.round_trips += u32::from(known.costs.pauses.since().is_some());
    }

    /// QEMU has sent the last memory.
    pub fn note_final_pass(&self) {
        let now = self.now();
        let mut known = self.known();
        known.final_pass_ms = known.costs.pauses.since().map_or(0, |since| ms(now.saturating_sub(since)));
    }

    /// Journals a promise; it is durable when this returns.
    pub fn promise(&self, step: Step) -> Result<Durable> {
        let subject = Subject {
            migration: self.handle.id().to_owned(),
            guest: self.guest.name.clone(),
            generation: self.known().generation,
            peer: self.peer.name.clone(),
        };
        Ok(self.site.journal.promise(subject, step)?)
    }
}
