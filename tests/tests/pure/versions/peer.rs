//! Messages of two daemons: read as 0.1.0 meant them, said as it said them.

use migrated::peer::{Answer, Bounded, Call, Message, Notice, Request, decode, encode};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::values::peer;
use super::{assert_covered, kinds, text};

/// Today's program reads each line of a fixture as this value, and says this value in the same words.
#[track_caller]
fn assert_same<T>(file: &str, expected: &[T])
where
    T: DeserializeOwned + Serialize + Bounded + PartialEq + std::fmt::Debug,
{
    let text = text(file);
    assert_eq!(text.lines().count(), expected.len());
    for (line, expected) in text.lines().zip(expected) {
        assert_eq!(&decode::<T>(line.as_bytes()).unwrap(), expected, "{line}");
        let length = u32::try_from(line.len()).unwrap().to_be_bytes();
        assert_eq!(encode(expected), [&length, line.as_bytes()].concat(), "{line}");
    }
}

#[test]
fn every_message_of_0_1_0_is_read_as_it_was_meant_and_said_as_it_was_said() {
    assert_same::<Call>("peer/calls.jsonl", &peer::calls());
    assert_same::<Message>("peer/messages.jsonl", &peer::messages());
    assert_eq!(peer::reserve().faults(), [""; 0]);
}

#[test]
fn every_kind_of_message_has_a_fixture_or_is_newer() {
    let line = |line: &str| serde_json::from_str::<Value>(line).unwrap();
    let calls: Vec<Value> = text("peer/calls.jsonl").lines().map(line).collect();
    let messages: Vec<Value> = text("peer/messages.jsonl").lines().map(line).collect();
    let requests = kinds::<Request>(json!({"request": "?"}));
    let answers = kinds::<Answer>(json!({"answer": "?"}));
    let notices = kinds::<Notice>(json!({"notice": "?"}));
    // By these names it is told what is not known from what is garbled.
    assert_eq!(
        (&requests[..], &answers[..]),
        (&Request::NAMES.map(String::from)[..], &Answer::NAMES.map(String::from)[..])
    );
    assert_eq!(notices, Notice::NAMES);
    assert_covered("request", requests, |kind| calls.iter().any(|call| call["request"]["request"] == kind));
    assert_covered("answer", answers, |kind| messages.iter().any(|one| one["answer"]["answer"] == kind));
    assert_covered("notice", notices, |kind| messages.iter().any(|one| one["notice"]["notice"] == kind));
    for call in peer::calls() {
        assert!(Request::NAMES.contains(&call.request.name()));
    }
}
