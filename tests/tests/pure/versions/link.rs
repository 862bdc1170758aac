//! What two hosts say before the first frame of a link, and its frames.

use migrated::link::hello::{MAGIC, Message};
use migrated::link::token::Token;
use migrated::link::wire::{Frame, FrameType, HEADER_BYTES, Header, Malformed};

use super::values::link;
use super::{assert_same_bytes, named_bytes, text};

/// The kinds of hello that today's program knows.
fn kinds() -> Vec<u8> {
    let is_known = |kind: &u8| {
        let message = [&MAGIC[..], &[*kind, 0, 0, 0]].concat();
        let whole = [&message[..], &crc32(&message)].concat();
        !matches!(Message::decode(&whole), Err(Malformed::Type("hello", _)))
    };
    (0..=u8::MAX).filter(is_known).collect()
}

/// The checksum of a hello, taken off a frame's header, which has it of any body.
fn crc32(bytes: &[u8]) -> [u8; 4] {
    let mut frame = Vec::new();
    Frame::Data { channel: 1, offset: 0, fin: false, bytes }.encode(&mut frame);
    frame[20..24].try_into().unwrap()
}

#[test]
fn every_hello_of_0_1_0_is_read_as_it_was_meant_and_said_as_it_was_said() {
    let said = link::hellos().into_iter().map(|(name, message)| (name, message.encode())).collect();
    assert_same_bytes("link/hellos.hex", said);
    let fixtures = named_bytes("link/hellos.hex");
    for (name, bytes) in &fixtures {
        let (_, meant) = link::hellos().into_iter().find(|(known, _)| known == name).unwrap();
        assert_eq!(Message::decode(bytes).unwrap(), meant, "{name}");
    }
    let known = kinds();
    assert!(known.len() >= 7, "{known:?}");
    for kind in known {
        assert!(fixtures.iter().any(|(_, bytes)| bytes[4] == kind), "kind {kind} has no fixture");
    }
    assert_eq!(Token::parse(&text("link/token")).unwrap(), link::token());
    assert_eq!(link::token().format() + "\n", text("link/token"));
}

#[test]
fn every_frame_of_0_1_0_is_read_as_it_was_meant_and_said_as_it_was_said() {
    let said = link::frames().into_iter().map(|(name, frame)| {
        let mut bytes = Vec::new();
        frame.encode(&mut bytes);
        (name, bytes)
    });
    assert_same_bytes("link/frames.hex", said.collect());
    let mut types = Vec::new();
    for (name, bytes) in named_bytes("link/frames.hex") {
        let (_, meant) = link::frames().into_iter().find(|(known, _)| *known == name).unwrap();
        let (header, body) = bytes.split_first_chunk::<HEADER_BYTES>().unwrap();
        let header = Header::decode(header).unwrap();
        types.push(header.frame_type);
        assert_eq!(Frame::decode(&header, body).unwrap(), meant, "{name}");
    }
    assert!(FrameType::ALL.iter().all(|known| types.contains(known)), "{types:?}");
}
