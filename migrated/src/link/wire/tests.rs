//! Golden bytes, round trips, and everything that a header or a body must not be.

use proptest::prelude::*;

use super::{BODY_BYTES_MAX, Frame, HEADER_BYTES, Header, Malformed, TEXT_BYTES_MAX, put_data};
use crate::link::Label;

fn encoded(frame: &Frame<'_>) -> Vec<u8> {
    let mut out = Vec::new();
    frame.encode(&mut out);
    out
}

fn decoded(bytes: &[u8]) -> Result<Frame<'_>, Malformed> {
    let (head, body) = bytes.split_first_chunk().expect("a whole header");
    Frame::decode(&Header::decode(head)?, body)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Changes a header and makes its checksum right again.
fn resealed(mut bytes: Vec<u8>, change: impl FnOnce(&mut [u8])) -> Vec<u8> {
    change(&mut bytes[..24]);
    let crc = crc32fast::hash(&bytes[..24]);
    bytes[24..28].copy_from_slice(&crc.to_le_bytes());
    bytes
}

#[test]
fn golden_bytes() {
    let open = Frame::Open { channel: 3, label: Label::Ram(1), credit: 0x10000 };
    let data = Frame::Data { channel: 3, offset: 0x1122, fin: true, bytes: b"abc" };
    let ack = Frame::Ack { channel: 2, received: 5, fin: false, credit: 0x0102_0304 };
    let ping = Frame::Ping { nonce: 7 };
    let close = Frame::Close { text: "bye".into() };
    let golden = [
        (open, GOLDEN_OPEN),
        (data, GOLDEN_DATA),
        (ack, GOLDEN_ACK),
        (Frame::Reset { channel: 2 }, GOLDEN_RESET),
        (Frame::Resumed, GOLDEN_RESUMED),
        (ping, GOLDEN_PING),
        (close, GOLDEN_CLOSE),
    ];
    for (frame, expected) in golden {
        assert_eq!(hex(&encoded(&frame)), expected, "{frame:?}");
    }
}

const GOLDEN_OPEN: &str = "010000000300000000000000000000000c00000004acd528715d184c030001000000010000000000";
const GOLDEN_DATA: &str = "0201000003000000221100000000000003000000c24124359458eea7616263";
const GOLDEN_ACK: &str = "0300000002000000050000000000000008000000b54328a05453564b0403020100000000";
const GOLDEN_RESET: &str = "040000000200000000000000000000000000000000000000f3220900";
const GOLDEN_RESUMED: &str = "0500000000000000000000000000000000000000000000005831e24b";
const GOLDEN_PING: &str = "060000000000000007000000000000000000000000000000056005ee";
const GOLDEN_CLOSE: &str = "0800000000000000000000000000000005000000ebc5f40975f63aa60300627965";

fn labels() -> impl Strategy<Value = Label> {
    prop_oneof![Just(Label::Control), any::<u16>().prop_map(Label::Disk), any::<u16>().prop_map(Label::Ram)]
}

proptest! {
    #[test]
    fn every_frame_is_read_as_it_was_written(
        kind in 0..8u8, channel in 1..=u32::MAX, place in 0..u64::MAX / 2, fin: bool, label in labels(),
        bytes in prop::collection::vec(any::<u8>(), 1..300), mut text in ".{0,40}",
    ) {
        // What is not fit to be shown is not read as it was written.
        crate::heard::clean(&mut text);
        let frame = match kind {
            0 => Frame::Open { channel, label, credit: place },
            1 => Frame::Data { channel, offset: place, fin, bytes: &bytes },
            2 => Frame::Ack { channel, received: place, fin, credit: place / 2 },
            3 => Frame::Reset { channel },
            4 => Frame::Resumed,
            5 => Frame::Ping { nonce: place },
            6 => Frame::Pong { nonce: place },
            _ => Frame::Close { text },
        };
        let written = encoded(&frame);
        prop_assert_eq!(decoded(&written), Ok(frame));
    }

    #[test]
    fn any_flipped_bit_is_noticed(at in 0..31usize, bit in 0..8u8) {
        let mut bytes = encoded(&Frame::Data { channel: 1, offset: 5, fin: false, bytes: b"abc" });
        bytes[at] ^= 1 << bit;
        prop_assert!(decoded(&bytes).is_err());
    }
}

#[test]
fn data_in_two_pieces_is_the_same_frame() {
    let mut pieces = Vec::new();
    put_data(&mut pieces, 1, 9, true, (b"ab", b"cde"));
    assert_eq!(pieces, encoded(&Frame::Data { channel: 1, offset: 9, fin: true, bytes: b"abcde" }));
}

#[test]
fn what_a_header_must_not_say_is_refused() {
    let data = || encoded(&Frame::Data { channel: 1, offset: 5, fin: false, bytes: b"abc" });
    let ping = || encoded(&Frame::Ping { nonce: 1 });
    let cases = [
        (resealed(data(), |header| header[0] = 9), Malformed::Type("frame", 9)),
        (resealed(data(), |header| header[0] = 0), Malformed::Type("frame", 0)),
        (resealed(data(), |header| header[1] = 2), Malformed::Reserved("header's flags")),
        (resealed(ping(), |header| header[1] = 1), Malformed::Reserved("header's flags")),
        (resealed(data(), |header| header[2] = 1), Malformed::Reserved("header")),
        (
            resealed(data(), |header| {
                header[16..20].copy_from_slice(&(BODY_BYTES_MAX as u32 + 1).to_le_bytes())
            }),
            Malformed::Length(BODY_BYTES_MAX as u32 + 1),
        ),
    ];
    for (bytes, expected) in cases {
        assert_eq!(decoded(&bytes), Err(expected));
    }
    for bytes in [
        resealed(data(), |header| header[4..8].fill(0)),
        resealed(ping(), |header| header[4] = 1),
        resealed(encoded(&Frame::Resumed), |header| header[8] = 1),
        resealed(data(), |header| header[8..16].fill(0xff)),
    ] {
        assert!(matches!(decoded(&bytes), Err(Malformed::Field(_))));
    }
}

