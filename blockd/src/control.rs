//! The control socket's language: one JSON object a line, both ways.
//!
//! ```text
//! ─► {"id":1,"command":"record","on":true}
//! ◄─ {"id":1,"ok":{}}        or   {"id":1,"error":{"code":"refused","message":"…","hint":"…"}}
//! ```
//!
//! Pure: bytes in, values out. A line is at most [`LINE_BYTES_MAX`] bytes; unknown commands, unknown
//! arguments and wrong types are refused by name, so that a typing error never does something else.

mod failure;
mod status;

use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use crate::replica::encoding::Compression;

pub use failure::{Failure, FailureCode};
pub use status::{Identity, Receiving, Replication, Requests, Status, Throttle};

/// The longest request line in bytes, without its newline.
pub const LINE_BYTES_MAX: usize = 64 * 1024;
/// The longest reply line in bytes, without its newline.
pub const REPLY_BYTES_MAX: usize = 1024 * 1024;

/// A command with the number that its reply carries.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// The client's number.
    pub id: u64,
    /// What to do.
    pub command: Command,
}

/// What an operator or `migrated` can ask for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum Command {
    /// Answers a [`Status`].
    Status {},
    /// Starts or ends recording of writes for a replica.
    Record {
        /// Start or end.
        on: bool,
    },
    /// Connects to a replica's socket and keeps it in step.
    Replicate {
        /// The UNIX socket.
        to: PathBuf,
        /// Whether to compress.
        #[serde(default, skip_serializing_if = "Compression::is_auto")]
        compression: Compression,
    },
    /// Ends the session with the replica; recording goes on.
    StopReplicating {},
    /// Waits until everything written before is durable at the replica.
    Barrier {
        /// How long to wait.
        timeout_ms: u64,
    },
    /// Holds writes, drains, compares digests (D8).
    Seal {
        /// For which handover.
        generation: u64,
        /// What to compare.
        #[serde(default)]
        verify: Verify,
        /// How long to wait; after it the disk is unsealed again.
        timeout_ms: u64,
    },
    /// Lets the writes of a sealed disk go on.
    Unseal {},
    /// Gives the disk up: it lives elsewhere from here on.
    Fence {
        /// The generation that it has there.
        generation: u64,
        /// Where; empty: not said.
        #[serde(default)]
        moved_to: String,
    },
    /// Gives the disk up, sealed or not: it is elsewhere by somebody's word.
    Revoke {
        /// The generation that it has there.
        generation: u64,
        /// Where; empty: not said.
        #[serde(default)]
        moved_to: String,
    },
    /// Makes the replica the guest's disk.
    Promote {
        /// The generation that it has here.
        generation: u64,
    },
    /// Slows writes until the limits expire.
    Limits {
        /// Writes that still pass at once.
        free_writes: u64,
        /// Delay of each further write in microseconds.
        delay_us: u64,
        /// Expiry in milliseconds.
        valid_ms: u64,
    },
    /// Chooses who decides the limits.
    Policy {
        /// The policy's name.
        name: String,
    },
    /// Sends again what the digests found to differ.
    Repair {},
    /// Ends the daemon.
    Shutdown {},
}

/// What a seal compares.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verify {
    /// The leaves that were written since they were last compared.
    #[default]
    Stale,
    /// The whole disk.
    All,
}

/// What a seal answers. A daemon that was started again since it sealed knows its generation only.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Sealed {
    /// The generation that the disk is sealed for.
    pub sealed: u64,
    /// Milliseconds from the request to the end of the comparison; none: it was sealed before.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub took_ms: Option<u64>,
    /// Leaves of 64 KiB that were compared for this seal, while writes were held, and are equal.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub compared_leaves: Option<u64>,
    /// Leaves that were compared before it, are equal, and were not written since.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub compared_before_leaves: Option<u64>,
}

