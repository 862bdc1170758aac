//! What each command of the API means: looks into the site, or tells its parts what to do.

use std::sync::Arc;

use serde::Serialize;
use serde_json::{Value, json};

use super::guests;
use crate::api::{Command, Failure, FailureCode, HostState, Send};
use crate::io::api_server::Host;
use crate::io::site::Site;

/// Answers for a site.
#[derive(Debug)]
pub(super) struct Operator {
    site: Arc<Site>,
}

type Answer = Result<Value, Failure>;

impl Operator {
    pub(super) fn new(site: Arc<Site>) -> Self {
        Self { site }
    }

    fn status(&self, wanted: Option<&str>) -> Answer {
        match wanted {
            None => said(&self.site.migrations.list()),
            Some(wanted) => said(&[self.site.migrations.find(wanted)?]),
        }
    }

    fn send(&self, send: &Send) -> Answer {
        let known = self.site.guests.find(&send.guest)?;
        if send.to == self.site.config.name {
            let message = format!("guest {:?} is at {:?} already: that is this host", send.guest, send.to);
            return Err(Failure::new(FailureCode::Conflict, message, "see `migrated hosts` for others"));
        }
        if known.machine.is_none() {
            let state = known.record.moved_to.map_or_else(|| "stopped".into(), |to| format!("moved to {to}"));
            let message = format!("guest {:?} does not run here: it is {state}", send.guest);
            return Err(Failure::new(FailureCode::Conflict, message, "see `migrated list`"));
        }
        // TODO(send): the name of the peer, then `io::source::start(&self.site, send)`.
        Err(no_host(&send.to))
    }
}

impl Host for Operator {
    async fn answer(&self, command: Command) -> Answer {
        match command {
            Command::List {} => said(&guests::list(&self.site).await),
            Command::Status { migration } => self.status(migration.as_deref()),
            Command::Send(send) => self.send(&send),
            Command::Cancel { migration } => said(&self.site.migrations.cancel(&migration)?),
            Command::Hosts {} => said::<[HostState; 0]>(&[]),
            Command::Run { guest, restore } => said(&guests::run(&self.site, guest, restore).await?),
            Command::Stop { guest, now, save } => {
                said(&guests::stop(&self.site, &guest, now, save.as_deref()).await?)
            }
            Command::Pause { guest, paused } => said(&guests::pause(&self.site, &guest, paused).await?),
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

fn said<T: Serialize + ?Sized>(value: &T) -> Answer {
    Ok(json!(value))
}
