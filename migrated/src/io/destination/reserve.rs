//! May this guest come? Every reason why not at once (S0-25); otherwise room is kept and what receives is started.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result};
use tokio::time::{interval, timeout};

use super::arrival::{Arrival, KeptArrival};
use super::{incoming_socket, names};
use crate::api::Failure;
use crate::guest::Nic;
use crate::host::network::{Occasion, findings, pool::usable};
use crate::host::{Sender, Wanted, check};
use crate::io::host::facts;
use crate::io::machine::{DiskRoles, Machine, Start};
use crate::io::registry::{MigrationHandle, Task};
use crate::io::site::Site;
use crate::journal::{Step, Subject};
use crate::peer::{Reserve, Reserved};
use crate::phase::Phase;
use crate::status::Status;

/// How long an earlier attempt of the same source may take to be cleared away, and how often that is looked at.
const CLEARED_WITHIN: Duration = Duration::from_secs(30);
const CLEARED_EVERY: Duration = Duration::from_millis(50);

/// What came of a reservation.
pub enum Kept {
    /// It would be possible; nothing was started.
    Looked(Reserved),
    /// It is on its way.
    Arrival(Box<Arrival>),
}

/// Looks, and keeps room.
pub async fn reserve(site: &Arc<Site>, source: &str, wanted: Reserve) -> Result<Kept, Vec<String>> {
    let one = |error: anyhow::Error| vec![format!("{error:#}")];
    let guest = &wanted.guest;
    // Before anything of the host is looked at by its names.
    let faults = wanted.faults();
    if !faults.is_empty() {
        return Err(faults);
    }
    // Who only looks ends nothing of an earlier attempt, gives nothing of it back, and is not shown.
    if wanted.dry_run {
        return look(site, source, &wanted).await.map(|(reserved, _)| Kept::Looked(reserved));
    }
    if site.replace_arrival(&guest.name, source) {
        gone(site, &guest.name).await;
    }
    // At once, as the source shows it: the look may take seconds (S3-08).
    let handle = match show(site, source, &wanted) {
        Ok(handle) => handle,
        Err(failure) => {
            let only_looked = Reserve { dry_run: true, ..wanted };
            let mut reasons = look(site, source, &only_looked).await.err().unwrap_or_default();
            reasons.push(failure.to_string());
            return Err(reasons);
        }
    };
    site.hold_points.pass("destination-look").await;
    let kept = match look(site, source, &wanted).await {
        Ok((reserved, name)) => {
            let started = start(site, source, wanted, reserved, handle.clone()).await;
            started.map_err(|error| {
                site.release(&name);
                one(error)
            })
        }
        Err(reasons) => Err(reasons),
    };
    // It is as if it had never been asked for.
    kept.inspect_err(|_| handle.forget()).map(|arrival| Kept::Arrival(Box::new(arrival)))
}

/// Shows a guest that is on its way as incoming.
fn show(site: &Site, source: &str, wanted: &Reserve) -> Result<MigrationHandle, Failure> {
    let mut status = Status::new(&wanted.migration, &wanted.guest.name, source, &site.config.name);
    status.incoming = true;
    status.phase = Phase::Reservation;
    site.migrations.begin(status)
}

/// Looks, and promises room unless that is all. Gives what is kept, and for which guest.
async fn look(site: &Arc<Site>, source: &str, wanted: &Reserve) -> Result<(Reserved, String), Vec<String>> {
    let guest = &wanted.guest;
    let is_home = site.paths.is_home(&guest.name).await;
    let occasion = Occasion::Arrive { wan: wanted.wan, runs: wanted.runs, is_home };
    let free = if wanted.wan && !is_home { site.free_addresses() } else { Vec::new() };
    let (found, network) = tokio::join!(facts(&site.config, guest), site.network(guest, occasion, &free));
    let mut found = found.map_err(|error| vec![error.to_string()])?;
    let looked = network.as_ref().map(|network| usable(&network.here, &network.answers, &free));
    let (usable, passed_over) = looked.unwrap_or_else(|| (free.into_iter().collect(), Vec::new()));
    site.refresh_reservations();
    found.is_stopped_here = is_stopped_here(site, &guest.name);
    let sender = Sender { name: source, allowance: site.config.allowance(source) };
    let asked = Wanted::from_peer(wanted, sender);
    let holder = format!("migration {} from {source} holds it", wanted.migration);
    let names = names::look(site, wanted).await;
    let mut reasons: Vec<String> = Vec::new();
    let mut new_addresses = Vec::new();
    let mut warnings = warnings(wanted, &found.qemu_version);
    {
        // Looked at and promised under one lock: two guests cannot get the same room (S0-38).
        let mut promised = site.reservations();
        reasons.extend(check(&found, &promised, &asked).iter().map(ToString::to_string));
        reasons.extend(no_path(site, wanted));
        reasons.extend(names.reasons);
        if let Some(network) = &network {
            let clashes = findings(network, &promised, guest, occasion);
            reasons.extend(clashes.refusals.iter().map(ToString::to_string));
            warnings.extend(clashes.warnings);
        }
        if reasons.is_empty() && !wanted.dry_run {
            let promise = found.reservation(&asked, &holder);
            reasons.extend(promised.reserve(&guest.name, promise).err().map(|refusal| refusal.to_string()));
        }
        if reasons.is_empty() && !wanted.dry_run && !is_home {
            new_addresses = addresses(site, wanted, &usable);
        }
    }
    if !reasons.is_empty() {
        return Err(reasons);
    }
    new_addresses.resize(guest.nics.len(), None);
    warnings.extend(passed_over);
    warnings.extend(names.warnings);
    let lacks = |(nic, new): (&Nic, &Option<Ipv4Addr>)| nic.dns_name.is_some() && new.is_none();
    let none_left = match wanted.dry_run {
        true => usable.is_empty() && guest.nics.iter().any(|nic| nic.dns_name.is_some()),
        false => guest.nics.iter().zip(&new_addresses).any(lacks),
    };
    if wanted.wan && !is_home && none_left {
        warnings.push("no address of [network] pool is free: the guest's name stays as it is".to_owned());
    }
    let reserved = Reserved {
        reservation: format!("{}/{}", site.config.name, wanted.migration),
        qemu_version: found.qemu_version.clone(),
        tunnel_address: site.config.network.as_ref().map(|network| network.tunnel_address),
        warnings,
        new_addresses,
        is_home,
    };
    Ok((reserved, guest.name.clone()))
}