#[test]
fn bodies_that_are_not_of_their_type_are_refused() {
    let sealed = |frame: &Frame<'_>, body: &[u8]| {
        let mut bytes = encoded(frame)[..HEADER_BYTES].to_vec();
        bytes.extend_from_slice(body);
        resealed(bytes, |header| {
            header[16..20].copy_from_slice(&(body.len() as u32).to_le_bytes());
            header[20..24].copy_from_slice(&crc32fast::hash(body).to_le_bytes());
        })
    };
    let open = Frame::Open { channel: 1, label: Label::Control, credit: 0 };
    let credit = [0; 8];
    let body = |start: [u8; 4]| [start.as_slice(), &credit].concat();
    assert_eq!(decoded(&sealed(&open, &body([4, 0, 0, 0]))), Err(Malformed::Type("label", 4)));
    assert_eq!(decoded(&sealed(&open, &body([2, 1, 0, 0]))), Err(Malformed::Reserved("body")));
    assert_eq!(decoded(&sealed(&open, &body([1, 0, 1, 0]))), Err(Malformed::Reserved("control label")));
    assert_eq!(decoded(&sealed(&open, &[1, 0, 0, 0, 9])), Err(Malformed::Truncated("body")));
    assert_eq!(decoded(&sealed(&Frame::Resumed, b"x")), Err(Malformed::Truncated("body")));
    assert_eq!(decoded(&sealed(&Frame::Ping { nonce: 1 }, b"x")), Err(Malformed::Truncated("body")));
    let data = Frame::Data { channel: 1, offset: 0, fin: false, bytes: b"x" };
    assert!(matches!(decoded(&sealed(&data, b"")), Err(Malformed::Field(_))));
    let close = Frame::Close { text: String::new() };
    assert!(matches!(decoded(&sealed(&close, &[2, 0, 0xff, 0xff])), Err(Malformed::Field(_))));
}

#[test]
fn a_long_reason_is_cut_at_a_letter() {
    let text = "ä".repeat(TEXT_BYTES_MAX);
    let written = encoded(&Frame::Close { text });
    assert_eq!(decoded(&written), Ok(Frame::Close { text: "ä".repeat(TEXT_BYTES_MAX / 2) }));
}

/// What the page says in a table of names and numbers under a heading.
fn table(heading: &str) -> Vec<(String, u64)> {
    let page = include_str!("../../../../docs/wire.md");
    let (_, after) = page.split_once(&format!("{heading}\n")).expect("docs/wire.md has the heading");
    let section = after.split("\n#").next().unwrap_or_default();
    let row = |line: &str| {
        let mut cells = line.split('|').map(str::trim).skip(1);
        let name = cells.next()?.strip_prefix('`')?.strip_suffix('`')?;
        Some((name.to_owned(), cells.next()?.parse().ok()?))
    };
    section.lines().filter_map(row).collect()
}

#[test]
fn the_tables_of_the_page_are_those_of_the_code() {
    use crate::link::hello::{Purpose, RefusalCode};
    use crate::link::{channel, hello, probe, session, stripes};
    let types = super::FrameType::ALL.map(|kind| (format!("{kind:?}"), kind as u64));
    assert_eq!(table("### Frame types of the link"), types);
    let purposes = Purpose::ALL.map(|purpose| (format!("{purpose:?}"), purpose as u64));
    assert_eq!(table("### Purposes"), purposes);
    let codes = RefusalCode::ALL.map(|code| (format!("{code:?}"), code as u64));
    assert_eq!(table("### Refusals"), codes);
    let bounds = [
        ("VERSION_MAX", u64::from(hello::VERSION_MAX)),
        ("HELLO_BODY_BYTES_MAX", hello::HELLO_BODY_BYTES_MAX as u64),
        ("NAME_BYTES_MAX", hello::NAME_BYTES_MAX as u64),
        ("REASON_BYTES_MAX", hello::REASON_BYTES_MAX as u64),
        ("HEADER_BYTES", HEADER_BYTES as u64),
        ("BODY_BYTES_MAX", BODY_BYTES_MAX as u64),
        ("TEXT_BYTES_MAX", TEXT_BYTES_MAX as u64),
        ("INITIAL_CREDIT_BYTES", channel::INITIAL_CREDIT_BYTES),
        ("WINDOW_BYTES_MAX", channel::WINDOW_BYTES_MAX),
        ("CONTROL_WINDOW_BYTES", channel::CONTROL_WINDOW_BYTES),
        ("CHANNELS_MAX", session::CHANNELS_MAX as u64),
        ("CHANNELS_EVER_MAX", u64::from(session::CHANNELS_EVER_MAX)),
        ("STRIPES_MAX", u64::from(stripes::STRIPES_MAX)),
        ("PROBE_BYTES_MAX", probe::PROBE_BYTES_MAX),
        ("RECORD_HEADER_BYTES", stripes::RECORD_HEADER_BYTES as u64),
        ("RECORD_BYTES_MAX", stripes::RECORD_BYTES_MAX as u64),
    ];
    assert_eq!(table("### Bounds of the link"), bounds.map(|(name, value)| (name.to_owned(), value)));
}
