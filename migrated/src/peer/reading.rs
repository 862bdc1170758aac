//! What of another version's message is understood here.
//!
//! ```text
//! bytes ──┬── a kind that is known ── fields that are not ──► passed over
//!         │                       └── cannot be read ───────► the link ends; a reservation is refused
//!         └── another kind: request ──► refused, which promises nothing
//!                           answer ───► its caller fails
//!                           notice ───► passed over
//! ```
//!
//! A link outlives what one host alone knows of: a newer host may try something, and hears that it was in vain. Nothing
//! is ever done of a message that was not understood. What a newer host may send at all is in `docs/wire.md`.

use serde::Deserialize;

use super::check::text;
use super::{Answer, Call, Garbled, Message, Notice, Request, decode};

/// What a source asks for, as a destination understands it.
#[derive(Clone, Debug, PartialEq)]
pub enum Asked {
    /// Something that is known here.
    Call(Call),
    /// Something of which nothing can be done here.
    Unknown {
        /// The call's number.
        id: u64,
        /// With which words it is to be refused.
        reason: String,
    },
}

/// What a destination says, as a source understands it.
#[derive(Clone, Debug, PartialEq)]
pub enum Told {
    /// Something that is known here.
    Message(Message),
    /// An answer of a kind that is not.
    UnknownAnswer {
        /// The call's number.
        id: u64,
        /// Its kind.
        kind: String,
    },
    /// A notice, or something else that nobody waits for, of a kind that is not.
    Unknown {
        /// Its kind.
        kind: String,
    },
}

/// A call of which only the kind counts.
#[derive(Deserialize)]
struct AnyCall {
    id: u64,
    request: AnyRequest,
}

#[derive(Deserialize)]
struct AnyRequest {
    request: String,
}

/// A message of which only the kind counts.
#[derive(Deserialize)]
struct AnyMessage {
    message: String,
    id: Option<u64>,
    answer: Option<AnyAnswer>,
    notice: Option<AnyNotice>,
}

#[derive(Deserialize)]
struct AnyAnswer {
    answer: String,
}

#[derive(Deserialize)]
struct AnyNotice {
    notice: String,
}

/// Reads the body of a call.
pub fn read_call(body: &[u8]) -> Result<Asked, Garbled> {
    let error = match decode(body) {
        Ok(call) => return Ok(Asked::Call(call)),
        Err(Garbled::Json(error)) => error,
        Err(other) => return Err(other),
    };
    let Ok(AnyCall { id, request: AnyRequest { request } }) = serde_json::from_slice(body) else {
        return Err(error.into());
    };
    let here = concat!("this host (migrated ", env!("CARGO_PKG_VERSION"), ")");
    let mut reason = if !Request::NAMES.contains(&request.as_str()) {
        let request: String = request.chars().take(WORD_CHARS_MAX).collect();
        format!(
            "{here} does not know the request {request:?}; the other host is of a newer version: upgrade this one"
        )
    } else if request == "reserve" {
        format!(
            "{here} cannot read what is to come: {error}; if the other host is of a newer version, upgrade this one"
        )
    } else {
        // A refusal of one that is known may be a promise.
        return Err(error.into());
    };
    text(&mut reason);
    Ok(Asked::Unknown { id, reason })
}

/// The longest kind that is shown.
const WORD_CHARS_MAX: usize = 64;

/// Reads the body of a destination's message.
pub fn read_message(body: &[u8]) -> Result<Told, Garbled> {
    let error = match decode(body) {
        Ok(message) => return Ok(Told::Message(message)),
        Err(Garbled::Json(error)) => error,
        Err(other) => return Err(other),
    };
    let Ok(any) = serde_json::from_slice::<AnyMessage>(body) else { return Err(error.into()) };
    let shown = |kind: &str| {
        let mut kind = kind.chars().take(WORD_CHARS_MAX).collect();
        text(&mut kind);
        kind
    };
    match (any.message.as_str(), any.id, any.answer, any.notice) {
        ("answer", Some(id), Some(AnyAnswer { answer }), _) if !Answer::NAMES.contains(&answer.as_str()) => {
            Ok(Told::UnknownAnswer { id, kind: shown(&answer) })
        }
        ("notice", _, _, Some(AnyNotice { notice })) if !Notice::NAMES.contains(&notice.as_str()) => {
            Ok(Told::Unknown { kind: shown(&notice) })
        }
        ("answer" | "notice", ..) => Err(error.into()),
        (kind, ..) => Ok(Told::Unknown { kind: shown(kind) }),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn call(request: Value) -> Result<Asked, Garbled> {
        read_call(json!({ "id": 7, "request": request }).to_string().as_bytes())
    }

    fn message(value: Value) -> Result<Told, Garbled> {
        read_message(value.to_string().as_bytes())
    }

    #[test]
    fn a_request_of_another_kind_is_refused_by_name_and_one_that_is_garbled_ends_the_link() {
        let Asked::Unknown { id: 7, reason } = call(json!({"request": "explode\u{1b}", "at": 1})).unwrap()
        else {
            panic!("it is not known")
        };
        assert!(
            reason.contains(r#"does not know the request "explode"#) && !reason.contains('\u{1b}'),
            "{reason}"
        );
        let long = "x".repeat(100_000);
        let Asked::Unknown { reason, .. } = call(json!({"request": long})).unwrap() else {
            panic!("it is not known")
        };
        assert!(reason.len() < 300, "{} bytes", reason.len());
        let garbled = [
            json!({"request": "take", "migration": "m"}),
            json!({"request": "verdict", "migration": "m", "generation": -1}),
            json!({"request": 5}),
            json!("take"),
            json!({}),
        ];
        for request in garbled {
            assert!(matches!(call(request.clone()), Err(Garbled::Json(_))), "{request}");
        }
        assert!(read_call(br#"{"request":{"request":"explode"}}"#).is_err(), "nobody could be answered");
        let bad = json!({"request": "take", "migration": "../x", "generation": 1, "run": true, "why": ""});
        assert!(matches!(call(bad), Err(Garbled::Bounds(_))));
    }

    #[test]
    fn a_reservation_that_cannot_be_read_is_refused_with_what_is_wrong() {
        let refused = call(json!({"request": "reserve", "migration": "m"})).unwrap();
        let Asked::Unknown { id: 7, reason } = refused else { panic!("it cannot be read") };
        assert!(reason.contains("missing field"), "{reason}");
    }

    #[test]
    fn an_answer_of_another_kind_fails_its_caller_alone_and_a_notice_is_passed_over() {
        let answer = json!({"message": "answer", "id": 3, "answer": {"answer": "perhaps", "why": 1}});
        assert_eq!(message(answer).unwrap(), Told::UnknownAnswer { id: 3, kind: "perhaps".into() });
        let notice = json!({"message": "notice", "notice": {"notice": "warm", "degrees": 40}});
        assert_eq!(message(notice).unwrap(), Told::Unknown { kind: "warm".into() });
        let other = json!({"message": "song", "id": 3, "words": []});
        assert_eq!(message(other).unwrap(), Told::Unknown { kind: "song".into() });
        for garbled in [
            json!({"message": "answer", "id": 3, "answer": {"answer": "verdict", "taken": true}}),
            json!({"message": "answer", "answer": {"answer": "perhaps"}}),
            json!({"message": "notice", "notice": {"notice": "failed"}}),
            json!({"message": "notice"}),
            json!({"id": 3}),
        ] {
            assert!(matches!(message(garbled.clone()), Err(Garbled::Json(_))), "{garbled}");
        }
    }
}
