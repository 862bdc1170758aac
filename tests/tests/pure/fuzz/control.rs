//! Any bytes on the control socket: an answer or a refusal, never a panic.

use blockd::control::{LINE_BYTES_MAX, id_of, parse_line, parse_reply, request_line};

/// Bounds each target to a second or two in an ordinary test run; a fuzzer ignores it.
const ITERATIONS: usize = 20_000;

const ALPHABET: &[&str] = &[
    "{",
    "}",
    "[",
    "]",
    ":",
    ",",
    "\"",
    "\\u",
    "\"id\":1,",
    "\"id\":",
    "\"command\":",
    "\"status\"",
    "\"record\"",
    "\"on\":true",
    "\"seal\"",
    "\"generation\":",
    "\"verify\":\"all\"",
    "\"timeout_ms\":",
    "18446744073709551616",
    "-1",
    "1e999",
    "null",
    "\"ok\":",
    "\"error\":",
    "\"code\":\"io\"",
    "\"limits\"",
    "\"free_writes\":1,\"delay_us\":2,\"valid_ms\":3",
];

fn check(line: &[u8]) {
    match parse_line(line) {
        Ok(request) => {
            assert!(line.len() <= LINE_BYTES_MAX);
            assert_eq!(id_of(line), Some(request.id));
            let written = request_line(&request);
            assert_eq!(parse_line(&written[..written.len() - 1]), Ok(request));
        }
        Err(failure) => assert!(!failure.message.is_empty()),
    }
    let _ = parse_reply(line);
}

#[test]
fn any_bytes_are_read_or_refused() {
    bolero::check!().with_iterations(ITERATIONS).with_max_len(512).for_each(check);
}

#[test]
fn any_sequence_of_the_protocols_own_pieces_is_read_or_refused() {
    bolero::check!().with_iterations(ITERATIONS).with_type::<Vec<u8>>().for_each(|picks| {
        let pieces = picks.iter().map(|pick| ALPHABET[usize::from(*pick) % ALPHABET.len()]);
        check(pieces.collect::<String>().as_bytes());
    });
}
