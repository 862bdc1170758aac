//! What commands mean, and what the daemon says of itself.
//!
//! Commands come from several threads; whatever concerns the volume is asked of the data plane
//! through its mailbox. The source's commands are [`super::replication`]'s.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::{Value, json};
use throttle::{Limits, policy};

use super::open::Disk;
use super::replication::{Replication, sidecar_failed, stopped};
use super::throttling::Throttling;
use crate::config::{CacheFlag, Serve};
use crate::control::{self, Command, Failure, FailureCode, Identity, Receiving, Requests, Status};
use crate::extent::BLOCK_BYTES;
use crate::io::clock;
use crate::io::confine::Confined;
use crate::io::control_server::{Asker, Service};
use crate::io::data_plane::Prepared;
use crate::io::lock::lock;
use crate::io::mailbox::Mailbox;
use crate::io::replica_destination::Receiver;
use crate::io::sidecar_file::SidecarFile;
use crate::sidecar::{Header, Role, revoked};

/// What stays the same while the daemon runs.
pub fn identity(serve: &Serve, disk: &Disk, data_plane: &Prepared, confined: &Confined) -> Identity {
    let cache = match serve.cache {
        CacheFlag::Direct => "direct",
        CacheFlag::Buffered => "buffered",
    };
    Identity {
        image: serve.image.clone(),
        disk_id: disk.header.disk_id.clone(),
        size_bytes: disk.header.size,
        data_plane: data_plane.to_string(),
        cache: cache.into(),
        confinement: confined.to_string(),
        ..Identity::default()
    }
}

/// Does what commands say.
pub struct Daemon {
    /// What stays the same.
    pub identity: Identity,
    /// What the disk was at its start; the truth where there is no sidecar.
    pub header: Header,
    /// What the disk remembers; none where it is served read-only.
    pub sidecar: Option<Arc<Mutex<SidecarFile>>>,
    /// The way to the data plane.
    pub mailbox: Mailbox,
    /// The source's side; none where the disk is served read-only.
    pub replication: Option<Arc<Replication>>,
    /// The destination's side, where there is a socket for it.
    pub receiver: Option<Arc<Receiver>>,
    /// Who slows the guest.
    pub throttling: Throttling,
}

impl Daemon {
    fn header(&self) -> Header {
        self.sidecar.as_ref().map_or_else(|| self.header.clone(), |sidecar| lock(sidecar).header().clone())
    }

    fn status(&self) -> Result<Value, Failure> {
        let ((counts, in_flight, has_lost_writes), limits, delayed_writes_total, connections) = self
            .mailbox
            .ask(|server, now| {
                let connections = server.connections();
                let volume = server.volume_mut();
                let gate = volume.gate();
                let counts = (volume.counts(), volume.in_flight(), volume.has_lost_writes());
                (counts, gate.limits(now), gate.delayed_writes_total(), connections)
            })
            .map_err(stopped)?;
        let header = self.header();
        let identity = Identity {
            role: header.role.name().into(),
            generation: header.generation,
            sealed: header.sealed,
            ..self.identity.clone()
        };
        let requests = Requests {
            connections,
            in_flight,
            reads_total: counts.reads_total,
            read_bytes_total: counts.read_bytes_total,
            writes_total: counts.writes_total,
            written_bytes_total: counts.written_bytes_total,
            flushes_total: counts.flushes_total,
            trims_total: counts.trims_total,
            zeroes_total: counts.zeroes_total,
            errors_total: counts.errors_total,
            has_lost_writes,
        };
        let verdict = self.throttling.verdict();
        let throttle = control::Throttle {
            policy: verdict.policy.into(),
            level: verdict.level.into(),
            delay_us: limits.delay.as_micros() as u64,
            delayed_writes_total,
        };
        let replication = self.replication_status(&header);
        let status = Status { identity, replication, receiving: self.receiving(), requests, throttle };
        serde_json::to_value(status)
            .map_err(|error| Failure::new(FailureCode::Io, format!("cannot write the status: {error}"), ""))
    }

