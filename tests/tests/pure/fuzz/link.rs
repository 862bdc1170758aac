//! Hostile bytes against the link: frames, the hello, a token, and a whole session.
//!
//! Under plain `cargo test` each target runs a bounded number of inputs; under a fuzzing engine (`cargo bolero test`) it
//! runs for as long as it is let.

use std::time::Duration;

use migrated::link::hello::{Message, PREFIX_BYTES};
use migrated::link::session::{Next, Session, Side};
use migrated::link::token::Token;
use migrated::link::wire::{BODY_BYTES_MAX, Frame, HEADER_BYTES, Header};
use migrated::link::{Label, Lane};

/// Bounds each target to a second or two in an ordinary test run; a fuzzer ignores it.
const ITERATIONS: usize = 20_000;

/// Makes the checksum of a header right, by way of the code under test.
fn reseal(header: &mut [u8; HEADER_BYTES]) {
    let mut probe = Vec::new();
    Frame::Data { channel: 1, offset: 0, fin: false, bytes: &header[..24] }.encode(&mut probe);
    header[24..28].copy_from_slice(&probe[20..24]);
}

#[test]
fn any_header_is_refused_or_is_written_as_it_was_read() {
    bolero::check!().with_type::<([u8; HEADER_BYTES], bool)>().with_iterations(ITERATIONS).for_each(
        |(bytes, plausible)| {
            let mut bytes = *bytes;
            if *plausible {
                bytes[0] %= 10;
                bytes[1] %= 2;
                bytes[2..4].fill(0);
                bytes[18..20].fill(0);
            }
            reseal(&mut bytes);
            match Header::decode(&bytes) {
                Ok(header) => {
                    assert_eq!(header.encode(), bytes);
                    assert!(header.body_bytes as usize <= BODY_BYTES_MAX);
                }
                Err(malformed) => assert!(!malformed.to_string().is_empty()),
            }
        },
    );
}

#[test]
fn any_hello_is_refused_or_is_written_as_it_was_read() {
    bolero::check!().with_iterations(ITERATIONS).with_max_len(256).for_each(|bytes: &[u8]| {
        let whole = sealed_hello(bytes);
        for bytes in [bytes, &whole] {
            if let Some(prefix) = bytes.first_chunk::<PREFIX_BYTES>() {
                let _ = Message::rest_bytes(prefix);
            }
            match Message::decode(bytes) {
                // An unknown reason of a refusal is read as `Other`, and so is not written as it was.
                Ok(Message::Refused(_)) => {}
                Ok(message) => assert_eq!(message.encode(), bytes),
                Err(malformed) => assert!(!malformed.to_string().is_empty()),
            }
        }
    });
}

/// A message whose outside is right.
fn sealed_hello(body: &[u8]) -> Vec<u8> {
    let kind = 1 + body.first().copied().unwrap_or(0) % 7;
    let mut bytes = b"MGLK".to_vec();
    bytes.extend_from_slice(&[kind, 0]);
    bytes.extend_from_slice(&(body.len() as u16).to_le_bytes());
    bytes.extend_from_slice(body);
    let mut probe = Vec::new();
    Frame::Data { channel: 1, offset: 0, fin: false, bytes: &bytes }.encode(&mut probe);
    bytes.extend_from_slice(&probe[20..24]);
    bytes
}

#[test]
fn any_token_is_refused_or_is_printed_as_it_was_read() {
    bolero::check!().with_iterations(ITERATIONS).with_max_len(160).for_each(|bytes: &[u8]| {
        if let Ok(token) = Token::parse(&String::from_utf8_lossy(bytes)) {
            assert_eq!(Token::parse(&token.format()), Ok(token));
        }
    });
}

/// A frame as a fuzzer finds it easy to make: type, channel, offset or credit, length, end, lane.
type AnyFrame = (u8, u8, u16, u8, bool, bool);

fn frame<'a>(&(kind, channel, place, len, fin, _): &AnyFrame, bytes: &'a [u8; 256]) -> Frame<'a> {
    let channel = u32::from(channel % 9) + 1;
    let place = u64::from(place);
    let label = match len % 3 {
        0 => Label::Control,
        1 => Label::Disk(u16::from(len)),
        _ => Label::Ram(0),
    };
    match kind % 12 {
        0..3 => Frame::Open { channel, label, credit: place },
        3..6 => {
            Frame::Data { channel, offset: place % 64, fin: fin || len == 0, bytes: &bytes[..len.into()] }
        }
        6 => Frame::Ack { channel, received: place % 64, fin, credit: place },
        7 => Frame::Reset { channel },
        8 => Frame::Resumed,
        9 => Frame::Ping { nonce: place },
        10 => Frame::Pong { nonce: place },
        _ => Frame::Close { text: String::new() },
    }
}

#[test]
fn a_session_takes_any_frames_without_harm() {
    bolero::check!().with_type::<(Vec<AnyFrame>, bool)>().with_iterations(ITERATIONS / 4).for_each(
        |(frames, dialler)| {
            let mut session = Session::new(if *dialler { Side::Dialler } else { Side::Listener });
            let mut now = Duration::from_secs(1);
            Lane::ALL.into_iter().for_each(|lane| session.attach(lane, now));
            let own = session.open(Label::Ram(0)).expect("there is room");
            let bytes = [7; 256];
            for picked in frames.iter().take(200) {
                now += Duration::from_millis(u64::from(picked.3));
                let lane = if picked.5 { Lane::Control } else { Lane::Data };
                let breach = session.handle_frame(lane, &frame(picked, &bytes), now);
                let _ = session.write(own, &bytes);
                while let Some((id, _)) = session.accept() {
                    let _ = session.read(id, &mut [0; 64]);
                }
                let mut out = Vec::new();
                for lane in Lane::ALL {
                    while session.poll_frame(lane, now, &mut out) == Next::Frames {}
                }
                assert_well_formed(&out);
                while session.poll_event().is_some() {}
                if let Err(breach) = breach {
                    session.close(&breach.to_string());
                }
            }
        },
    );
}

fn assert_well_formed(mut bytes: &[u8]) {
    while let Some((head, rest)) = bytes.split_first_chunk::<HEADER_BYTES>() {
        let header = Header::decode(head).expect("a good header");
        let (body, rest) = rest.split_at(header.body_bytes as usize);
        Frame::decode(&header, body).expect("a good frame");
        bytes = rest;
    }
    assert!(bytes.is_empty(), "a torn frame");
}
