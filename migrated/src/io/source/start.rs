//! How a migration begins: the order is looked at, the guest claimed, and the run started; or only looked, in a dry run.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;

use super::context::{Context, Options};
use super::{path, prepare, run};
use crate::api::{Failure, FailureCode, Limit, Planned, PlannedDisk, Send};
use crate::convergence::TimeLimit;
use crate::io::keys::Peer;
use crate::io::registry::Task;
use crate::io::site::Site;
use crate::peer::DiskSize;
use crate::source::{Limits, Source};
use crate::status::Status;

/// What became of an order.
pub enum Started {
    /// The migration with this number has begun.
    Migration(String),
    /// It was a dry run: it could begin.
    Looked(Planned),
}

/// Begins to move a guest. A dry run ends before anything is started.
pub async fn start(site: &Arc<Site>, send: Send) -> Result<Started, Failure> {
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
        cold: send.cold,
        compression: send.compression.unwrap_or(defaults.compression),
        time_limit: match send.time_limit {
            None => TimeLimit::Computed,
            Some(Limit::None) => TimeLimit::None,
            Some(Limit::Ms(ms)) => TimeLimit::Given(Duration::from_millis(ms)),
        },
    };
    let limit = send.bandwidth_bytes_per_s.or(defaults.bandwidth_bytes_per_s);
    let status = Status::new(&id, &guest.name, &site.config.name, &peer.name).limited(limit);
    let handle = site.migrations.begin(status)?;
    let mut context = Context::new(Arc::clone(site), handle, machine, guest, peer, options);
    context.begin_costs();
    let context = Arc::new(context);
    if send.dry_run {
        let found = dry_run(&context).await;
        context.end_tasks();
        context.handle.forget();
        let refused = |error: anyhow::Error| {
            Failure::new(FailureCode::Failed, format!("{error:#}"), "nothing was started")
        };
        return found.map(Started::Looked).map_err(refused);
    }
    if let Some(warning) = site.hold_points.warning() {
        context.warn(warning);
    }
    let migration = Source::new(limits(site), context.now());
    tokio::spawn(run(context, claim, migration));
    Ok(Started::Migration(id))
}

pub(super) fn limits(site: &Site) -> Limits {
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

async fn dry_run(context: &Arc<Context>) -> Result<Planned> {
    prepare::inspect(context).await?;
    prepare::first_connect(context).await?;
    let request = prepare::request(context, true).await?;
    let planned = planned(context, &request.disks);
    let reserved = prepare::ask(context, request).await?;
    context.known().reserved = Some(reserved);
    path::attempt(context).await?;
    Ok(Planned { warnings: context.handle.status().warnings, ..planned })
}

fn planned(context: &Context, copied: &[DiskSize]) -> Planned {
    let disks = context.guest.disks.iter().map(|described| {
        let size = copied.iter().find(|disk| disk.id == described.id);
        PlannedDisk {
            id: described.id.clone(),
            size_bytes: size.map(|disk| disk.size_bytes),
            allocated_bytes: size.map(|disk| disk.allocated_bytes),
        }
    });
    Planned {
        guest: context.guest.name.clone(),
        source: context.site.config.name.clone(),
        destination: context.peer.name.clone(),
        memory_bytes: context.guest.memory_mib << 20,
        disks: disks.collect(),
        warnings: Vec::new(),
    }
}
