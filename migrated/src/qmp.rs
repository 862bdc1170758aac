//! The language of QEMU's monitor: lines in, values out.
//!
//! ```text
//! ◄ {"QMP":{"version":…}}                                   greeting, once
//! ► {"execute":"stop","arguments":{},"id":7}
//! ◄ {"return":{},"id":7}   or   {"error":{"class":…,"desc":…},"id":7}
//! ◄ {"event":"STOP","data":{},"timestamp":{…}}              at any time in between
//! ```
//!
//! Words that a QEMU says and this program has never heard of (a state, an event, a capability) are data: they are
//! kept as they came. Only a line that is no JSON object is refused.

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

/// What the monitor may say.
#[derive(Clone, Debug, PartialEq)]
pub enum Message {
    /// The first line.
    Greeting(Version),
    /// An answer to the command with this number; none: to a line that had none.
    Reply(Option<u64>, Result<Value, Refused>),
    /// Something happened.
    Event(Event),
    /// None of these: a later QEMU's invention.
    Unknown,
}

/// A version of QEMU.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Version {
    /// First number.
    pub major: u32,
    /// Second number.
    pub minor: u32,
    /// Third number.
    pub micro: u32,
}

impl std::fmt::Display for Version {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}.{}.{}", self.major, self.minor, self.micro)
    }
}

/// QEMU's no.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text}")]
pub struct Refused {
    /// QEMU's kind of error ("GenericError").
    pub class: String,
    /// QEMU's words.
    pub text: String,
}

/// The state of a guest, as QEMU says it (`RunState` of its schema).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RunState {
    /// It runs.
    Running,
    /// It was paused by order.
    Paused,
    /// It was never started, by order.
    Prelaunch,
    /// Its memory is awaited.
    InMigrate,
    /// QEMU has paused it because a disk failed it (`werror=stop`).
    IoError,
    /// Any other; what it means is QEMU's affair.
    Other(String),
}

impl RunState {
    /// Reads QEMU's word.
    pub fn read(word: &str) -> Self {
        match word {
            "running" => RunState::Running,
            "paused" => RunState::Paused,
            "prelaunch" => RunState::Prelaunch,
            "inmigrate" => RunState::InMigrate,
            "io-error" => RunState::IoError,
            other => RunState::Other(other.to_owned()),
        }
    }

    /// QEMU's word.
    pub fn word(&self) -> &str {
        match self {
            RunState::Running => "running",
            RunState::Paused => "paused",
            RunState::Prelaunch => "prelaunch",
            RunState::InMigrate => "inmigrate",
            RunState::IoError => "io-error",
            RunState::Other(word) => word,
        }
    }

    /// It stands still because somebody wants it to.
    pub fn is_paused_by_order(&self) -> bool {
        matches!(self, RunState::Paused | RunState::Prelaunch)
    }

    /// It runs, or would if its own disk did not fail.
    pub fn wants_to_run(&self) -> bool {
        matches!(self, RunState::Running | RunState::IoError)
    }
}

impl std::fmt::Display for RunState {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.word())
    }
}

/// How the cards of a guest that has come announce themselves (`announce-self`): once at once, then `rounds - 1` times more
/// after pauses that grow from `initial_ms` by `step_ms` to `max_ms`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Announcements {
    /// The first pause.
    pub initial_ms: u64,
    /// The longest pause.
    pub max_ms: u64,
    /// How often.
    pub rounds: u64,
    /// What each pause is longer than the one before.
    pub step_ms: u64,
}

/// Five times within a second: a switch may drop the first one while it learns the port.
pub const ANNOUNCEMENTS: Announcements =
    Announcements { initial_ms: 50, max_ms: 550, rounds: 5, step_ms: 100 };

impl Announcements {
    /// The arguments of QEMU's command.
    pub fn arguments(&self) -> Value {
        json!({ "initial": self.initial_ms, "max": self.max_ms, "rounds": self.rounds, "step": self.step_ms })
    }
}

/// Something that happened in QEMU.
#[derive(Clone, Debug, PartialEq)]
pub struct Event {
    /// Its name ("STOP").
    pub name: String,
    /// What comes with it; null without.
    pub fields: Value,
    /// Microseconds since 1970 by the host's clock.
    pub unix_us: u64,
}

impl Event {
    /// A word that came with it; empty where it is not there.
    pub fn word(&self, field: &str) -> &str {
        self.fields[field].as_str().unwrap_or_default()
    }
}

/// Writes a command, with its newline.
pub fn command_line(id: u64, command: &str, arguments: &Value) -> String {
    let mut line = json!({ "execute": command, "id": id });
    if arguments.as_object().is_some_and(|arguments| !arguments.is_empty()) {
        line["arguments"] = arguments.clone();
    }
    format!("{line}\n")
}

