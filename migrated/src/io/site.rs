//! One host as its daemon's parts share it: configuration, guests, migrations, journal, peers, promises of room.
//!
//! ```text
//! adopt (after a restart) ─┐
//! run, an arrival ─────────┴─► tend: the machine is the guest's ─► it ends by itself: cleaned up, and said why
//! ```
//!
//! Knows nothing of those who use it: the API's answers, the two ends of a migration.

mod paths;
mod network;

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use anyhow::{Context as _, Result};
use data_encoding::HEXLOWER;
use ring::rand::{SecureRandom, SystemRandom};
use tokio::sync::Notify;
use tracing::warn;

use crate::config::Config;
use crate::guest::Guest;
use crate::host::{Reservation, Reservations, growth_bytes};
use crate::io::hold::HoldPoints;
use crate::io::host::{image_bytes, resident_mib};
use crate::io::journal_file::JournalFile;
use crate::io::link::LinkConfig;
use crate::io::machine::{ExitReason, Machine};
use crate::io::registry::{Claim, Folder, Guests, Migrations, Task};
use crate::peer::{GIVEN_MAX, GivenAddresses};

pub use paths::{KeptPaths, KeptTunnel, Paths, found};

/// One host.
pub struct Site {
    /// As it is configured.
    pub config: Config,
    /// Where its operations can be held.
    pub hold_points: HoldPoints,
    /// Its guests.
    pub guests: Guests<Machine>,
    /// Its migrations, at either end.
    pub migrations: Migrations,
    /// What it has promised to other hosts.
    pub journal: JournalFile,
    /// Migrations that are under way from here, for the daemon after this one.
    pub departures: Folder,
    /// Likewise those that are under way to here.
    pub arrivals_kept: Folder,
    /// Its key, its peers, and how it reaches them.
    pub link: LinkConfig,
    reservations: Mutex<Reservations>,
    /// Addresses of the pool that guests have.
    addresses: Mutex<BTreeMap<Ipv4Addr, String>>,
    /// Guests that are on their way here, each with its source, and how their visit is told to end.
    arrivals: Mutex<BTreeMap<String, (String, Arc<Notify>)>>,
    /// Migrations whose guests were taken and are being started.
    starting: Mutex<BTreeSet<String>>,
    /// Tunnels of moves that have ended.
    pub paths: Paths,
}

impl Site {
    /// The host, with what is kept below its `state_dir`. To be opened by the one daemon that holds its lock.
    pub fn open(config: Config, hold_points: HoldPoints) -> Result<Self> {
        let state = &config.state_dir;
        let guests = Guests::load(state).context("cannot read the guests in state_dir")?;
        let migrations = Migrations::load(state).context("cannot read the reports in state_dir")?;
        let journal = JournalFile::open(&state.join("journal"))?;
        let open =
            |name| Folder::open(state.join(name)).with_context(|| format!("cannot open {name} in state_dir"));
        let (departures, arrivals_kept) = (open("departures")?, open("arrivals")?);
        let paths = Paths::open(state, &config.runtime_dir).context("cannot open paths in state_dir")?;
        let link = LinkConfig::load(&config)?;
        Ok(Self {
            config,
            hold_points,
            guests,
            migrations,
            journal,
            departures,
            arrivals_kept,
            link,
            reservations: Mutex::default(),
            addresses: Mutex::default(),
            arrivals: Mutex::default(),
            starting: Mutex::default(),
            paths,
        })
    }

    /// Finds the machines again that the daemon before this one left running.
    pub async fn adopt(self: &Arc<Self>) {
        for known in self.guests.list() {
            let name = &known.record.guest.name;
            if known.machine.is_some() {
                continue;
            }
            let Ok(claim) = self.guests.claim(name, Task::Start) else { continue };
            match Machine::adopt(&self.config, &known.record.guest).await {
                Ok(Some(machine)) => {
                    self.tend(&claim, machine);
                    if let Some(promise) = self.journal.handed_over(name) {
                        let (peer, migration) = (&promise.peer, &promise.migration);
                        warn!(
                            guest = name,
                            peer, migration, "this guest may run at another host; it stays paused"
                        );
                        claim.set_trouble(&format!("it may run at {peer}: {migration} was handing it over"));
                    }
                }
                Ok(None) => {}
                Err(error) => {
                    warn!(guest = name, %error, "cannot tell whether this guest runs");
                    claim.set_trouble(&error.to_string());
                }
            }
        }
    }

