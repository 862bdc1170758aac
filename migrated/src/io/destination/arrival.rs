//! A guest that is on its way here: what was started for it, and how it is taken or given up.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use blockd::control::Command;
use blockd::io::sidecar_place;
use serde::{Deserialize, Serialize};
use tokio::time::sleep;
use tunnel::{Side, Tunnel};

use crate::io::journal_file::unix_ms;
use crate::io::machine::Machine;
use crate::io::registry::{Claim, MigrationHandle};
use crate::io::site::Site;
use crate::io::source::{move_of, tap_of};
use crate::journal::{Record, Step};
use crate::peer::{GIVEN_MAX, GivenAddresses, PathPrepare, Reserve, Reserved};
use crate::phase::Outcome;
use crate::qmp::ANNOUNCEMENTS;
use crate::report::{Abort, Report, Undone};
use crate::status::Status;

/// Between two attempts to start a guest that was taken.
const AGAIN: Duration = Duration::from_millis(250);

/// What of a guest on its way the daemon after this one has to know; the journal says how far it came.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct KeptArrival {
    /// Where it comes from.
    pub source: String,
    /// What was asked for.
    pub reserve: Reserve,
    /// What is kept for it.
    pub reserved: Reserved,
}

/// What came of starting a guest that was taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Start {
    /// It is up.
    Up,
    /// Its memory was lost before it ran: it is the source's again (M8).
    HandedBack(String),
}

/// One guest on its way.
pub struct Arrival {
    /// This host.
    pub site: Arc<Site>,
    /// Where it comes from.
    pub source: String,
    /// What was asked for.
    pub reserve: Reserve,
    /// What is kept for it.
    pub reserved: Reserved,
    /// What will be its machine.
    pub machine: Machine,
    /// Its entry among this host's migrations.
    pub handle: MigrationHandle,
    /// Its entry among this host's guests.
    pub claim: Claim<Machine>,
    /// One for each of its addresses.
    pub tunnels: Vec<Tunnel>,
}

impl Arrival {
    /// Makes this host's ends of the tunnels.
    pub async fn prepare_path(&mut self, order: &PathPrepare) -> Result<()> {
        let network =
            self.site.config.network.as_ref().context("this host has no [network] in its configuration")?;
        let ends = (network.tunnel_address, order.remote);
        let cards = self.reserve.guest.nics.iter().zip(&self.reserved.new_addresses);
        let with_address = cards.filter(|(nic, _)| nic.address.is_some());
        for (number, (nic, new_address)) in (order.tunnel..).zip(with_address) {
            let tap = tap_of(&self.machine, nic);
            let mut moved = move_of(nic, number, ends, self.site.bridge(&nic.bridge)?, tap)?;
            moved.new_address = *new_address;
            self.tunnels.push(Tunnel::prepare(Side::Destination, moved).await?);
        }
        Ok(())
    }

    /// Takes the guest's packets; they wait at its taps.
    pub async fn switch_path(&self) -> Result<()> {
        self.site.paths.leave(&self.reserve.guest.name).await?;
        for tunnel in &self.tunnels {
            tunnel.switch().await?;
        }
        Ok(())
    }

    /// Gives the guest's packets back.
    pub async fn switch_path_back(&self) -> Result<()> {
        for tunnel in &self.tunnels {
            tunnel.switch_back().await?;
        }
        self.site.paths.resume(&self.reserve.guest.name).await
    }

    /// Looks whether everything has arrived that M7 asks for, from this side: QEMU loaded and paused, disks sealed.
    pub async fn look(&self, generation: u64) -> Result<()> {
        if generation != self.reserve.generation {
            bail!("generation {generation} was asked for, {} is reserved", self.reserve.generation);
        }
        let memory = self.machine.qmp().query_migrate().await?;
        if memory.status != "completed" {
            bail!("QEMU says that the memory is {:?}, not completed", memory.status);
        }
        for disk in self.machine.disks() {
            let sealed = disk.status().await?.identity.sealed;
            if sealed != generation {
                bail!("disk {:?} is sealed for generation {sealed}, not {generation}", disk.id());
            }
        }
        Ok(())
    }

    /// A record of the journal.
    pub fn record(&self, step: Step) -> Record {
        Record {
            migration: self.reserve.migration.clone(),
            guest: self.reserve.guest.name.clone(),
            generation: self.reserve.generation,
            peer: self.source.clone(),
            step,
            unix_ms: unix_ms(),
        }
    }

    /// Starts the guest that has been taken. What fails is done again; only if QEMU has ended, and the guest's memory
    /// with it, before it was started, the source gets it back.
    pub async fn start(&self, run: bool) -> Start {
        while let Err(error) = self.try_to_start(run).await {
            tracing::error!(
                guest = self.reserve.guest.name,
                "cannot start the guest that was taken: {error:#}"
            );
            self.claim.set_trouble(&format!("it was taken, and cannot be started yet: {error:#}"));
            let is_started = self.site.journal.last_step(&self.reserve.migration) == Some(Step::Started);
            if self.machine.has_ended() && is_started {
                break;
            }
            if self.machine.has_ended() && self.hand_back().await.is_ok() {
                return Start::HandedBack(format!("its QEMU ended before the guest ran: {error:#}"));
            }
            sleep(AGAIN).await;
        }
        self.claim.set_trouble("");
        Start::Up
    }

