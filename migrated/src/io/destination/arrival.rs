//! A guest that is on its way here: what was started for it, and how it is taken or given up.

use std::path::Path;
use std::sync::Arc;

use anyhow::{Context as _, Result, bail};
use blockd::control::Command;
use blockd::io::sidecar_place;
use serde::{Deserialize, Serialize};
use tunnel::{Side, Tunnel};

use crate::io::journal_file::unix_ms;
use crate::io::machine::Machine;
use crate::io::registry::{Claim, MigrationHandle};
use crate::io::site::Site;
use crate::io::source::{move_of, tap_of};
use crate::peer::{GIVEN_MAX, GivenAddresses, PathPrepare, Reserve, Reserved};
use crate::phase::Outcome;
use crate::qmp::ANNOUNCEMENTS;
use crate::report::{Abort, Report, Undone};
use crate::status::Status;

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
        if !memory.is_completed() {
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

    /// Makes the disks this host's, and asks whether QEMU is there: what is lost before *started* is promised the source has
    /// still (M8).
    pub async fn promote(&self) -> Result<()> {
        self.site.hold_points.pass("destination-start").await;
        let generation = self.reserve.generation;
        for disk in self.machine.disks() {
            if disk.status().await?.identity.is_replica() {
                disk.call(Command::Promote { generation }).await?;
            }
        }
        self.machine.qmp().state().await.context("its QEMU does not answer")?;
        Ok(())
    }

    /// Has the guest go on, if it is to.
    pub async fn run(&self, run: bool) -> Result<()> {
        if run {
            self.machine.qmp().cont().await?;
            // QEMU has done so when it was loaded; the bridge may have forgotten since.
            self.announce().await?;
        }
        Ok(())
    }

    /// Ends QEMU, and removes the disks' copies: before a guest is handed back nobody may be able to write them (M1).
    pub async fn remove_copies(&self) {
        self.machine.quit().await;
        for disk in self.machine.disks() {
            remove_copy(&disk.places().image);
        }
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