    /// The guest has this machine from now on. When it ends by itself, what is left of it is cleared away and the
    /// reason is noted. Not so while somebody has a claim: then it waits for its turn.
    pub fn tend(self: &Arc<Self>, claim: &Claim<Machine>, machine: Machine) {
        claim.set_machine(Some(machine.clone()));
        claim.set_trouble("");
        let (site, name) = (Arc::clone(self), claim.name().to_owned());
        tokio::spawn(async move {
            let reason = machine.ended().await;
            let Some(claim) = site.guests.claim_when_free(&name, Task::Stop).await else { return };
            // Somebody else may have ended it, and the guest may have another machine by now.
            if claim.machine().is_ok_and(|current| current.pid() == machine.pid()) {
                machine.quit().await;
                claim.set_machine(None);
                claim.set_trouble(&words(&reason));
            }
        });
    }

    /// A number for a migration that no other has.
    pub fn new_id(&self) -> String {
        let mut bytes = [0; 4];
        SystemRandom::new().fill(&mut bytes).expect("the system has random numbers");
        HEXLOWER.encode(&bytes)
    }

    /// How a migration with this limit makes its link.
    pub fn link_config(&self, bandwidth_bytes_per_s: Option<u64>) -> LinkConfig {
        LinkConfig { bandwidth_bytes_per_s, ..self.link.clone() }
    }

    /// The bridge of this host that a description means by `name`.
    pub fn bridge(&self, name: &str) -> Result<String> {
        let here = self.config.bridges.get(name);
        here.cloned().with_context(|| format!("[bridges] in this host's configuration has no {name:?}"))
    }

    /// Moves of a guest so far.
    pub fn generation_of(&self, guest: &str) -> u64 {
        self.guests.find(guest).map_or(0, |known| known.record.generation)
    }

    /// All promises of room. Held for a look or a change.
    pub fn reservations(&self) -> MutexGuard<'_, Reservations> {
        self.reservations.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a guest's promise of room back.
    pub fn release(&self, guest: &str) {
        self.reservations().release(guest);
        self.release_addresses(guest);
    }

    /// Brings the promises up to date with the guests that run.
    pub fn refresh_reservations(&self) {
        let known = self.guests.list();
        let mut promised = self.reservations();
        for guest in known {
            let name = &guest.record.guest.name;
            match (&guest.machine, &guest.task) {
                (Some(machine), _) => {
                    let fresh = self.reservation_of(machine, guest.record.came_from.clone());
                    promised.release(name);
                    // There is none any more.
                    let _ = promised.reserve(name, fresh);
                }
                (None, None) => drop(promised.release(name)),
                (None, Some(_)) => {}
            }
        }
    }

    fn reservation_of(&self, machine: &Machine, from: Option<String>) -> Reservation {
        let guest = machine.guest();
        let own = guest.disks.iter().filter(|disk| !disk.shared);
        let sizes: Vec<(u64, u64)> = own.filter_map(|disk| image_bytes(&self.config, disk).ok()).collect();
        Reservation {
            holder: "it runs here".to_owned(),
            memory_mib: guest.memory_mib,
            memory_used_mib: resident_mib(machine.pid()).min(guest.memory_mib),
            disk_bytes: sizes
                .iter()
                .map(|(size, used)| growth_bytes(*size, *used, self.config.limits.disk_overcommit))
                .sum(),
            disk_size_bytes: sizes.iter().map(|(size, _)| size).sum(),
            vcpus: guest.vcpus,
            from,
            is_arriving: false,
            nics: guest.nics.clone(),
        }
    }

