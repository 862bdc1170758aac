//! The commands of a migration, in QEMU's order: capabilities, parameters, begin, go on, give up, how far it is.
//!
//! Each is said as it is; when, is for others to decide.

use std::path::Path;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::timeout;

use super::{Qmp, QmpError};
use crate::qmp::MigrateInfo;

impl Qmp {
    /// Switches capabilities. One that this QEMU does not have is refused by it, by name.
    pub async fn set_capabilities(&self, capabilities: &[(&str, bool)]) -> Result<(), QmpError> {
        let list: Vec<Value> =
            capabilities.iter().map(|(name, state)| json!({ "capability": name, "state": state })).collect();
        self.call("migrate-set-capabilities", json!({ "capabilities": list })).await.map(drop)
    }

    /// The capabilities that this QEMU has, with their states; also ones that nobody here knows.
    pub async fn capabilities(&self) -> Result<Vec<(String, bool)>, QmpError> {
        let answer = self.call("query-migrate-capabilities", json!({})).await?;
        let list = answer.as_array().map(Vec::as_slice).unwrap_or_default();
        let one = |entry: &Value| Some((entry["capability"].as_str()?.to_owned(), entry["state"].as_bool()?));
        Ok(list.iter().filter_map(one).collect())
    }

    /// Sets parameters: an object of them ("max-bandwidth", "downtime-limit", …).
    pub async fn set_parameters(&self, parameters: Value) -> Result<(), QmpError> {
        self.call("migrate-set-parameters", parameters).await.map(drop)
    }

    /// Begins to send the guest to the UNIX socket at `path`, where somebody has to listen.
    pub async fn migrate(&self, path: &Path) -> Result<(), QmpError> {
        self.call("migrate", json!({ "uri": unix_uri(path) })).await.map(drop)
    }

    /// Listens on the UNIX socket at `path` for a guest. Only a QEMU that was started for it can.
    pub async fn migrate_incoming(&self, path: &Path) -> Result<(), QmpError> {
        self.call("migrate-incoming", json!({ "uri": unix_uri(path) })).await.map(drop)
    }

    /// Goes on from a state in which QEMU waits ("pre-switchover").
    pub async fn migrate_continue(&self, state: &str) -> Result<(), QmpError> {
        self.call("migrate-continue", json!({ "state": state })).await.map(drop)
    }

    /// Gives the migration up. The answer comes before it has ended.
    pub async fn migrate_cancel(&self) -> Result<(), QmpError> {
        self.call("migrate_cancel", json!({})).await.map(drop)
    }

    /// How far it is.
    pub async fn query_migrate(&self) -> Result<MigrateInfo, QmpError> {
        Ok(MigrateInfo::read(&self.call("query-migrate", json!({})).await?))
    }

    /// Waits until the migration is as `until` says. Events only wake, and may be lost: what counts is the answer to
    /// a query (M4), which comes at least once in `every`.
    pub async fn migration_until(
        &self,
        every: Duration,
        until: impl Fn(&MigrateInfo) -> bool,
    ) -> Result<MigrateInfo, QmpError> {
        let mut events = self.events();
        loop {
            let found = self.query_migrate().await?;
            if until(&found) {
                return Ok(found);
            }
            // Either way it is asked again.
            let _ = timeout(every, events.recv()).await;
        }
    }
}

fn unix_uri(path: &Path) -> String {
    format!("unix:{}", path.display())
}