/// Waits until an earlier attempt is cleared away. If it takes too long, the reasons will say who holds the guest.
async fn gone(site: &Site, guest: &str) {
    let mut tick = interval(CLEARED_EVERY);
    let cleared = async {
        while site.reservations().get(guest).is_some() || site.migrations.running_of(guest).is_some() {
            tick.tick().await;
        }
    };
    // Either way it is looked at next.
    let _ = timeout(CLEARED_WITHIN, cleared).await;
}

/// Whether a guest is at home here and only stands still: it is not another host's to replace.
fn is_stopped_here(site: &Site, guest: &str) -> bool {
    site.guests
        .find(guest)
        .is_ok_and(|known| known.machine.is_none() && known.task.is_none() && known.record.moved_to.is_none())
}

/// Why the guest's addresses cannot follow it here.
fn no_path(site: &Site, wanted: &Reserve) -> Option<String> {
    let has_address = wanted.guest.nics.iter().any(|nic| nic.address.is_some());
    let lacks = wanted.wan && has_address && site.config.network.is_none();
    lacks.then(|| {
        "tunnel: this host has no [network] in its configuration; add one, or send without --wan, which breaks the \
         guest's connections"
            .to_owned()
    })
}

fn addresses(site: &Site, wanted: &Reserve, usable: &BTreeSet<Ipv4Addr>) -> Vec<Option<Ipv4Addr>> {
    let nics = wanted.guest.nics.iter();
    nics.map(|nic| {
        let wants_one = wanted.wan && nic.address.is_some();
        if wants_one { site.keep_address(&wanted.guest.name, usable) } else { None }
    })
    .collect()
}

fn warnings(wanted: &Reserve, qemu_version: &str) -> Vec<String> {
    let mut warnings = Vec::new();
    if wanted.qemu_version != qemu_version {
        warnings.push(format!("QEMU is {qemu_version} here and {} at the source", wanted.qemu_version));
    }
    if wanted.accel == "tcg" {
        warnings.push("the guest is emulated (TCG), which is slow".to_owned());
    }
    warnings
}

/// Starts the disks' copies, the taps, and a QEMU that waits.
async fn start(
    site: &Arc<Site>,
    source: &str,
    reserve: Reserve,
    reserved: Reserved,
    handle: MigrationHandle,
) -> Result<Arrival> {
    let guest = &reserve.guest;
    let task = Task::Arrive { migration: reserve.migration.clone(), from: source.to_owned() };
    let claim = site.guests.claim_new(guest.clone(), task)?;
    let subject = Subject {
        migration: reserve.migration.clone(),
        guest: guest.name.clone(),
        generation: reserve.generation,
        peer: source.to_owned(),
    };
    let started = async {
        let kept =
            KeptArrival { source: source.to_owned(), reserve: reserve.clone(), reserved: reserved.clone() };
        let saved = tokio::task::block_in_place(|| site.arrivals_kept.save(&guest.name, &kept));
        saved.context("cannot write down in state_dir what is to come")?;
        site.journal.promise(subject, Step::Reserved)?;
        let sizes: BTreeMap<String, u64> =
            reserve.disks.iter().map(|disk| (disk.id.clone(), disk.size_bytes)).collect();
        let roles = DiskRoles::Replica(sizes);
        let machine = Machine::start(&site.config, guest, Start::Incoming, roles).await?;
        if let Err(error) = listen(&machine).await {
            machine.quit().await;
            return Err(error);
        }
        anyhow::Ok(machine)
    };
    match started.await {
        Ok(machine) => {
            let (source, tunnels) = (source.to_owned(), Vec::new());
            Ok(Arrival { site: Arc::clone(site), source, reserve, reserved, machine, handle, claim, tunnels })
        }
        Err(error) => {
            // A daemon that is started anew would find nothing of it.
            let _ = site.arrivals_kept.remove(claim.name());
            claim.leave();
            Err(error.context("what receives the guest cannot be started"))
        }
    }
}

/// Has QEMU wait for the memory.
async fn listen(machine: &Machine) -> Result<()> {
    let qmp = machine.qmp();
    qmp.set_capabilities(&[
        ("events", true),
        ("pause-before-switchover", true),
        ("return-path", true),
        ("late-block-activate", true),
    ])
    .await?;
    qmp.migrate_incoming(&incoming_socket(machine)).await.context("QEMU does not wait for the memory")
}
