//! Follows a migration from outside: asks the daemon for its status again and again, also through a restart of it.

use std::io;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use tokio::signal::ctrl_c;
use tokio::time::{Interval, MissedTickBehavior, interval};

use crate::api::{Command, Failure};
use crate::io::api_client::{ApiClient, ApiError};
use crate::status::Status;

/// Between two questions.
const PACE: Duration = Duration::from_millis(250);
/// How long a daemon may be away: it is being restarted, most likely.
const AWAY_MAX: Duration = Duration::from_secs(60);

/// What was seen.
#[derive(Debug)]
pub enum Seen {
    /// The migration, at this time since the following began.
    Status(Duration, Box<Status>),
    /// The daemon is not there for the moment; said once each time.
    Away(ApiError),
    /// The daemon does not come back.
    Lost(ApiError),
    /// The daemon knows of no such migration.
    Unknown(Failure),
    /// Whoever watches has had enough.
    Interrupted,
}

/// A migration that is being followed.
#[derive(Debug)]
pub struct Follow {
    socket: PathBuf,
    wanted: String,
    client: Option<ApiClient>,
    began: Instant,
    pace: Interval,
    away_since: Option<Instant>,
}

impl Follow {
    /// Follows a migration, by its number or its guest's name.
    pub fn new(socket: PathBuf, wanted: String) -> Self {
        let mut pace = interval(PACE);
        pace.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Self { socket, wanted, client: None, began: Instant::now(), pace, away_since: None }
    }

    /// What is to be seen next.
    pub async fn next(&mut self) -> Seen {
        loop {
            tokio::select! {
                _ = self.pace.tick() => {}
                // Without a handler Ctrl-C ends us anyway.
                Ok(()) = ctrl_c() => return Seen::Interrupted,
            }
            match self.ask().await {
                Ok(status) => {
                    self.away_since = None;
                    return Seen::Status(self.began.elapsed(), Box::new(status));
                }
                Err(ApiError::Refused(failure)) => return Seen::Unknown(failure),
                Err(error) => {
                    self.client = None;
                    let Some(since) = self.away_since else {
                        self.away_since = Some(Instant::now());
                        return Seen::Away(error);
                    };
                    if since.elapsed() > AWAY_MAX {
                        return Seen::Lost(error);
                    }
                }
            }
        }
    }

    async fn ask(&mut self) -> Result<Status, ApiError> {
        let client = match &mut self.client {
            Some(client) => client,
            none => none.insert(ApiClient::connect(&self.socket).await?),
        };
        let found: Vec<Status> = client.ask(Command::Status { migration: Some(self.wanted.clone()) }).await?;
        let status = found.into_iter().next();
        status.ok_or_else(|| ApiError::Broken(io::Error::from(io::ErrorKind::UnexpectedEof).to_string()))
    }
}
