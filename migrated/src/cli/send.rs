//! `migrated send`: asks for the migration, then stays with it or does not.

use migrated::api::{Command, Planned, Send};
use migrated::io::api_client::ApiError;
use migrated::quantity::ms;
use migrated::render::{json, table};
use serde_json::json;

use super::asking::{Asking, print};
use super::{Exit, SendLine, follow};

/// Starts a migration; in the foreground, shows it to its end. A dry run leaves none that could be shown.
pub async fn run(asking: Asking<'_>, line: SendLine) -> Result<Exit, ApiError> {
    let (detach, dry_run) = (line.detach, line.dry_run);
    if dry_run {
        let planned: Planned = asking.ask(Command::Send(meant(line))).await?;
        match asking.json {
            true => print(&[json::line(&json!({ "possible": true, "planned": planned }))]),
            false => print(&table::planned(&planned)),
        }
        return Ok(Exit::Done);
    }
    let id: String = asking.ask(Command::Send(meant(line))).await?;
    if !detach {
        return Ok(follow::to_the_end(asking, &id).await);
    }
    match asking.json {
        true => print(&[json::line(&json!({ "migration": id }))]),
        false => print(&[id]),
    }
    Ok(Exit::Done)
}

/// What was typed, as what is asked of the daemon.
fn meant(line: SendLine) -> Send {
    let max_downtime_ms = line.max_downtime.map(ms);
    Send {
        guest: line.guest,
        to: line.to,
        wan: line.wan,
        dry_run: line.dry_run,
        bandwidth_bytes_per_s: line.bandwidth,
        max_downtime_ms,
        transport: line.transport.map(|transport| transport.written),
        cold: line.cold,
        compression: line.compress,
        time_limit: line.time_limit,
    }
}