    fn replication_status(&self, header: &Header) -> control::Replication {
        let mut status =
            control::Replication { epoch: header.replica_epoch, ..control::Replication::default() };
        let Some(replication) = &self.replication else { return status };
        let totals = replication.totals();
        status.replicate_to.clone_from(&header.replicate_to);
        status.last_error = replication.last_error();
        status.sent_bytes_total = totals.sent_bytes.load(Ordering::Relaxed);
        status.raw_bytes_total = totals.raw_bytes.load(Ordering::Relaxed);
        status.link_bytes_per_s = totals.link_bytes_per_s.load(Ordering::Relaxed);
        if status.sent_bytes_total > 0 {
            status.ratio = status.raw_bytes_total as f64 / status.sent_bytes_total as f64;
        }
        status.sealing = replication.is_sealing();
        let Some(recorder) = replication.recorder() else { return status };
        let mut guard = recorder.lock();
        let (on_the_way, pending) = (guard.tracker.on_the_way_bytes(), guard.tracker.pending());
        status.recording = true;
        status.dirty_blocks = pending.dirty_blocks();
        status.queued_deltas = pending.queued_deltas();
        status.queued_bytes = pending.queue_bytes();
        status.deltas_wait = pending.deltas_may_wait();
        status.backlog_bytes = pending.dirty_blocks() * BLOCK_BYTES + pending.queue_bytes() + on_the_way;
        let counts = pending.counts();
        status.deltas_total = counts.deltas_total;
        status.delta_bytes_total = counts.delta_bytes_total;
        status.coalesced_total = counts.coalesced_blocks_total;
        status.overflowed_total = counts.overflowed_blocks_total;
        status.connected = guard.source.is_streaming();
        status.unacknowledged_bytes = guard.source.unacknowledged_bytes();
        let sent = guard.source.counts();
        status.batches_total = sent.batches_total;
        status.covered_bytes_total = sent.covered_bytes_total;
        status.acknowledged_bytes_total = sent.acknowledged_bytes_total;
        status.spared_leaves_total = sent.spared_leaves_total;
        if let Some(error) = guard.source.last_error() {
            error.clone_into(&mut status.last_error);
        }
        let failures = guard.source.failures();
        status.read_failures_total = failures.reads_total;
        status.replica_failures_total = failures.replica_total;
        status.last_failure.clone_from(&failures.last);
        status.stale_leaves = guard.tracker.agreement().unverified_leaves();
        status.mismatched_leaves = guard.tracker.agreement().mismatched_leaves();
        status.deltas_per_second = guard.deltas.series(clock::now()).collect();
        status
    }

    fn receiving(&self) -> Option<Receiving> {
        let applied = self.receiver.as_ref()?.applied();
        Some(Receiving {
            epoch: applied.epoch.load(Ordering::Relaxed),
            applied_seq: applied.applied_seq.load(Ordering::Relaxed),
            durable_seq: applied.durable_seq.load(Ordering::Relaxed),
            unflushed_bytes: applied.unflushed_bytes.load(Ordering::Relaxed),
            applied_bytes_total: applied.applied_bytes_total.load(Ordering::Relaxed),
            compared_leaves_total: applied.compared_leaves_total.load(Ordering::Relaxed),
        })
    }

    fn limits(&self, limits: Limits) -> Result<Value, Failure> {
        let set = move |server: &mut crate::server::Server, now| server.volume_mut().set_limits(limits, now);
        self.mailbox.ask(set).map(|()| json!({})).map_err(stopped)
    }

    fn policy(&self, name: &str) -> Result<Value, Failure> {
        let policy = policy::by_name(name)
            .map_err(|error| Failure::new(FailureCode::BadRequest, error.to_string(), ""))?;
        self.throttling.choose(policy);
        Ok(json!({ "policy": name }))
    }

