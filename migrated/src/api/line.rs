//! The API's lines: one JSON object a line, both ways. Bytes in, values out.
//!
//! ```text
//! ► {"id":1,"command":"send","guest":"web","to":"site-b","wan":true}
//! ◄ {"id":1,"ok":…}     or     {"id":1,"error":{"code":"not-found","message":"…","hint":"…"}}
//! ```
//!
//! A line has bounds in both directions. Unknown commands, unknown arguments and wrong types are refused by name, so
//! that a typing error never does something else.

use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::{Command, Failure, FailureCode};

/// The longest request line in bytes, without its newline.
pub const REQUEST_BYTES_MAX: usize = 256 * 1024;
/// The longest reply line in bytes, without its newline: the report of a long migration has many events.
pub const REPLY_BYTES_MAX: usize = 16 * 1024 * 1024;

/// A command with the number that its reply carries.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// The client's number.
    pub id: u64,
    /// What is asked.
    pub command: Command,
}

/// A request line that cannot be answered otherwise than with this.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BadLine {
    /// The request's number, where it could be read.
    pub id: Option<u64>,
    /// What is wrong with it.
    pub failure: Failure,
}

/// Reads a request line, without its newline.
pub fn parse_request(line: &[u8]) -> Result<Request, BadLine> {
    if line.len() > REQUEST_BYTES_MAX {
        return Err(bad(None, format!("the line is longer than {REQUEST_BYTES_MAX} bytes")));
    }
    let mut fields: Map<String, Value> = serde_json::from_slice(line)
        .map_err(|error| bad(None, format!("this is not a JSON object: {error}")))?;
    let id = fields.remove("id").ok_or_else(|| bad(None, "the field \"id\" is missing"))?;
    let id = id.as_u64().ok_or_else(|| bad(None, format!("\"id\" must be a whole number, not {id}")))?;
    let name = match fields.get("command") {
        Some(Value::String(name)) => name.clone(),
        Some(other) => return Err(bad(Some(id), format!("\"command\" must be a string, not {other}"))),
        None => return Err(bad(Some(id), "the field \"command\" is missing")),
    };
    let command = serde_json::from_value(Value::Object(fields))
        .map_err(|error| bad(Some(id), format!("command {name:?}: {error}")))?;
    Ok(Request { id, command })
}

/// Writes a request line, with its newline.
pub fn request_line(request: &Request) -> Vec<u8> {
    let Ok(Value::Object(mut fields)) = serde_json::to_value(&request.command) else {
        unreachable!("every command is written as an object")
    };
    fields.insert("id".to_owned(), json!(request.id));
    ended(&Value::Object(fields))
}

/// Writes a reply line, with its newline. `id` is none where the request's could not be read.
pub fn reply_line(id: Option<u64>, result: &Result<Value, Failure>) -> Vec<u8> {
    let line = ended(&match result {
        Ok(value) => json!({ "id": id, "ok": value }),
        Err(failure) => json!({ "id": id, "error": failure }),
    });
    if line.len() <= REPLY_BYTES_MAX {
        return line;
    }
    let message = format!("the answer is longer than {REPLY_BYTES_MAX} bytes");
    let failure = Failure::new(FailureCode::Failed, message, "ask for one migration instead of all");
    ended(&json!({ "id": id, "error": failure }))
}

