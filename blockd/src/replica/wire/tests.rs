//! Golden bytes of every frame, round trips, and every refusal.

use proptest::prelude::*;

use super::{
    BODY_BYTES_MAX, DIFFERING_MAX, DISK_ID_BYTES_MAX, FrameType, HEADER_BYTES, Header, Hello, MAGIC,
    Malformed, RefusalCode, Refused, TEXT_BYTES_MAX, VERSION, Welcome, decode_differing, decode_generation,
    decode_text, encode_differing, encode_generation, encode_text, frame,
};
use crate::replica::batch::{ASKED_MAX, ITEMS_MAX, RAW_BYTES_MAX};

/// The normative description.
const DOCUMENT: &str = include_str!("../../../../docs/wire.md");

fn header_of(bytes: &[u8]) -> Result<Header, Malformed> {
    Header::decode(bytes[..HEADER_BYTES].try_into().unwrap())
}

/// Makes a header's checksum right again after a change.
fn seal_header(bytes: &mut [u8]) {
    let crc = crc32fast::hash(&bytes[..32]);
    bytes[32..36].copy_from_slice(&crc.to_le_bytes());
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The digits of a golden text; spaces are for people.
fn golden(text: &str) -> String {
    text.split_whitespace().collect()
}

fn hello() -> Hello {
    Hello { version_min: 1, version_max: 2, size: 0x1122_3344, generation: 7, disk_id: "vm1-vda".into() }
}

/// PINNED FOR EVER. A build of any version has to be able to read the hello of any other, to refuse
/// it in words. Never change these bytes, whatever the version: change the code.
#[test]
fn the_bytes_of_hello_and_refused_are_the_same_for_ever() {
    let bytes = frame(FrameType::Hello, 0x0102, 0, &hello().encode());
    let expected = "4d52504c 01 000000 0201000000000000 0000000000000000 21000000 0c96be43 aaa35644
        0100 0200 00000000 4433221100000000 0700000000000000 0700 766d312d766461";
    assert_eq!(hex(&bytes), golden(expected));
    let refused = Refused { code: RefusalCode::StaleEpoch, detail: 9, text: "old".into() };
    let bytes = frame(FrameType::Refused, 0x0102, 0, &refused.encode());
    let expected = "4d52504c 03 000000 0201000000000000 0000000000000000 0f000000 4b1b865d 3b407fa9
        0400 0900000000000000 0300 6f6c64";
    assert_eq!(hex(&bytes), golden(expected));
}

/// These belong to version 1: a change of them needs a new version.
#[test]
fn the_bytes_of_every_other_frame_are_those_of_version_1() {
    assert_eq!(VERSION, 1);
    let generation = encode_generation(0x0a0b);
    let cases = [
        (
            FrameType::Welcome,
            Welcome { version: 1, existing: true, previous_epoch: 7 }.encode(),
            "02",
            "0100 01 00 0700000000000000",
        ),
        (FrameType::Batch, vec![0; 12], "04", "00000000 00 000000 00000000"),
        (FrameType::Ack, encode_differing(&[3, 5]), "05", "02000000 0300000000000000 0500000000000000"),
        (FrameType::Seal, generation.clone(), "06", "0b0a000000000000"),
        (FrameType::Sealed, generation.clone(), "07", "0b0a000000000000"),
        (FrameType::Unseal, generation, "08", "0b0a000000000000"),
        (FrameType::Failed, encode_text("no space"), "09", "0800 6e6f207370616365"),
    ];
    for (frame_type, body, number, expected) in cases {
        let bytes = frame(frame_type, 0x05, 0x06, &body);
        let start = golden(&format!("4d52504c {number} 000000 0500000000000000 0600000000000000"));
        assert_eq!(hex(&bytes[..24]), start);
        assert_eq!(bytes[24..28], (body.len() as u32).to_le_bytes());
        assert_eq!(bytes[28..32], crc32fast::hash(&body).to_le_bytes());
        assert_eq!(hex(&bytes[HEADER_BYTES..]), golden(expected));
    }
}

proptest! {
    #[test]
    fn a_frame_is_read_as_it_was_written(
        number in 0..FrameType::ALL.len(), epoch: u64, seq: u64, body in prop::collection::vec(any::<u8>(), 0..200)
    ) {
        let bytes = frame(FrameType::ALL[number], epoch, seq, &body);
        let header = header_of(&bytes).unwrap();
        prop_assert_eq!(header, Header::for_body(FrameType::ALL[number], epoch, seq, &body));
        prop_assert_eq!(header.body_bytes as usize, bytes.len() - HEADER_BYTES);
        prop_assert_eq!(header.check_body(&bytes[HEADER_BYTES..]), Ok(()));
    }

    #[test]
    fn every_message_is_read_as_it_was_written(
        version_min: u16, version_max: u16, size: u64, generation: u64, existing: bool,
        disk_id in "[a-zA-Z0-9._-]{1,64}", text in ".{0,256}", code in 0..RefusalCode::ALL.len(),
        leaves in prop::collection::btree_set(any::<u64>(), 0..50),
    ) {
        let hello = Hello { version_min, version_max, size, generation, disk_id };
        prop_assert_eq!(Hello::decode(&hello.encode()), Ok(hello));
        let welcome = Welcome { version: version_min, existing, previous_epoch: size };
        prop_assert_eq!(Welcome::decode(&welcome.encode()), Ok(welcome));
        prop_assert_eq!(decode_text(&encode_text(&text)), Ok(text.clone()));
        let refused = Refused { code: RefusalCode::ALL[code], detail: size, text };
        prop_assert_eq!(Refused::decode(&refused.encode()), Ok(refused));
        prop_assert_eq!(decode_generation(&encode_generation(generation)), Ok(generation));
        let leaves: Vec<u64> = leaves.into_iter().collect();
        prop_assert_eq!(decode_differing(&encode_differing(&leaves)), Ok(leaves));
    }

    #[test]
    fn a_bit_that_flips_anywhere_is_noticed(
        body in prop::collection::vec(any::<u8>(), 1..100), at: prop::sample::Index, bit in 0..8u8
    ) {
        let mut bytes = frame(FrameType::Batch, 1, 2, &body);
        let at = at.index(bytes.len());
        bytes[at] ^= 1 << bit;
        let whole = header_of(&bytes).and_then(|header| header.check_body(&bytes[HEADER_BYTES..]));
        prop_assert!(whole.is_err());
    }

    #[test]
    fn any_bytes_are_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        read_as_everything(&bytes);
        let mut header = [0; HEADER_BYTES];
        let len = bytes.len().min(HEADER_BYTES);
        header[..len].copy_from_slice(&bytes[..len]);
        header[..4].copy_from_slice(&MAGIC);
        seal_header(&mut header);
        if let Ok(read) = Header::decode(&header) {
            prop_assert_eq!(read.encode(), header);
        }
    }
}