    /// Makes the replica the guest's disk (D7, M1): durably, before the first held write starts.
    fn promote(&self, generation: u64) -> Result<Value, Failure> {
        let (Some(receiver), Some(sidecar)) = (&self.receiver, &self.sidecar) else {
            return Err(Failure::new(FailureCode::WrongRole, "this daemon receives no copy", ""));
        };
        let header = lock(sidecar).header().clone();
        match header.role {
            Role::Promoted if header.generation == generation => {
                return Ok(json!({ "promoted": generation }));
            }
            Role::Replica if header.sealed == generation && generation != 0 => {}
            Role::Replica if header.sealed == 0 => {
                let message = "the replica is not sealed: the source has not said that it is complete";
                return Err(Failure::new(FailureCode::Refused, message, "seal the source first"));
            }
            Role::Replica => {
                let message =
                    format!("the replica is sealed for generation {}, not {generation}", header.sealed);
                return Err(Failure::new(FailureCode::WrongGeneration, message, ""));
            }
            role => {
                let message = format!("this disk is {} (generation {})", role.name(), header.generation);
                return Err(Failure::new(FailureCode::WrongRole, message, ""));
            }
        }
        // No session may write to the disk, or void its seal, once it is the guest's.
        receiver.between_sessions(|| record_promotion(sidecar, generation))?;
        self.mailbox
            .ask(|server, now| {
                server.volume_mut().release();
                server.handle_timeout(now);
            })
            .map_err(stopped)?;
        Ok(json!({ "promoted": generation }))
    }

    /// The disk is elsewhere by somebody's word (D11): from here on it takes no write, and no later start serves it.
    fn revoke(&self, generation: u64, moved_to: &str) -> Result<Value, Failure> {
        let sidecar = self.sidecar.as_ref().ok_or_else(served_read_only)?;
        let newer = |header: &Header| {
            revoked(header, generation, moved_to)
                .map_err(|error| Failure::new(FailureCode::WrongGeneration, error.to_string(), ""))
        };
        newer(lock(sidecar).header())?;
        if let Some(replication) = &self.replication {
            replication.stop()?;
            replication.end_seal();
        }
        self.mailbox.ask(|server, _| server.volume_mut().hold()).map_err(stopped)?;
        let give_up = || {
            let mut sidecar = lock(sidecar);
            let given_up = newer(sidecar.header())?;
            sidecar.update(|header| *header = given_up).map_err(sidecar_failed)
        };
        match &self.receiver {
            Some(receiver) => receiver.between_sessions(give_up)?,
            None => give_up()?,
        }
        Ok(json!({ "revoked": generation }))
    }

    fn source(&self) -> Result<&Replication, Failure> {
        self.replication.as_deref().ok_or_else(served_read_only)
    }
}

/// Why a disk without a sidecar takes no such command.
fn served_read_only() -> Failure {
    Failure::new(FailureCode::WrongRole, "the disk is served read-only", "")
}

impl Service for Daemon {
    fn handle(&self, command: Command, asker: &Asker<'_>) -> Result<Value, Failure> {
        match command {
            Command::Status {} => self.status(),
            Command::Record { on } => self.source()?.record(on),
            Command::Replicate { to, compression } => self.source()?.replicate(&to, compression),
            Command::StopReplicating {} => self.source()?.stop(),
            Command::Barrier { timeout_ms } => self.source()?.barrier(Duration::from_millis(timeout_ms)),
            Command::Seal { generation, verify, timeout_ms } => {
                self.source()?.seal(generation, verify, Duration::from_millis(timeout_ms), asker)
            }
            Command::Unseal {} => self.source()?.unseal(),
            Command::Fence { generation, moved_to } => self.source()?.fence(generation, &moved_to),
            Command::Revoke { generation, moved_to } => self.revoke(generation, &moved_to),
            Command::Repair {} => self.source()?.repair(),
            Command::Promote { generation } => self.promote(generation),
            Command::Limits { free_writes, delay_us, valid_ms } => self.limits(Limits {
                free_writes,
                delay: Duration::from_micros(delay_us),
                valid_for: Duration::from_millis(valid_ms),
            }),
            Command::Policy { name } => self.policy(&name),
            Command::Shutdown {} => self.mailbox.stop().map(|()| json!({})).map_err(stopped),
        }
    }
}

/// Makes the sidecar say that the replica is the guest's disk, if it still may be.
fn record_promotion(sidecar: &Mutex<SidecarFile>, generation: u64) -> Result<(), Failure> {
    let mut sidecar = lock(sidecar);
    if sidecar.header().sealed != generation {
        let message = "the source has just unsealed the disk";
        return Err(Failure::new(FailureCode::Refused, message, "seal it again"));
    }
    let change = |header: &mut Header| {
        (header.role, header.generation, header.sealed) = (Role::Promoted, generation, 0);
    };
    sidecar.update(change).map_err(sidecar_failed)
}
