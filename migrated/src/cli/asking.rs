//! One question to the daemon and its answer, shown for people or for programs; and how a refusal is said.

use std::path::Path;

use migrated::api::{Command, GuestState};
use migrated::io::api_client::{ApiClient, ApiError};
use migrated::render::{json, table};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::Exit;

/// Where to ask, and how to show the answer.
#[derive(Clone, Copy, Debug)]
pub struct Asking<'a> {
    /// The daemon's socket.
    pub socket: &'a Path,
    /// For programs.
    pub json: bool,
}

impl Asking<'_> {
    /// Asks once.
    pub async fn ask<T: DeserializeOwned>(&self, command: Command) -> Result<T, ApiError> {
        ApiClient::connect(self.socket).await?.ask(command).await
    }

    /// Asks once, and shows the answer.
    pub async fn show<T: DeserializeOwned + Serialize>(
        &self,
        command: Command,
        lines: impl Fn(&T) -> Vec<String>,
    ) -> Result<(), ApiError> {
        let answer: T = self.ask(command).await?;
        let lines = if self.json { vec![json::line(&answer)] } else { lines(&answer) };
        print(&lines);
        Ok(())
    }

    /// Asks once for something that answers a guest, and shows it.
    pub async fn show_guest(&self, command: Command) -> Result<(), ApiError> {
        self.show(command, |guest: &GuestState| table::guests(std::slice::from_ref(guest))).await
    }
}

/// Prints for whoever reads stdout; one who has stopped reading is no reason to fail.
pub fn print(lines: &[String]) {
    use std::io::Write;
    let mut out = std::io::stdout().lock();
    for line in lines {
        if writeln!(out, "{line}").is_err() {
            return;
        }
    }
    let _ = out.flush();
}

/// Says why not.
pub fn refused(as_json: bool, error: &ApiError) -> Exit {
    if let (true, ApiError::Refused(failure)) = (as_json, error) {
        print(&[json::refusal(failure)]);
    }
    eprintln!("migrated: {error}");
    if let ApiError::Refused(failure) = error
        && !failure.hint.is_empty()
    {
        eprintln!("  {}", failure.hint);
    }
    Exit::Refused
}