/// Reads bytes as each kind of body. What is accepted has to be written as the same bytes again,
/// so that there is one form of each message only.
fn read_as_everything(bytes: &[u8]) {
    let written = [
        Hello::decode(bytes).map(|hello| hello.encode()),
        Welcome::decode(bytes).map(|welcome| welcome.encode()),
        Refused::decode(bytes).map(|refused| refused.encode()),
        decode_differing(bytes).map(|leaves| encode_differing(&leaves)),
        decode_generation(bytes).map(encode_generation),
        decode_text(bytes).map(|text| encode_text(&text)),
    ];
    written.into_iter().flatten().for_each(|again| assert_eq!(again, bytes));
}

#[test]
fn a_header_is_refused_for_each_thing_that_can_be_wrong_with_it() {
    let good = frame(FrameType::Ack, 1, 2, &encode_differing(&[]));
    let changed = |at: usize, byte: u8| {
        let mut bytes = good.clone();
        bytes[at] = byte;
        seal_header(&mut bytes);
        header_of(&bytes)
    };
    assert_eq!(changed(3, b'!'), Err(Malformed::Magic(*b"MRP!")));
    assert_eq!(changed(4, 0), Err(Malformed::Type(0)));
    assert_eq!(changed(4, 10), Err(Malformed::Type(10)));
    for reserved in 5..8 {
        assert_eq!(changed(reserved, 1), Err(Malformed::Reserved("header")));
    }
    let mut torn = good.clone();
    torn[35] ^= 1;
    assert_eq!(header_of(&torn), Err(Malformed::Checksum("header")));
    let header = header_of(&good).unwrap();
    assert_eq!(header.check_body(b"other"), Err(Malformed::Checksum("body")));
}

#[test]
fn a_body_may_be_as_long_as_the_limit_and_no_longer() {
    let of = |body_bytes: usize| {
        let body_bytes = body_bytes as u32;
        let header = Header { frame_type: FrameType::Batch, epoch: 1, seq: 1, body_bytes, body_crc: 0 };
        Header::decode(&header.encode()).map(|header| header.body_bytes)
    };
    assert_eq!(of(BODY_BYTES_MAX), Ok(BODY_BYTES_MAX as u32));
    assert_eq!(of(BODY_BYTES_MAX + 1), Err(Malformed::Length(BODY_BYTES_MAX as u32 + 1)));
}

#[test]
fn a_body_that_is_cut_or_goes_on_is_refused_at_every_length() {
    let refused = Refused { code: RefusalCode::StaleGeneration, detail: 1, text: "gone".into() };
    type Read = fn(&[u8]) -> Option<Malformed>;
    let cases: [(Vec<u8>, Read); 6] = [
        (hello().encode(), |body| Hello::decode(body).err()),
        (Welcome { version: 1, existing: false, previous_epoch: 0 }.encode(), |body| {
            Welcome::decode(body).err()
        }),
        (refused.encode(), |body| Refused::decode(body).err()),
        (encode_differing(&[1, 2]), |body| decode_differing(body).err()),
        (encode_generation(1), |body| decode_generation(body).err()),
        (encode_text("why"), |body| decode_text(body).err()),
    ];
    for (body, read) in cases {
        assert_eq!(read(&body), None);
        for end in 0..body.len() {
            assert!(matches!(read(&body[..end]), Some(Malformed::Truncated(_))), "{end} of {body:?}");
        }
        let longer = [body, vec![0]].concat();
        assert!(matches!(read(&longer), Some(Malformed::Truncated(_))), "{longer:?}");
    }
}