/// Reads a request line, without its newline.
pub fn parse_line(line: &[u8]) -> Result<Request, Failure> {
    if line.len() > LINE_BYTES_MAX {
        return Err(bad(format!("the line is longer than {LINE_BYTES_MAX} bytes")));
    }
    let mut fields: Map<String, Value> =
        serde_json::from_slice(line).map_err(|error| bad(format!("this is not a JSON object: {error}")))?;
    let id = fields.remove("id").ok_or_else(|| bad("the field \"id\" is missing"))?;
    let id = id.as_u64().ok_or_else(|| bad(format!("\"id\" must be a whole number, not {id}")))?;
    let name = match fields.remove("command") {
        Some(Value::String(name)) => name,
        Some(other) => return Err(bad(format!("\"command\" must be a string, not {other}"))),
        None => return Err(bad("the field \"command\" is missing")),
    };
    let tagged = json!({ name.as_str(): fields });
    let command =
        serde_json::from_value(tagged).map_err(|error| bad(format!("command {name:?}: {error}")))?;
    Ok(Request { id, command })
}

/// The number of a request line that could not be read otherwise, for its reply.
pub fn id_of(line: &[u8]) -> Option<u64> {
    let fields: Map<String, Value> = serde_json::from_slice(line).ok()?;
    fields.get("id")?.as_u64()
}

/// Writes a request line, with its newline.
pub fn request_line(request: &Request) -> Vec<u8> {
    let Ok(Value::Object(tagged)) = serde_json::to_value(&request.command) else {
        unreachable!("every command is written as an object with one field")
    };
    let (name, arguments) = tagged.into_iter().next().expect("the command's name");
    let mut fields = json!({ "id": request.id, "command": name });
    if let (Value::Object(fields), Value::Object(arguments)) = (&mut fields, arguments) {
        fields.extend(arguments);
    }
    line_of(&fields)
}

/// Writes a reply line, with its newline. `id` is none where the request's could not be read.
pub fn reply_line(id: Option<u64>, result: &Result<Value, Failure>) -> Vec<u8> {
    line_of(&match result {
        Ok(value) => json!({ "id": id, "ok": value }),
        Err(failure) => json!({ "id": id, "error": failure }),
    })
}

/// Reads a reply line: whose it is, and what it says. The error says why it is no reply.
pub fn parse_reply(line: &[u8]) -> Result<(Option<u64>, Result<Value, Failure>), String> {
    #[derive(Deserialize)]
    struct Reply {
        id: Option<u64>,
        ok: Option<Value>,
        error: Option<Failure>,
    }
    let reply: Reply = serde_json::from_slice(line).map_err(|error| error.to_string())?;
    match reply {
        Reply { id, error: Some(failure), ok: None } => Ok((id, Err(failure))),
        Reply { id, error: None, ok: Some(value) } => Ok((id, Ok(value))),
        _ => Err("it must have either \"ok\" or \"error\"".into()),
    }
}

fn line_of(value: &Value) -> Vec<u8> {
    let mut line = value.to_string().into_bytes();
    line.push(b'\n');
    line
}