/// Reads a line. The error says why it cannot be one of a monitor.
pub fn parse_line(line: &[u8]) -> Result<Message, String> {
    let mut line: Value = serde_json::from_slice(line).map_err(|error| error.to_string())?;
    if !line.is_object() {
        return Err("it is no JSON object".into());
    }
    if let Some(greeting) = line.get("QMP") {
        return Ok(Message::Greeting(version_of(&greeting["version"])));
    }
    if line["event"].is_string() {
        return Ok(Message::Event(event_of(line)));
    }
    let id = line["id"].as_u64();
    if let Some(error) = line.get("error") {
        let text = |field: &str| error[field].as_str().unwrap_or_default().to_owned();
        return Ok(Message::Reply(id, Err(Refused { class: text("class"), text: text("desc") })));
    }
    match line.get_mut("return") {
        Some(value) => Ok(Message::Reply(id, Ok(value.take()))),
        None => Ok(Message::Unknown),
    }
}

/// The version in a greeting or in the answer of `query-version`.
pub fn version_of(version: &Value) -> Version {
    let number = |field: &str| version["qemu"][field].as_u64().unwrap_or_default() as u32;
    Version { major: number("major"), minor: number("minor"), micro: number("micro") }
}

fn event_of(mut line: Value) -> Event {
    let time = |field: &str| line["timestamp"][field].as_u64().unwrap_or_default();
    let unix_us = time("seconds").saturating_mul(1_000_000).saturating_add(time("microseconds"));
    let name = line["event"].as_str().unwrap_or_default().to_owned();
    Event { name, fields: line["data"].take(), unix_us }
}

/// The commands of a QEMU, from its answer to `query-qmp-schema`.
pub fn commands_of(schema: &Value) -> Vec<String> {
    let entries = schema.as_array().map(Vec::as_slice).unwrap_or_default();
    let commands = entries.iter().filter(|entry| entry["meta-type"] == "command");
    commands.filter_map(|entry| Some(entry["name"].as_str()?.to_owned())).collect()
}

/// How far a migration is: the answer of `query-migrate`. What QEMU does not say is 0 or empty.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default, rename_all = "kebab-case")]
pub struct MigrateInfo {
    /// QEMU's word ("active", "pre-switchover", "completed", …); empty before the first migration.
    pub status: String,
    /// Milliseconds since it began.
    pub total_time: u64,
    /// Milliseconds of preparation.
    pub setup_time: u64,
    /// Milliseconds that the guest stood still, once completed.
    pub downtime: u64,
    /// Milliseconds that it would.
    pub expected_downtime: u64,
    /// Why it failed.
    pub error_desc: String,
    /// Why it cannot begin.
    pub blocked_reasons: Vec<String>,
    /// The memory.
    pub ram: MigrateRam,
}

/// The memory of a migration.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default, rename_all = "kebab-case")]
pub struct MigrateRam {
    /// Bytes written to the stream.
    pub transferred: u64,
    /// Bytes left in this pass.
    pub remaining: u64,
    /// Bytes of the guest's memory.
    pub total: u64,
    /// Pages that were one byte repeated.
    pub duplicate: u64,
    /// Pages sent whole.
    pub normal: u64,
    /// Bytes of pages sent whole.
    pub normal_bytes: u64,
    /// Pages that the guest dirties in a second.
    pub dirty_pages_rate: u64,
    /// Bytes of a page.
    pub page_size: u64,
    /// Passes over the memory.
    pub dirty_sync_count: u64,
    /// Bytes sent before the guest was paused.
    pub precopy_bytes: u64,
    /// Bytes sent while it was paused.
    pub downtime_bytes: u64,
    /// Megabits a second.
    pub mbps: f64,
}

impl MigrateInfo {
    /// Reads an answer; a field of an unexpected kind makes all of it empty but for the status.
    pub fn read(answer: &Value) -> Self {
        serde_json::from_value(answer.clone()).unwrap_or_else(|_| Self {
            status: answer["status"].as_str().unwrap_or_default().to_owned(),
            ..Self::default()
        })
    }

    /// The whole guest has gone over, as far as this QEMU knows.
    pub fn is_completed(&self) -> bool {
        self.status == "completed"
    }