#[test]
fn fields_out_of_their_bounds_are_refused() {
    let mut body = hello().encode();
    body[5] = 1;
    assert_eq!(Hello::decode(&body), Err(Malformed::Reserved("hello")));
    for head in [[1, 0, 2, 0], [1, 0, 1, 1]] {
        let body = [&head[..], &[0; 8]].concat();
        assert_eq!(Welcome::decode(&body), Err(Malformed::Reserved("welcome")));
    }
    for code in [0, 7] {
        let mut body =
            Refused { code: RefusalCode::StaleGeneration, detail: 0, text: String::new() }.encode();
        body[0] = code;
        assert_eq!(Refused::decode(&body), Err(Malformed::Field("unknown code in a refusal")));
    }
    let too_many = (DIFFERING_MAX as u32 + 1).to_le_bytes();
    assert_eq!(
        decode_differing(&too_many),
        Err(Malformed::Field("an acknowledgement names too many leaves"))
    );
    assert_eq!(decode_text(&[2, 0, 0xc3, 0x28]), Err(Malformed::Field("a text is not UTF-8")));
}

#[test]
fn an_acknowledgement_names_each_leaf_once_and_in_ascending_order() {
    for leaves in [[2, 1], [2, 2]] {
        let refused = decode_differing(&encode_differing(&leaves));
        assert_eq!(refused, Err(Malformed::Field("an acknowledgement's leaves are not in ascending order")));
    }
    let most: Vec<u64> = (0..DIFFERING_MAX as u64).collect();
    let body = encode_differing(&most);
    assert!(body.len() <= BODY_BYTES_MAX);
    assert_eq!(decode_differing(&body), Ok(most));
}

#[test]
fn a_text_that_is_announced_longer_than_allowed_is_refused() {
    let text = |len: usize| [&(len as u16).to_le_bytes()[..], &vec![b'x'; len]].concat();
    let refused = Err(Malformed::Field("a text is longer than allowed"));
    assert!(decode_text(&text(TEXT_BYTES_MAX)).is_ok());
    assert_eq!(decode_text(&text(TEXT_BYTES_MAX + 1)), refused);
    let with_id = |len: usize| [&[0; 24][..], &text(len)].concat();
    assert!(Hello::decode(&with_id(DISK_ID_BYTES_MAX)).is_ok());
    assert!(Hello::decode(&with_id(DISK_ID_BYTES_MAX + 1)).is_err());
}

#[test]
fn a_text_that_is_too_long_is_cut_between_two_characters() {
    let text = format!("x{}", "é".repeat(TEXT_BYTES_MAX));
    let read = decode_text(&encode_text(&text)).unwrap();
    assert_eq!(read.len(), TEXT_BYTES_MAX - 1);
    assert!(text.starts_with(&read));
    let fits = "é".repeat(TEXT_BYTES_MAX / 2);
    assert_eq!(decode_text(&encode_text(&fits)), Ok(fits));
}

/// The rows of the table under a heading of the document: name and number.
pub(in crate::replica) fn documented(heading: &str) -> Vec<(String, u64)> {
    let (_, after) = DOCUMENT.split_once(&format!("{heading}\n")).expect("docs/wire.md has the heading");
    let section = after.split("\n#").next().unwrap_or_default();
    let rows = section.lines().filter(|line| line.starts_with("| `"));
    let cells = rows.map(|row| row.split('|').map(str::trim).collect::<Vec<_>>());
    let row = |cells: Vec<&str>| (cells[1].trim_matches('`').to_owned(), cells[2].parse().expect("a number"));
    cells.map(row).collect()
}

#[test]
fn the_numbers_of_the_document_are_those_of_the_code() {
    let types = FrameType::ALL.map(|known| (format!("{known:?}"), known as u64));
    assert_eq!(documented("### Frame types"), types);
    let codes = RefusalCode::ALL.map(|known| (format!("{known:?}"), known as u64));
    assert_eq!(documented("### Refusal codes"), codes);
    let bounds = [
        ("VERSION", VERSION as u64),
        ("HEADER_BYTES", HEADER_BYTES as u64),
        ("BODY_BYTES_MAX", BODY_BYTES_MAX as u64),
        ("DISK_ID_BYTES_MAX", DISK_ID_BYTES_MAX as u64),
        ("TEXT_BYTES_MAX", TEXT_BYTES_MAX as u64),
        ("DIFFERING_MAX", DIFFERING_MAX as u64),
        ("ITEMS_MAX", ITEMS_MAX as u64),
        ("RAW_BYTES_MAX", RAW_BYTES_MAX as u64),
        ("ASKED_MAX", ASKED_MAX),
        ("BLOCK_BYTES", crate::extent::BLOCK_BYTES),
        ("LEAF_BYTES", crate::extent::LEAF_BYTES),
    ];
    assert_eq!(documented("### Bounds"), bounds.map(|(name, number)| (name.to_owned(), number)));
}