    /// Finds the tunnels again that the daemon before this one has kept, and with them which addresses of the pool are held.
    /// Those that it only tried when it ended are removed.
    pub async fn find_paths(&self) {
        if let Err(error) = tunnel::io::tunnel::remove_trials().await {
            warn!(%error, "cannot remove what is left of a tunnel that was only tried");
        }
        let held = self.paths.find().await;
        self.lock_addresses().extend(held);
    }

    /// One of the addresses `usable` that nobody has, for a guest.
    pub fn keep_address(&self, guest: &str, usable: &BTreeSet<Ipv4Addr>) -> Option<Ipv4Addr> {
        let mut held = self.lock_addresses();
        let free = self.pool().find(|address| usable.contains(address) && !held.contains_key(address))?;
        held.insert(free, guest.to_owned());
        Some(free)
    }

    /// A guest has this address of the pool already.
    pub fn hold_address(&self, address: Ipv4Addr, guest: &str) {
        self.lock_addresses().insert(address, guest.to_owned());
    }

    /// Takes a guest's addresses of the pool back.
    pub fn release_addresses(&self, guest: &str) {
        self.lock_addresses().retain(|_, holder| holder != guest);
    }

    /// The addresses that this site and those before it have given a guest that is here, by its cards.
    pub async fn given_addresses(&self, guest: &Guest) -> GivenAddresses {
        let mut given =
            self.guests.find(&guest.name).map(|known| known.record.given_addresses).unwrap_or_default();
        given.retain(|card, _| guest.nics.iter().any(|nic| nic.id == *card));
        for nic in &guest.nics {
            // The daemon that took the guest may have been an older one, which wrote nothing down.
            let Some(here) = self.paths.new_address(&guest.name, nic.address).await else { continue };
            let known = given.entry(nic.id.clone()).or_default();
            if !known.contains(&here) {
                known.insert(0, here);
                known.truncate(GIVEN_MAX);
            }
        }
        given
    }

    fn pool(&self) -> impl Iterator<Item = Ipv4Addr> {
        self.config.network.iter().flat_map(|network| &network.pool).copied()
    }

    fn lock_addresses(&self) -> MutexGuard<'_, BTreeMap<Ipv4Addr, String>> {
        self.addresses.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes that a guest is on its way from `source`. Its visit is told to end when the source begins anew.
    pub fn note_arrival(&self, guest: &str, source: &str) -> Arc<Notify> {
        let replaced = Arc::new(Notify::new());
        self.lock_arrivals().insert(guest.to_owned(), (source.to_owned(), Arc::clone(&replaced)));
        replaced
    }

    /// It is here, or does not come.
    pub fn forget_arrival(&self, guest: &str) {
        self.lock_arrivals().remove(guest);
    }

    /// Ends what an earlier attempt of the same source has left of a guest: the source alone knows which one counts.
    /// True if there was one.
    pub fn replace_arrival(&self, guest: &str, source: &str) -> bool {
        let arrivals = self.lock_arrivals();
        let earlier = arrivals.get(guest).filter(|(from, _)| from == source);
        earlier.is_some_and(|(_, replaced)| {
            replaced.notify_one();
            true
        })
    }

    /// The guest of this migration is being started from now on.
    pub fn note_starting(&self, migration: &str) {
        self.lock_starting().insert(migration.to_owned());
    }

    /// It runs, or does not come.
    pub fn forget_starting(&self, migration: &str) {
        self.lock_starting().remove(migration);
    }

    /// Whether the guest of this migration is being started.
    pub fn is_starting(&self, migration: &str) -> bool {
        self.lock_starting().contains(migration)
    }

    fn lock_starting(&self) -> MutexGuard<'_, BTreeSet<String>> {
        self.starting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn lock_arrivals(&self) -> MutexGuard<'_, BTreeMap<String, (String, Arc<Notify>)>> {
        self.arrivals.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn words(reason: &ExitReason) -> String {
    match reason {
        ExitReason::GuestShutdown => "it switched itself off".to_owned(),
        ExitReason::Told(who) => format!("QEMU was told to end ({who})"),
        ExitReason::Died(why) => format!("QEMU died: {why}"),
    }
}
