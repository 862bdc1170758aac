//! What each command of the API means: looks into the site, or tells its parts what to do.

use std::sync::Arc;

use serde::Serialize;
use serde_json::{Value, json};

use super::{guests, hosts, recover};
use crate::api::{Command, Failure, Send};
use crate::io::api_server::Host;
use crate::io::pairing::Desk;
use crate::io::site::Site;
use crate::io::source::{self, Started};

/// Answers for a site.
pub(super) struct Operator {
    site: Arc<Site>,
    desk: Desk,
}

type Answer = Result<Value, Failure>;

impl Operator {
    pub(super) fn new(site: Arc<Site>, desk: Desk) -> Self {
        Self { site, desk }
    }

    fn status(&self, wanted: Option<&str>) -> Answer {
        match wanted {
            None => said(&self.site.migrations.list()),
            Some(wanted) => said(&[self.site.migrations.find(wanted)?]),
        }
    }

    async fn send(&self, send: Send) -> Answer {
        match source::start(&self.site, send).await? {
            Started::Migration(id) => said(&id),
            Started::Looked(planned) => said(&planned),
        }
    }
}

impl Host for Operator {
    async fn answer(&self, command: Command) -> Answer {
        match command {
            Command::List {} => said(&guests::list(&self.site).await),
            Command::Status { migration } => self.status(migration.as_deref()),
            Command::Send(send) => self.send(send).await,
            Command::Cancel { migration } => said(&self.site.migrations.cancel(&migration)?),
            Command::Set { migration, bandwidth_bytes_per_s } => {
                said(&self.site.migrations.set_bandwidth(&migration, bandwidth_bytes_per_s)?)
            }
            Command::Recover { guest, lost } => {
                said(&recover::recover(&self.site, &guest, lost.as_deref()).await?)
            }
            Command::Hosts {} => said(&hosts::list(&self.site).await),
            Command::Run { guest, restore } => said(&guests::run(&self.site, guest, restore).await?),
            Command::Stop { guest, now, save } => {
                said(&guests::stop(&self.site, &guest, now, save.as_deref()).await?)
            }
            Command::Pause { guest, paused } => said(&guests::pause(&self.site, &guest, paused).await?),
            Command::Pair {} => hosts::token(&self.desk),
            Command::PairWith { token } => hosts::pair_with(&self.desk, &token).await,
            Command::Unpair { host } => hosts::unpair(&self.site, &host),
        }
    }
}

fn said<T: Serialize + ?Sized>(value: &T) -> Answer {
    Ok(json!(value))
}
