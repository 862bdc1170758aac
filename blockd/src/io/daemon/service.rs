//! What commands mean: status, limits, shutdown.
//!
//! Commands come from several threads; whatever concerns the volume is asked of the data plane
//! through its mailbox.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use serde_json::{Value, json};
use throttle::Limits;

use super::open::Disk;
use crate::config::{CacheFlag, Serve, Throttle};
use crate::control::{self, Command, Failure, FailureCode, Identity, Requests, Status};
use crate::io::control_server::Service;
use crate::io::data_plane::Choice;
use crate::io::mailbox::{Mailbox, Stopped};
use crate::io::sidecar_file::{SidecarBits, SidecarFile};
use crate::sidecar::Header;

/// What stays the same while the daemon runs, and what the disk was at its start.
pub struct Served {
    identity: Identity,
    header: Header,
    policy: &'static str,
}

impl Served {
    /// By the flags, the disk and the data plane.
    pub fn of(serve: &Serve, disk: &Disk, data_plane: Choice) -> Self {
        let cache = match serve.cache {
            CacheFlag::Direct => "direct",
            CacheFlag::Buffered => "buffered",
        };
        let identity = Identity {
            image: serve.image.clone(),
            disk_id: disk.header.disk_id.clone(),
            size_bytes: disk.header.size,
            data_plane: data_plane.to_string(),
            cache: cache.into(),
            ..Identity::default()
        };
        let policy = match serve.throttle {
            Throttle::None => "none",
            Throttle::Paper { .. } => "paper",
            Throttle::Fixed { .. } => "fixed",
        };
        Self { identity, header: disk.header.clone(), policy }
    }
}

/// Does what commands say.
pub struct Daemon {
    served: Served,
    sidecar: Option<Mutex<(SidecarFile, SidecarBits)>>,
    mailbox: Mailbox,
}

impl Daemon {
    /// For a disk that is about to be served.
    pub fn new(served: Served, sidecar: Option<(SidecarFile, SidecarBits)>, mailbox: Mailbox) -> Self {
        Self { served, sidecar: sidecar.map(Mutex::new), mailbox }
    }

    fn header(&self) -> Header {
        match &self.sidecar {
            Some(sidecar) => sidecar.lock().unwrap_or_else(PoisonError::into_inner).0.header().clone(),
            None => self.served.header.clone(),
        }
    }

    fn status(&self) -> Result<Value, Failure> {
        let (counts, delay, delayed_writes_total) = self
            .mailbox
            .ask(|server, now| {
                let volume = server.volume_mut();
                let gate = volume.gate();
                (volume.counts(), gate.limits(now).delay, gate.delayed_writes_total())
            })
            .map_err(stopped)?;
        let header = self.header();
        let identity = Identity {
            role: header.role.name().into(),
            generation: header.generation,
            sealed: header.sealed,
            ..self.served.identity.clone()
        };
        let requests = Requests {
            reads_total: counts.reads_total,
            read_bytes_total: counts.read_bytes_total,
            writes_total: counts.writes_total,
            written_bytes_total: counts.written_bytes_total,
            flushes_total: counts.flushes_total,
            errors_total: counts.errors_total,
            ..Requests::default()
        };
        let throttle = control::Throttle {
            policy: self.served.policy.into(),
            delay_us: delay.as_micros() as u64,
            delayed_writes_total,
            ..control::Throttle::default()
        };
        let replication =
            control::Replication { recording: header.recording, ..control::Replication::default() };
        let status = Status { identity, replication, requests, throttle };
        serde_json::to_value(status)
            .map_err(|error| Failure::new(FailureCode::Io, format!("cannot write the status: {error}"), ""))
    }

    fn limits(&self, limits: Limits) -> Result<Value, Failure> {
        self.mailbox
            .ask(move |server, now| server.volume_mut().set_limits(limits, now))
            .map(|()| json!({}))
            .map_err(stopped)
    }
}

impl Service for Daemon {
    fn handle(&self, command: Command) -> Result<Value, Failure> {
        match command {
            Command::Status {} => self.status(),
            Command::Limits { free_writes, delay_us, valid_ms } => self.limits(Limits {
                free_writes,
                delay: Duration::from_micros(delay_us),
                valid_for: Duration::from_millis(valid_ms),
            }),
            Command::Shutdown {} => self.mailbox.stop().map(|()| json!({})).map_err(stopped),
            _ => Err(Failure::new(
                FailureCode::Unsupported,
                "this daemon serves its disk alone and keeps no replica",
                "",
            )),
        }
    }
}

fn stopped(_: Stopped) -> Failure {
    Failure::new(FailureCode::Stopping, "the daemon is ending", "")
}
