//! A migration in the foreground: shown while it runs, its report at the end, and an exit status of it.
//!
//! ```text
//! stderr, a terminal: bars    stderr, no terminal: lines    --json: lines on stdout, the last one with the outcome
//! ```

use std::time::Duration;

use migrated::api::Command;
use migrated::io::api_client::ApiError;
use migrated::io::follow::{Follow, Seen};
use migrated::io::terminal::Terminal;
use migrated::render::{json, plain, tty};
use migrated::status::Status;

use super::Exit;
use super::asking::{Asking, print, refused};

/// How it is shown.
enum View {
    Bars(Terminal),
    Lines(plain::Pace),
    Json(Box<json::Pace>),
}

impl View {
    fn open(asking: Asking<'_>) -> Self {
        if asking.json {
            return Self::Json(Box::default());
        }
        Terminal::open().map_or_else(|| Self::Lines(plain::Pace::default()), Self::Bars)
    }

    fn show(&mut self, now: Duration, status: &Status) {
        match self {
            Self::Bars(terminal) => terminal.draw(&tty::headline(status), &tty::bars(status)),
            Self::Lines(pace) => {
                if let Some(line) = pace.poll(now, status) {
                    eprintln!("{line}");
                }
            }
            Self::Json(pace) => print(&Vec::from_iter(pace.poll(now, status))),
        }
    }

    fn say(&self, line: &str) {
        match self {
            Self::Bars(terminal) => terminal.say(line),
            Self::Lines(_) | Self::Json(_) => eprintln!("{line}"),
        }
    }

    /// Nothing more is shown but what was found at the end.
    fn close(self, status: Option<&Status>) {
        let is_json = matches!(self, Self::Json(_));
        if let Self::Bars(terminal) = self {
            terminal.close();
        }
        if let (Some(status), false) = (status, is_json) {
            print(&plain::page(status));
        }
    }
}

/// Shows a migration until it has ended, or until Ctrl-C; asks first whether there is one.
pub async fn watch(asking: Asking<'_>, wanted: &str) -> Result<Exit, ApiError> {
    let command = Command::Status { migration: Some(wanted.to_owned()) };
    let found: Vec<Status> = asking.ask(command).await?;
    // The number, not the guest: a later migration of it is another one.
    let id = found.first().map_or_else(|| wanted.to_owned(), |status| status.id.clone());
    Ok(to_the_end(asking, &id).await)
}

/// Shows a migration until it has ended, or until Ctrl-C.
pub async fn to_the_end(asking: Asking<'_>, id: &str) -> Exit {
    let mut view = View::open(asking);
    let mut follow = Follow::new(asking.socket.to_owned(), id.to_owned());
    let mut warned = 0;
    loop {
        match follow.next().await {
            Seen::Status(now, status) => {
                for warning in status.warnings.iter().skip(warned) {
                    view.say(&format!("warning: {warning}"));
                }
                warned = warned.max(status.warnings.len());
                view.show(now, &status);
                if let Some(outcome) = status.outcome {
                    view.close(Some(&status));
                    return Exit::of(outcome);
                }
            }
            Seen::Away(error) => {
                view.say(&format!("{error}\nthe migration may go on; waiting for the daemon"))
            }
            Seen::Interrupted => {
                view.close(None);
                eprintln!("the migration goes on; look at it by `migrated status {id} --watch`");
                eprintln!("and give it up by `migrated cancel {id}`");
                return Exit::Left;
            }
            Seen::Lost(error) => {
                view.close(None);
                return in_doubt(id, &error);
            }
            Seen::Unknown(failure) => {
                view.close(None);
                return in_doubt(id, &ApiError::Refused(failure));
            }
        }
    }
}

/// Nobody here knows how it went on.
fn in_doubt(id: &str, error: &ApiError) -> Exit {
    refused(false, error);
    eprintln!("in doubt: start the daemon again if it is not running, and ask `migrated status {id}`;");
    eprintln!("`migrated list` at both hosts says where the guest runs. Do not start it by hand.");
    Exit::InDoubt
}
