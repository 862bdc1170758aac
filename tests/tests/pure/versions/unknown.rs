//! What a newer host adds to its messages: passed over everywhere but in the description of a guest.

use migrated::peer::{Asked, Bounded, Call, Message, decode, read_call};
use serde::de::DeserializeOwned;
use serde_json::{Map, Value, json};

use super::text;

/// Bounds the fuzz target to a second or two in an ordinary test run; a fuzzer ignores it.
const ITERATIONS: usize = 5_000;

/// Where an object stands in a message.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    InGuest,
    Elsewhere,
}

/// Calls `each` with every object within `value`, from the outside in.
fn each_object(value: &mut Value, place: Place, each: &mut dyn FnMut(Place, &mut Map<String, Value>)) {
    match value {
        Value::Array(list) => list.iter_mut().for_each(|one| each_object(one, place, each)),
        Value::Object(fields) => {
            for (key, field) in fields.iter_mut() {
                let place = if key == "guest" { Place::InGuest } else { place };
                each_object(field, place, each);
            }
            each(place, fields);
        }
        _ => {}
    }
}

/// Puts a field into the objects of a place that `chosen` says, by their number. How many objects there are.
fn add(value: &mut Value, wanted: Place, key: &str, new: &Value, chosen: impl Fn(usize) -> bool) -> usize {
    let mut count = 0;
    each_object(value, Place::Elsewhere, &mut |place, fields| {
        if place == wanted {
            if chosen(count) {
                fields.insert(key.to_owned(), new.clone());
            }
            count += 1;
        }
    });
    count
}

fn read<T: DeserializeOwned + Bounded>(value: &Value) -> Result<T, migrated::peer::Garbled> {
    decode(value.to_string().as_bytes())
}

/// One field more in each single object is nothing to the meaning.
fn judge_each<T: DeserializeOwned + Bounded + PartialEq + std::fmt::Debug>(file: &str) -> usize {
    let new = json!({"of": ["a", "later", {"version": 2}]});
    let mut places = 0;
    for line in text(file).lines() {
        let plain: Value = serde_json::from_str(line).unwrap();
        let meant: T = read(&plain).unwrap();
        let count = add(&mut plain.clone(), Place::Elsewhere, "new", &new, |_| false);
        for at in 0..count {
            let mut more = plain.clone();
            add(&mut more, Place::Elsewhere, "new", &new, |number| number == at);
            assert_eq!(read::<T>(&more).unwrap(), meant, "{more}");
        }
        places += count;
    }
    places
}

#[test]
fn a_field_that_is_not_known_is_passed_over_in_every_message_at_every_level() {
    // Call, request; disks, memory and link of a status; message, answer, notice: none is left out.
    assert!(judge_each::<Call>("peer/calls.jsonl") > 40);
    assert!(judge_each::<Message>("peer/messages.jsonl") >= 24);
}

#[test]
fn any_fields_that_are_not_known_are_nothing_to_a_message() {
    let of = |file: &str| {
        text(file).lines().map(|line| serde_json::from_str(line).unwrap()).collect::<Vec<Value>>()
    };
    let (calls, messages) = (of("peer/calls.jsonl"), of("peer/messages.jsonl"));
    bolero::check!().with_type::<(u8, u32, String, u64, u8)>().with_iterations(ITERATIONS).for_each(
        |(seed, mask, word, number, kind)| {
            let new = match kind % 5 {
                0 => json!(word),
                1 => json!(number),
                2 => json!([word, number, null]),
                3 => json!({ word.as_str(): {"request": word, "id": number} }),
                _ => Value::Null,
            };
            // No field of ours begins so.
            let key = format!("new-{word}");
            let chosen = |number: usize| mask >> (number % 32) & 1 == 1;
            let more = |all: &[Value]| {
                let plain = all[usize::from(*seed) % all.len()].clone();
                let mut more = plain.clone();
                add(&mut more, Place::Elsewhere, &key, &new, chosen);
                (plain, more)
            };
            let (plain, changed) = more(&calls);
            assert_eq!(read::<Call>(&changed).unwrap(), read::<Call>(&plain).unwrap());
            let (plain, changed) = more(&messages);
            assert_eq!(read::<Message>(&changed).unwrap(), read::<Message>(&plain).unwrap());
        },
    );
}

/// Without what it does not know the destination would start another guest.
#[test]
fn a_guest_of_which_something_is_not_known_is_refused_with_its_name() {
    let reserve: Value = serde_json::from_str(text("peer/calls.jsonl").lines().next().unwrap()).unwrap();
    let new = json!("a device");
    let count = add(&mut reserve.clone(), Place::InGuest, "tpm", &new, |_| false);
    assert_eq!(count, 6, "the guest, its boot, two disks, two cards");
    for at in 0..count {
        let mut more = reserve.clone();
        add(&mut more, Place::InGuest, "tpm", &new, |number| number == at);
        assert!(read::<Call>(&more).is_err(), "{more}");
        match read_call(more.to_string().as_bytes()).unwrap() {
            Asked::Unknown { id: 1, reason } => assert!(reason.contains("unknown field `tpm`"), "{reason}"),
            other => panic!("{other:?}"),
        }
    }
}