    /// The source gets the guest back. Its disks' copies are removed before that is said: two of a disk must not be
    /// writable for one moment (M1).
    async fn hand_back(&self) -> Result<()> {
        self.machine.quit().await;
        for disk in self.machine.disks() {
            remove_copy(&disk.places().image);
        }
        self.promise(Step::HandedBack)
    }

    /// Journals a promise; it is durable when this returns.
    pub fn promise(&self, step: Step) -> Result<()> {
        tokio::task::block_in_place(|| self.site.journal.append(self.record(step)))?;
        Ok(())
    }

    async fn try_to_start(&self, run: bool) -> Result<()> {
        self.site.hold_points.pass("destination-start").await;
        let generation = self.reserve.generation;
        for disk in self.machine.disks() {
            if disk.status().await?.identity.role == "replica" {
                disk.call(Command::Promote { generation }).await?;
            }
        }
        // What is lost before this promise the source has still (M8).
        self.machine.qmp().state().await.context("its QEMU does not answer")?;
        self.promise(Step::Started)?;
        if run {
            self.machine.qmp().cont().await?;
            // QEMU has done so when it was loaded; the bridge may have forgotten since.
            self.announce().await?;
        }
        Ok(())
    }

    async fn announce(&self) -> Result<()> {
        self.machine.qmp().call("announce-self", ANNOUNCEMENTS.arguments()).await?;
        Ok(())
    }

    /// Writes down that the guest is here.
    pub async fn settle(&self) -> Result<()> {
        self.site.tend(&self.claim, self.machine.clone());
        let (guest, generation) = (self.reserve.guest.clone(), self.reserve.generation);
        let given_addresses = self.given_addresses();
        self.claim.keep(|record| {
            record.guest = guest;
            record.generation = generation;
            record.moved_to = None;
            record.came_from = Some(self.source.clone());
            record.given_addresses = given_addresses;
        })?;
        self.site.paths.came(&self.reserve.guest.name, self.tunnels.clone()).await;
        Ok(())
    }

    /// The addresses that sites have given the guest: those before, and this one.
    pub fn given_addresses(&self) -> GivenAddresses {
        let mut given = self.reserve.given_addresses.clone();
        for (nic, new) in self.reserve.guest.nics.iter().zip(&self.reserved.new_addresses) {
            let Some(new) = *new else { continue };
            let known = given.entry(nic.id.clone()).or_default();
            known.retain(|address| *address != new);
            // The newest first: where there are too many, the oldest is forgotten.
            known.insert(0, new);
            known.truncate(GIVEN_MAX);
        }
        given
    }

    /// The guest is here, and the visit of its source is over.
    pub async fn end_well(&self) {
        self.site.paths.come_home(&self.reserve.guest.name).await;
        self.handle.end(report_of(&self.handle.status(), Outcome::Moved, Vec::new()));
        self.site.refresh_reservations();
    }

    /// It could not be written down that the guest is here.
    pub fn say_unsettled(&self, error: &anyhow::Error) {
        let trouble = format!("it is here, which cannot be written down in state_dir: {error:#}");
        tracing::error!(guest = self.reserve.guest.name, "{trouble}");
        self.claim.set_trouble(&trouble);
    }

    /// The daemon after this one need not know of it any more.
    fn forget(&self) {
        if let Err(error) = self.site.arrivals_kept.remove(&self.reserve.guest.name) {
            tracing::warn!(migration = self.handle.id(), %error, "cannot forget a guest that was on its way");
        }
    }

    /// Ends everything that was started for a guest that does not come. Gives the record of it.
    pub async fn give_up(self, reason: &str, keep_disks: bool) -> Abort {
        let mut undone = vec![Undone::ProcessesEnded];
        let phase = self.handle.status().phase;
        if let Err(error) = self.switch_path_back().await {
            tracing::error!(migration = self.handle.id(), "cannot give the packets back: {error:#}");
        }
        for tunnel in &self.tunnels {
            if let Err(error) = tunnel.remove().await {
                tracing::error!(migration = self.handle.id(), "cannot remove a tunnel: {error:#}");
            }
        }
        self.machine.quit().await;
        if !keep_disks {
            for disk in self.machine.disks() {
                remove_copy(&disk.places().image);
            }
        }
        if !self.tunnels.is_empty() {
            undone.push(Undone::TunnelsRemoved);
        }
        undone.push(if keep_disks { Undone::CopiesKept } else { Undone::CopiesRemoved });
        self.forget();
        self.site.release(&self.reserve.guest.name);
        undone.push(Undone::ReservationReleased);
        let abort = Abort { undone, ..Abort::of(phase, reason) };
        tracing::warn!(
            migration = self.handle.id(),
            guest = self.reserve.guest.name,
            source = self.source,
            phase = phase.name(),
            cause = reason,
            undone = abort.undone(),
            "the guest does not come"
        );
        self.claim.leave();
        abort
    }
}

/// What this host keeps of a migration whose source has the whole account.
pub fn report_of(status: &Status, outcome: Outcome, reasons: Vec<String>) -> Report {
    status.to_report(outcome, reasons, (unix_ms() / 1000).saturating_sub(status.elapsed_ms / 1000))
}

/// Removes a copy that nobody will go on with, and what blockd keeps beside it.
pub fn remove_copy(image: &Path) {
    if let Err(error) = sidecar_place::remove_image(image) {
        tracing::warn!(image = %image.display(), %error, "cannot remove what is left of a copy");
    }
}