fn bad(message: impl Into<String>) -> Failure {
    Failure::new(FailureCode::BadRequest, message, "one JSON object a line, as docs/wire.md says")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(line: &str) -> String {
        let failure = parse_line(line.as_bytes()).unwrap_err();
        assert_eq!(failure.code, FailureCode::BadRequest);
        failure.message
    }

    fn every_command() -> Vec<Command> {
        vec![
            Command::Status {},
            Command::Record { on: true },
            Command::Replicate { to: "/run/replica.sock".into(), compression: Compression::Off },
            Command::StopReplicating {},
            Command::Barrier { timeout_ms: 5 },
            Command::Seal { generation: 3, verify: Verify::All, timeout_ms: 9 },
            Command::Unseal {},
            Command::Fence { generation: 3, moved_to: "site-b".into() },
            Command::Revoke { generation: 4, moved_to: "site-a".into() },
            Command::Promote { generation: 3 },
            Command::Limits { free_writes: 16384, delay_us: 2048, valid_ms: 1000 },
            Command::Policy { name: "paper".into() },
            Command::Repair {},
            Command::Shutdown {},
        ]
    }

    #[test]
    fn every_command_is_read_as_it_was_written() {
        for (id, command) in (1..).zip(every_command()) {
            let request = Request { id, command };
            let line = request_line(&request);
            assert_eq!(parse_line(line.strip_suffix(b"\n").unwrap()).unwrap(), request);
        }
    }

    #[test]
    fn the_lines_of_the_protocol_never_change() {
        let lines: [&str; 5] = [
            r#"{"id":1,"command":"status"}"#,
            r#"{"id":1,"command":"record","on":true}"#,
            r#"{"id":1,"command":"stop-replicating"}"#,
            r#"{"id":1,"command":"seal","generation":2,"verify":"stale","timeout_ms":5}"#,
            r#"{"id":1,"command":"seal","generation":2,"timeout_ms":5}"#,
        ];
        let seal = || Command::Seal { generation: 2, verify: Verify::Stale, timeout_ms: 5 };
        let commands =
            [Command::Status {}, Command::Record { on: true }, Command::StopReplicating {}, seal(), seal()];
        for (line, command) in lines.into_iter().zip(commands) {
            assert_eq!(parse_line(line.as_bytes()).unwrap(), Request { id: 1, command });
        }
    }

    #[test]
    fn what_is_wrong_with_a_line_is_named() {
        let cases = [
            ("", "not a JSON object"),
            ("[1]", "not a JSON object"),
            (r#"{"command":"status"}"#, "\"id\" is missing"),
            (r#"{"id":-1,"command":"status"}"#, "-1"),
            (r#"{"id":1}"#, "\"command\" is missing"),
            (r#"{"id":1,"command":7}"#, "must be a string"),
            (r#"{"id":1,"command":"explode"}"#, "explode"),
            (r#"{"id":1,"command":"status","verbose":true}"#, "verbose"),
            (r#"{"id":1,"command":"record"}"#, "missing field `on`"),
            (r#"{"id":1,"command":"record","on":"yes"}"#, "yes"),
            (r#"{"id":1,"command":"record","on":true,"of":1}"#, "of"),
            (r#"{"id":1,"command":"seal","generation":1,"timeout_ms":1,"verify":"some"}"#, "some"),
        ];
        for (line, named) in cases {
            let message = refused(line);
            assert!(message.contains(named), "{line}: {message}");
        }
        let long = format!(r#"{{"id":1,"command":"policy","name":"{}"}}"#, "x".repeat(LINE_BYTES_MAX));
        assert!(refused(&long).contains("longer than 65536"));
    }

    #[test]
    fn a_bad_line_is_answered_under_its_own_number_where_it_has_one() {
        assert_eq!(id_of(br#"{"id":7,"command":"explode"}"#), Some(7));
        assert_eq!(id_of(b"what?"), None);
    }

    #[test]
    fn replies_are_read_as_they_were_written() {
        let failure = Failure::new(FailureCode::WrongGeneration, "it is 5", "ask for 6");
        for (id, result) in [(Some(1), Ok(json!({"a": 1}))), (None, Err(failure))] {
            let line = reply_line(id, &result);
            assert_eq!(parse_reply(line.strip_suffix(b"\n").unwrap()), Ok((id, result)));
        }
        let bytes = reply_line(Some(2), &Err(Failure::new(FailureCode::Timeout, "m", "h")));
        assert_eq!(bytes, b"{\"error\":{\"code\":\"timeout\",\"hint\":\"h\",\"message\":\"m\"},\"id\":2}\n");
        assert!(parse_reply(br#"{"id":1}"#).is_err());
        assert!(parse_reply(br#"{"id":1,"ok":{},"error":{"code":"io","message":"","hint":""}}"#).is_err());
    }
}