/// Reads a reply line: whose it is, and what it says. The error says why it is no reply.
pub fn parse_reply(line: &[u8]) -> Result<(Option<u64>, Result<Value, Failure>), String> {
    #[derive(Deserialize)]
    struct Reply {
        id: Option<u64>,
        #[serde(default, deserialize_with = "present")]
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

/// A field that is there is there, also when it is null.
fn present<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Option<Value>, D::Error> {
    Value::deserialize(deserializer).map(Some)
}

fn ended(value: &Value) -> Vec<u8> {
    let mut line = value.to_string().into_bytes();
    line.push(b'\n');
    line
}

fn bad(id: Option<u64>, message: impl Into<String>) -> BadLine {
    let hint = "one JSON object a line, as docs/operating.md says";
    BadLine { id, failure: Failure::new(FailureCode::BadRequest, message, hint) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::Send;

    fn every_command() -> Vec<Command> {
        let guest = toml::from_str(include_str!("../../../docs/examples/web.toml")).unwrap();
        let send = Send {
            guest: "web".into(),
            to: "site-b".into(),
            wan: true,
            dry_run: false,
            bandwidth_bytes_per_s: Some(2_500_000),
            max_downtime_ms: None,
            transport: None,
            cold: false,
            compression: None,
            time_limit: None,
        };
        vec![
            Command::Run { guest, restore: Some("/var/tmp/web.state".into()) },
            Command::Stop { guest: "web".into(), now: true, save: None },
            Command::Pause { guest: "web".into(), paused: true },
            Command::List {},
            Command::Status { migration: Some("0e2f9a61".into()) },
            Command::Send(send),
            Command::Cancel { migration: "0e2f9a61".into() },
            Command::Hosts {},
            Command::Pair {},
            Command::PairWith { token: "site-b@192.0.2.1:7070/abc".into() },
            Command::Unpair { host: "site-b".into() },
        ]
    }

    #[test]
    fn every_command_is_read_as_it_was_written() {
        for (id, command) in (1..).zip(every_command()) {
            let request = Request { id, command };
            let line = request_line(&request);
            assert_eq!(parse_request(line.strip_suffix(b"\n").unwrap()), Ok(request));
        }
    }

    #[test]
    fn the_lines_of_the_protocol_never_change() {
        let send = Send {
            guest: "web".into(),
            to: "site-b".into(),
            wan: false,
            dry_run: false,
            bandwidth_bytes_per_s: None,
            max_downtime_ms: None,
            transport: None,
            cold: false,
            compression: None,
            time_limit: None,
        };
        let lines: [(&str, Command); 6] = [
            (r#"{"id":1,"command":"list"}"#, Command::List {}),
            (r#"{"id":1,"command":"status"}"#, Command::Status { migration: None }),
            (r#"{"id":1,"command":"send","guest":"web","to":"site-b"}"#, Command::Send(send)),
            (r#"{"id":1,"command":"pair-with","token":"t"}"#, Command::PairWith { token: "t".into() }),
            (r#"{"id":1,"command":"cancel","migration":"web"}"#, Command::Cancel { migration: "web".into() }),
            (
                r#"{"id":1,"command":"stop","guest":"web"}"#,
                Command::Stop { guest: "web".into(), now: false, save: None },
            ),
        ];
        for (line, command) in lines {
            assert_eq!(parse_request(line.as_bytes()), Ok(Request { id: 1, command }), "{line}");
        }
    }

    #[test]
    fn what_is_wrong_with_a_line_is_named_and_answered_under_its_number() {
        let cases = [
            ("", None, "not a JSON object"),
            ("[1]", None, "not a JSON object"),
            (r#"{"command":"list"}"#, None, "\"id\" is missing"),
            (r#"{"id":-1,"command":"list"}"#, None, "-1"),
            (r#"{"id":1}"#, Some(1), "\"command\" is missing"),
            (r#"{"id":1,"command":7}"#, Some(1), "must be a string"),
            (r#"{"id":2,"command":"explode"}"#, Some(2), "explode"),
            (r#"{"id":2,"command":"list","all":true}"#, Some(2), "all"),
            (r#"{"id":2,"command":"pause","guest":"web"}"#, Some(2), "missing field `paused`"),
            (r#"{"id":2,"command":"pause","guest":"web","paused":"yes"}"#, Some(2), "yes"),
            (r#"{"id":3,"command":"send","guest":"web","to":"b","turbo":1}"#, Some(3), "turbo"),
            (r#"{"id":3,"command":"run","guest":{"name":"web"}}"#, Some(3), "memory_mib"),
        ];
        for (line, id, named) in cases {
            let bad = parse_request(line.as_bytes()).unwrap_err();
            assert_eq!((bad.id, bad.failure.code), (id, FailureCode::BadRequest), "{line}");
            assert!(bad.failure.message.contains(named), "{line}: {}", bad.failure.message);
        }
        let long = format!(r#"{{"id":1,"command":"unpair","host":"{}"}}"#, "x".repeat(REQUEST_BYTES_MAX));
        assert!(parse_request(long.as_bytes()).unwrap_err().failure.message.contains("longer than 262144"));
    }

    #[test]
    fn replies_are_read_as_they_were_written() {
        let failure = Failure::new(FailureCode::NotFound, "there is no guest \"x\"", "see `migrated list`");
        for (id, result) in [(Some(1), Ok(json!({"a": 1}))), (Some(2), Ok(Value::Null)), (None, Err(failure))]
        {
            let line = reply_line(id, &result);
            assert_eq!(parse_reply(line.strip_suffix(b"\n").unwrap()), Ok((id, result)));
        }
        let bytes = reply_line(Some(2), &Err(Failure::new(FailureCode::Conflict, "m", "h")));
        assert_eq!(bytes, b"{\"error\":{\"code\":\"conflict\",\"hint\":\"h\",\"message\":\"m\"},\"id\":2}\n");
        assert!(parse_reply(br#"{"id":1}"#).is_err());
        assert!(
            parse_reply(br#"{"id":1,"ok":{},"error":{"code":"failed","message":"","hint":""}}"#).is_err()
        );
    }

    #[test]
    fn an_answer_that_is_too_long_becomes_a_refusal() {
        let line = reply_line(Some(1), &Ok(Value::String("x".repeat(REPLY_BYTES_MAX))));
        let (id, result) = parse_reply(line.strip_suffix(b"\n").unwrap()).unwrap();
        assert_eq!((id, result.unwrap_err().code), (Some(1), FailureCode::Failed));
    }
}
