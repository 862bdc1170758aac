//! Golden bytes of the header, round trips, torn slots, and every refusal.

use proptest::prelude::*;

use super::*;

fn golden() -> Header {
    Header {
        disk_id: "web-1.root".into(),
        size: 0x1_0000_0200,
        role: Role::Fenced,
        generation: 7,
        sealed: 6,
        recording: true,
        replica_epoch: 3,
        known_epoch: 2,
        boot_id: *b"0123456789abcdef",
        moved_to: "site-b".into(),
        replicate_to: "/run/b.rep".into(),
    }
}

fn resealed(mut bytes: [u8; HEADER_BYTES]) -> [u8; HEADER_BYTES] {
    let crc = crc32fast::hash(&bytes[..CRC_AT]);
    bytes[CRC_AT..].copy_from_slice(&crc.to_le_bytes());
    bytes
}

#[test]
fn the_bytes_of_version_1_never_change() {
    let bytes = golden().encode(9);
    let mut expected = Vec::new();
    expected.extend_from_slice(b"BLOCKDSC\x01\0\0\0\0\x10\0\0");
    expected.extend_from_slice(b"\x09\0\0\0\0\0\0\0\0\x02\0\0\x01\0\0\0");
    expected.extend_from_slice(b"\x07\0\0\0\0\0\0\0\x06\0\0\0\0\0\0\0");
    expected.extend_from_slice(b"\x03\0\0\0\0\0\0\x000123456789abcdef");
    expected.extend_from_slice(b"\x04\x01\x0a\x06\x0a\0\0\0");
    expected.extend_from_slice(b"web-1.root");
    expected.resize(144, 0);
    expected.extend_from_slice(b"site-b");
    expected.resize(400, 0);
    expected.extend_from_slice(b"/run/b.rep");
    expected.resize(656, 0);
    expected.push(2);
    expected.resize(HEADER_BYTES - 4, 0);
    assert!(bytes[..CRC_AT] == expected, "the layout changed");
    assert_eq!(u32::from_le_bytes(bytes[CRC_AT..].try_into().unwrap()), crc32fast::hash(&expected));
}

proptest! {
    #[test]
    fn what_is_encoded_is_decoded(
        disk_id in "[A-Za-z0-9._-]{1,64}",
        moved_to in "\\PC{0,60}",
        replicate_to in "\\PC{0,60}",
        numbers in any::<[u64; 6]>(),
        role in 0..4usize,
        recording in any::<bool>(),
        boot_id in any::<[u8; 16]>(),
    ) {
        let [size, generation, sealed, replica_epoch, known_epoch, sequence] = numbers;
        let role = Role::ALL[role];
        let header =
            Header { disk_id, size, role, generation, sealed, recording, replica_epoch, known_epoch, boot_id, moved_to, replicate_to };
        prop_assume!(header.check().is_ok());
        prop_assert_eq!(Header::decode(&header.encode(sequence)), Ok((sequence, header)));
    }

    #[test]
    fn one_changed_byte_is_noticed(at in 0..HEADER_BYTES, flip in 1..=255u8) {
        let mut bytes = golden().encode(1);
        bytes[at] ^= flip;
        prop_assert!(Header::decode(&bytes).is_err());
    }

    #[test]
    fn any_bytes_are_refused_without_a_panic(fields in prop::collection::vec(any::<u8>(), 399)) {
        let mut bytes = golden().encode(1);
        bytes[16..399].copy_from_slice(&fields[16..]);
        if let Ok((sequence, header)) = Header::decode(&resealed(bytes)) {
            prop_assert_eq!(&header.encode(sequence)[..], &resealed(bytes)[..]);
        }
    }
}

#[test]
fn senseless_fields_are_refused_by_name() {
    let cases: [(usize, u8, &str); 10] = [
        (12, 1, "block bytes"),
        (72, 0, "role"),
        (72, 5, "role"),
        (73, 2, "recording"),
        (74, 0, "disk id"),
        (74, 65, "disk id"),
        (77, 1, "reserved"),
        (399, 1, "reserved"),
        (655, 1, "reserved"),
        (664, 1, "reserved"),
    ];
    for (at, value, field) in cases {
        let mut bytes = golden().encode(1);
        bytes[at] = value;
        assert_eq!(Header::decode(&resealed(bytes)), Err(Unreadable::Field(field)), "byte {at}");
    }
}

#[test]
fn the_newest_whole_slot_wins() {
    let (old, new) = (golden().encode(4), Header { generation: 8, ..golden() }.encode(5));
    assert_eq!(newest([&old, &new]).unwrap().0, 1);
    assert_eq!(newest([&new, &old]).unwrap().0, 0);
    let torn: Vec<u8> = new[..512].iter().chain(&old[512..]).copied().collect();
    let (slot, sequence, header) = newest([&old, &torn]).unwrap();
    assert_eq!((slot, sequence, header), (0, 4, golden()));
    assert_eq!(newest([&torn, &torn]), Err(Unreadable::Checksum));
    assert_eq!(newest([&[0; HEADER_BYTES], &[0; 3]]), Err(Unreadable::Magic));
}

#[test]
fn a_later_format_is_refused_even_beside_an_older_slot() {
    let mut later = golden().encode(5);
    later[8] = 2;
    let later = resealed(later);
    assert_eq!(newest([&golden().encode(4), &later]), Err(Unreadable::Version(2)));
}

#[test]
fn names_that_would_not_fit_are_refused() {
    for id in ["", "a b", "über", "x/y", &"x".repeat(65)] {
        assert!(check_disk_id(id).is_err(), "{id}");
    }
    assert!(Header { moved_to: "x".repeat(256), ..golden() }.check().is_err());
    assert!(Header { moved_to: "a\nb".into(), ..golden() }.check().is_err());
    let text = check_disk_id("a b").unwrap_err().to_string();
    assert!(text.contains("\"a b\"") && text.contains("A-Z"), "{text}");
}
