//! QEMU's monitor: one command, one answer, and the events in between kept for whoever asks.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use serde_json::{Value, json};

use crate::wait::{PATIENCE, wait_for};

/// A connection to a QEMU of a test.
#[derive(Debug)]
pub struct Qmp {
    lines: BufReader<UnixStream>,
    events: Vec<Value>,
}

impl Qmp {
    /// Connect as soon as QEMU listens at `socket`.
    pub fn connect(socket: &Path) -> Self {
        let stream =
            wait_for(PATIENCE, "QEMU to listen for its monitor", || UnixStream::connect(socket).ok());
        stream.set_read_timeout(Some(PATIENCE)).expect("set a time limit on a socket");
        let mut qmp = Self { lines: BufReader::new(stream), events: Vec::new() };
        assert!(qmp.line().get("QMP").is_some(), "QEMU greets");
        qmp.ask("qmp_capabilities", json!({}));
        qmp
    }

    /// Execute a command that has to succeed.
    #[track_caller]
    pub fn ask(&mut self, command: &str, arguments: Value) -> Value {
        let mut line = self.answer(command, arguments);
        assert!(line.get("error").is_none(), "{command}: {line}");
        line["return"].take()
    }

    /// Has QEMU end. It may be gone before it has answered.
    pub fn quit(mut self) {
        writeln!(self.lines.get_mut(), "{}", json!({ "execute": "quit" })).expect("write to the monitor");
        let mut rest = String::new();
        // Whatever it says, and however that ends: it is the last of it.
        while self.lines.read_line(&mut rest).is_ok_and(|bytes| bytes > 0) {}
    }

    /// Try a command that has to be refused; QEMU's words.
    #[track_caller]
    pub fn refused(&mut self, command: &str, arguments: Value) -> String {
        let line = self.answer(command, arguments);
        line["error"]["desc"].as_str().unwrap_or_else(|| panic!("{command}: {line}")).to_owned()
    }

    fn answer(&mut self, command: &str, arguments: Value) -> Value {
        let request = json!({ "execute": command, "arguments": arguments });
        writeln!(self.lines.get_mut(), "{request}").expect("write to the monitor");
        loop {
            let line = self.line();
            if line.get("event").is_none() {
                return line;
            }
            self.events.push(line);
        }
    }

    /// Whether the guest runs, is paused, has stopped on an error: `query-status`.
    pub fn status(&mut self) -> String {
        let answer = self.ask("query-status", json!({}));
        answer["status"].as_str().expect("a status is a word").to_owned()
    }

    /// How often the event `name` came so far.
    pub fn count(&mut self, name: &str) -> usize {
        // Events come before the answer of a later command.
        self.status();
        self.events.iter().filter(|event| event["event"] == name).count()
    }

    /// Wait, at most `limit`, for an event whose data fits, also one that came before; it is taken, and what came
    /// before it stays.
    #[track_caller]
    pub fn wait_for_event(&mut self, limit: Duration, name: &str, fits: impl Fn(&Value) -> bool) -> Value {
        let is_wanted = |event: &Value| event["event"] == name && fits(&event["data"]);
        self.lines.get_ref().set_read_timeout(Some(limit)).expect("set a time limit on a socket");
        while !self.events.iter().any(is_wanted) {
            let line = self.line();
            self.events.push(line);
        }
        self.lines.get_ref().set_read_timeout(Some(PATIENCE)).expect("set a time limit on a socket");
        let at = self.events.iter().position(is_wanted).expect("it was there a moment ago");
        self.events.remove(at)
    }

    fn line(&mut self) -> Value {
        let mut line = String::new();
        self.lines.read_line(&mut line).expect("read from the monitor");
        serde_json::from_str(&line).unwrap_or_else(|error| panic!("the monitor said {line:?}: {error}"))
    }
}