    /// Nothing more will happen: completed, failed or cancelled.
    pub fn has_ended(&self) -> bool {
        matches!(self.status.as_str(), "completed" | "failed" | "cancelled")
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::{
        ANNOUNCEMENTS, Announcements, Event, Message, MigrateInfo, Refused, Version, command_line,
        commands_of, parse_line,
    };

    /// When QEMU announces, in milliseconds since the command (`net/announce.c`).
    fn announced_ms(how: &Announcements) -> Vec<u64> {
        let pauses = (0..how.rounds - 1).map(|round| (how.initial_ms + round * how.step_ms).min(how.max_ms));
        let mut at = 0;
        let later = pauses.map(|pause| {
            at += pause;
            at
        });
        [0].into_iter().chain(later).collect()
    }

    /// S2-46: the command follows `cont` at once.
    #[test]
    fn a_guest_that_has_come_is_announced_within_100_ms_and_again() {
        let announced = announced_ms(&ANNOUNCEMENTS);
        assert!(announced[0] <= 100);
        assert_eq!(announced, [0, 50, 200, 450, 800]);
        let told = json!({ "initial": 50, "max": 550, "rounds": 5, "step": 100 });
        assert_eq!(ANNOUNCEMENTS.arguments(), told);
    }

    #[test]
    fn a_greeting_has_the_version() {
        let line =
            br#"{"QMP": {"version": {"qemu": {"micro": 22, "minor": 2, "major": 7}, "package": "Debian"},
                      "capabilities": ["oob"]}}"#;
        let version = Version { major: 7, minor: 2, micro: 22 };
        assert_eq!(parse_line(line), Ok(Message::Greeting(version)));
        assert_eq!(version.to_string(), "7.2.22");
    }

    #[test]
    fn replies_carry_the_number_of_their_command() {
        assert_eq!(
            parse_line(br#"{"return": {"a": 1}, "id": 7}"#),
            Ok(Message::Reply(Some(7), Ok(json!({"a": 1}))))
        );
        let refused = Refused { class: "GenericError".into(), text: "no".into() };
        let line = br#"{"id": 8, "error": {"class": "GenericError", "desc": "no"}}"#;
        assert_eq!(parse_line(line), Ok(Message::Reply(Some(8), Err(refused.clone()))));
        let line = br#"{"error": {"class": "GenericError", "desc": "no"}}"#;
        assert_eq!(parse_line(line), Ok(Message::Reply(None, Err(refused))));
    }

    #[test]
    fn events_are_kept_as_they_come_also_unknown_ones() {
        let line =
            br#"{"timestamp": {"seconds": 3, "microseconds": 5}, "event": "NEW_THING", "data": {"x": "y"}}"#;
        let event = Event { name: "NEW_THING".into(), fields: json!({"x": "y"}), unix_us: 3_000_005 };
        assert_eq!(event.word("x"), "y");
        assert_eq!(event.word("z"), "");
        assert_eq!(parse_line(line), Ok(Message::Event(event)));
    }

    #[test]
    fn what_is_no_object_is_refused_and_what_is_no_message_is_passed_over() {
        assert!(parse_line(b"hello").is_err());
        assert!(parse_line(b"[1]").is_err());
        assert_eq!(parse_line(br#"{"greeting": "from the future"}"#), Ok(Message::Unknown));
    }

    #[test]
    fn a_command_without_arguments_has_none() {
        assert_eq!(command_line(1, "stop", &json!({})), "{\"execute\":\"stop\",\"id\":1}\n");
        let line = command_line(2, "migrate", &json!({"uri": "unix:/a\nb"}));
        assert_eq!(line, "{\"arguments\":{\"uri\":\"unix:/a\\nb\"},\"execute\":\"migrate\",\"id\":2}\n");
    }

    #[test]
    fn a_schema_names_its_commands() {
        let schema =
            json!([{"name": "stop", "meta-type": "command"}, {"name": "STOP", "meta-type": "event"}]);
        assert_eq!(commands_of(&schema), ["stop"]);
        assert!(commands_of(&json!({})).is_empty());
    }

    #[test]
    fn progress_is_read_with_what_is_missing_and_what_is_new() {
        assert_eq!(MigrateInfo::read(&json!({})), MigrateInfo::default());
        let answer = json!({"status": "postcopy-teleport", "total-time": 5, "invented": {"a": 1},
            "ram": {"remaining": 7, "dirty-sync-count": 2, "mbps": 1.5, "page-size": 4096}});
        let progress = MigrateInfo::read(&answer);
        assert_eq!((progress.status.as_str(), progress.total_time), ("postcopy-teleport", 5));
        assert_eq!((progress.ram.remaining, progress.ram.dirty_sync_count), (7, 2));
        assert!(!progress.has_ended());
        let odd = MigrateInfo::read(&json!({"status": "failed", "total-time": "long"}));
        assert!(odd.has_ended());
    }
}
