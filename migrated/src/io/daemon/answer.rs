//! What each command of the API means: looks into the site, or tells its parts what to do.

use std::sync::Arc;

use serde::Serialize;
use serde_json::{Value, json};

use crate::api::{Command, Failure, FailureCode, GuestState, HostState, Send};
use crate::io::api_server::Host;
use crate::io::machine::Machine;
use crate::io::registry::{Known, Task};
use crate::io::site::Site;

/// Answers for a site.
pub(super) struct Operator {
    site: Arc<Site>,
}

type Answer = Result<Value, Failure>;

impl Operator {
    pub(super) fn new(site: Arc<Site>) -> Self {
        Self { site }
    }

    fn list(&self) -> Answer {
        let guests: Vec<GuestState> = self.site.guests.list().iter().map(guest_state).collect();
        said(&guests)
    }

    fn status(&self, wanted: Option<&str>) -> Answer {
        match wanted {
            None => said(&self.site.migrations.list()),
            Some(wanted) => said(&[self.site.migrations.find(wanted)?]),
        }
    }

    fn send(&self, send: &Send) -> Answer {
        // The lead's place: io::source::start(&self.site, send).
        self.site.guests.find(&send.guest)?;
        Err(not_yet("send"))
    }
}

impl Host for Operator {
    async fn answer(&self, command: Command) -> Answer {
        match command {
            Command::List {} => self.list(),
            Command::Status { migration } => self.status(migration.as_deref()),
            Command::Send(send) => self.send(&send),
            Command::Cancel { migration } => said(&self.site.migrations.cancel(&migration)?),
            Command::Hosts {} => said::<[HostState; 0]>(&[]),
            Command::Run { .. } => Err(not_yet("run")),
            Command::Stop { guest, .. } => {
                self.site.guests.claim(&guest, Task::Stop)?.machine()?;
                Err(not_yet("stop"))
            }
            Command::Pause { guest, .. } => {
                self.site.guests.claim(&guest, Task::Pause)?.machine()?;
                Err(not_yet("pause"))
            }
            Command::Pair {} | Command::PairWith { .. } => Err(not_yet("pair")),
            Command::Unpair { host } => Err(no_host(&host)),
        }
    }
}

fn not_yet(what: &str) -> Failure {
    Failure::new(FailureCode::Failed, format!("{what} is not here yet"), "use a later version")
}

fn no_host(host: &str) -> Failure {
    let message = format!("no host {host:?} is paired with this one");
    Failure::new(FailureCode::NotFound, message, "see `migrated hosts`, or pair them by `migrated pair`")
}

fn guest_state(known: &Known<Machine>) -> GuestState {
    let record = &known.record;
    let state = match (&known.task, &known.machine, &record.moved_to) {
        (Some(Task::Leave { .. }), ..) => "migrating",
        (Some(Task::Arrive { .. }), ..) => "incoming",
        (_, Some(_), _) => "running",
        (_, None, Some(_)) => "moved",
        (_, None, None) => "stopped",
    };
    let remark = match (&known.task, &record.moved_to) {
        (Some(task), _) => task.words(),
        (None, Some(host)) => format!("moved to {host}, generation {}", record.generation),
        (None, None) => String::new(),
    };
    GuestState {
        name: record.guest.name.clone(),
        state: state.to_owned(),
        pid: None,
        memory_mib: record.guest.memory_mib,
        generation: record.generation,
        remark,
        trouble: known.trouble.clone(),
    }
}

fn said<T: Serialize + ?Sized>(value: &T) -> Answer {
    Ok(json!(value))
}
