//! Commands that one question to the daemon answers: asked, and shown for people or for programs.

use std::path::{Path, PathBuf};

use migrated::api::{Command, GuestState, HostState};
use migrated::guest::Guest;
use migrated::io::api_client::ApiError;
use migrated::io::files;
use migrated::quantity;
use migrated::render::{plain, table};
use migrated::status::Status;
use serde_json::Value;

use super::asking::{Asking, refused};
use super::{Action, Exit, Setting, follow, send};

/// Does what needs the daemon.
pub fn run(socket: &Path, json: bool, action: Action) -> Exit {
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return failed(&error.to_string()),
    };
    let ended = runtime.block_on(act(Asking { socket, json }, action));
    ended.unwrap_or_else(|error| refused(json, &error))
}

async fn act(asking: Asking<'_>, action: Action) -> Result<Exit, ApiError> {
    match action {
        Action::Daemon(_) | Action::CheckConfig(_) | Action::LinkStdio { .. } => {
            unreachable!("they need no daemon")
        }
        Action::Send(line) => return send::run(asking, line).await,
        Action::Status { migration: Some(wanted), watch: true } => {
            return follow::watch(asking, &wanted).await;
        }
        Action::Status { migration, watch: _ } => status(asking, migration).await?,
        Action::List => {
            asking.show(Command::List {}, |guests: &Vec<GuestState>| table::guests(guests)).await?
        }
        Action::Hosts => asking.show(Command::Hosts {}, |hosts: &Vec<HostState>| table::hosts(hosts)).await?,
        Action::Run { description, restore } => return start(asking, &description, restore.as_deref()).await,
        Action::Stop { guest, now, save } => {
            let save = save.map(|path| files::absolute(&path)).transpose();
            let Ok(save) = save else { return Ok(usage("--save: not a path")) };
            asking.show_guest(Command::Stop { guest, now, save }).await?;
        }
        Action::Pause { guest } => asking.show_guest(Command::Pause { guest, paused: true }).await?,
        Action::Resume { guest } => asking.show_guest(Command::Pause { guest, paused: false }).await?,
        Action::Cancel { migration } => {
            let accepted = |status: &Status| {
                vec![format!(
                    "cancel of {} accepted; guest {} goes on at {}",
                    status.id, status.guest, status.source
                )]
            };
            asking.show(Command::Cancel { migration }, accepted).await?;
        }
        Action::Set { migration, setting: Setting::Bandwidth(bandwidth_bytes_per_s) } => {
            let limit = bandwidth_bytes_per_s.map_or("what the link gives".to_owned(), quantity::rate);
            let accepted = |status: &Status| vec![format!("{}, guest {}: {limit}", status.id, status.guest)];
            asking.show(Command::Set { migration, bandwidth_bytes_per_s }, accepted).await?;
        }
        Action::Recover { guest, lost } => {
            asking.show(Command::Recover { guest, lost }, plain::recovery).await?;
        }
        Action::Pair { token: None } => {
            asking.show(Command::Pair {}, |token: &String| vec![token.clone()]).await?
        }
        Action::Pair { token: Some(token) } => {
            let paired = |host: &String| vec![format!("paired with {host}")];
            asking.show(Command::PairWith { token }, paired).await?;
        }
        Action::Unpair { host } => {
            let done = format!("{host} is forgotten");
            asking.show(Command::Unpair { host }, |_: &Value| vec![done.clone()]).await?;
        }
    }
    Ok(Exit::Done)
}

async fn status(asking: Asking<'_>, wanted: Option<String>) -> Result<(), ApiError> {
    let one = wanted.is_some();
    let show = |found: &Vec<Status>| match found.as_slice() {
        [status] if one => plain::page(status),
        all => table::migrations(all),
    };
    asking.show(Command::Status { migration: wanted }, show).await
}

async fn start(asking: Asking<'_>, description: &Path, restore: Option<&Path>) -> Result<Exit, ApiError> {
    let text = match files::text(description) {
        Ok(text) => text,
        Err(error) => return Ok(usage(&error.to_string())),
    };
    let guest = match Guest::parse(&text) {
        Ok(guest) => guest,
        Err(error) => {
            return Ok(usage(&format!("{}: {}", description.display(), error)));
        }
    };
    // The daemon is on this host, and reads the same pipe or file: this process keeps it open until there is an answer.
    let stdin = PathBuf::from(format!("/proc/{}/fd/0", std::process::id()));
    let restore = restore.map(|path| if path == Path::new("-") { &stdin } else { path });
    let restore = restore.map(files::absolute).transpose();
    let Ok(restore) = restore else { return Ok(usage("--restore: not a path")) };
    asking.show_guest(Command::Run { guest, restore }).await?;
    Ok(Exit::Done)
}

fn failed(what: &str) -> Exit {
    eprintln!("migrated: {what}");
    Exit::Refused
}

fn usage(what: &str) -> Exit {
    eprintln!("migrated: {what}");
    Exit::Usage
}
