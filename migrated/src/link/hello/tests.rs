//! Golden bytes that hold for ever, round trips, versions, and hostile hellos.

use proptest::prelude::*;

use super::{
    HELLO_BODY_BYTES_MAX, Hello, MAGIC, Message, PREFIX_BYTES, Pair, Purpose, REASON_BYTES_MAX, Reach,
    RefusalCode, Refused, Stripe, Welcome, negotiate,
};
use crate::link::probe::Probed;
use crate::link::wire::Malformed;

fn hello() -> Message {
    Message::Hello(Hello {
        version_min: 1,
        version_max: 3,
        purpose: Purpose::Data,
        link: [0xab; 16],
        name: "site-a".into(),
    })
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[test]
fn the_shape_of_a_hello_never_changes() {
    let welcome = Message::Welcome(Welcome { version: 1, name: "b".into() });
    let refused = Message::Refused(Refused { code: RefusalCode::NotPaired, text: "no".into() });
    assert_eq!(hex(&hello().encode()), GOLDEN_HELLO);
    assert_eq!(hex(&welcome.encode()), GOLDEN_WELCOME);
    assert_eq!(hex(&refused.encode()), GOLDEN_REFUSED);
}

#[test]
fn a_place_in_a_set_has_golden_bytes_and_bounds() {
    let stripe = Stripe { set: 0x0102_0304_0506_0708, count: 8, index: 7 };
    assert_eq!(hex(&Message::Stripe(stripe).encode()), GOLDEN_STRIPE);
    for (count, index) in [(0, 0), (1, 0), (17, 0), (8, 8)] {
        let refused = Message::decode(&Message::Stripe(Stripe { count, index, ..stripe }).encode());
        assert!(matches!(refused, Err(Malformed::Field(_))), "{count}, {index}: {refused:?}");
    }
}

#[test]
fn what_a_probe_found_has_golden_bytes() {
    let probed = Probed { bytes: 0x0102_0304_0506_0708, micros: 300_000 };
    assert_eq!(hex(&Message::Probed(probed).encode()), GOLDEN_PROBED);
}

const GOLDEN_HELLO: &str =
    "4d474c4b010020000100030003000000abababababababababababababababab0600736974652d610bf18361";
const GOLDEN_WELCOME: &str = "4d474c4b0200070001000000010062f6d9909b";
const GOLDEN_STRIPE: &str = "4d474c4b06000c0008070605040302010800070099aed79b";
const GOLDEN_PROBED: &str = "4d474c4b070010000807060504030201e093040000000000c326f2c4";
const GOLDEN_REFUSED: &str = "4d474c4b03000600020002006e6fa0ececcb";

proptest! {
    #[test]
    fn every_message_is_read_as_it_was_written(
        kind in 0..7u8, versions: (u16, u16), purpose in 0..6usize, link: [u8; 16], code in 0..8usize,
        name in "[a-z.-]{0,40}", mut text in ".{0,60}", proof: [u8; 32],
    ) {
        // What is not fit to be shown is not read as it was written.
        crate::heard::clean(&mut text);
        let reach = Reach { name: name.clone(), address: "192.0.2.1:4801".into(), data_addresses: String::new() };
        let message = match kind {
            0 => Message::Hello(Hello {
                version_min: versions.0, version_max: versions.1, purpose: Purpose::ALL[purpose], link, name,
            }),
            1 => Message::Welcome(Welcome { version: versions.0, name }),
            2 => Message::Refused(Refused { code: RefusalCode::ALL[code], text }),
            3 => Message::Pair(Pair { proof, reach }),
            4 => Message::Paired(reach),
            5 => Message::Probed(Probed { bytes: u64::from(versions.0) << 40, micros: u64::from(versions.1) }),
            _ => Message::Stripe(Stripe { set: u64::from(versions.0), count: 2 + versions.1 % 15, index: versions.1 % 2 }),
        };
        prop_assert_eq!(Message::decode(&message.encode()), Ok(message));
    }

    #[test]
    fn any_flipped_bit_is_noticed(at in 0..44usize, bit in 0..8u8) {
        let mut bytes = hello().encode();
        bytes[at] ^= 1 << bit;
        prop_assert!(Message::decode(&bytes).is_err());
    }
}

#[test]
fn the_newest_common_version_is_chosen() {
    assert_eq!(negotiate((1, 1), (1, 1)), Some(1));
    assert_eq!(negotiate((1, 1), (1, 7)), Some(1));
    // Versions that do not exist yet.
    assert_eq!(negotiate((2, 5), (4, 9)), Some(5));
    assert_eq!(negotiate((1, 1), (2, 9)), None);
    assert_eq!(negotiate((8, 9), (2, 7)), None);
    assert_eq!(negotiate((1, 1), (1, 0)), None);
}

#[test]
fn what_is_no_hello_is_refused() {
    let http = b"GET / HT";
    assert_eq!(Message::rest_bytes(http), Err(Malformed::Magic(*b"GET ")));
    let mut long = [0; PREFIX_BYTES];
    long[..4].copy_from_slice(&MAGIC);
    long[6..].copy_from_slice(&(HELLO_BODY_BYTES_MAX as u16 + 1).to_le_bytes());
    assert_eq!(Message::rest_bytes(&long), Err(Malformed::Length(HELLO_BODY_BYTES_MAX as u32 + 1)));
    let whole = hello().encode();
    for end in 0..whole.len() {
        assert!(Message::decode(&whole[..end]).is_err());
    }
}

#[test]
fn a_reason_of_a_newer_build_is_still_told() {
    let mut bytes = Message::Refused(Refused { code: RefusalCode::Busy, text: "why".into() }).encode();
    bytes[PREFIX_BYTES] = 200;
    let end = bytes.len() - 4;
    let crc = crc32fast::hash(&bytes[..end]);
    bytes[end..].copy_from_slice(&crc.to_le_bytes());
    let told = Refused { code: RefusalCode::Other, text: "why".into() };
    assert_eq!(Message::decode(&bytes), Ok(Message::Refused(told)));
}

#[test]
fn the_longest_messages_fit_their_bound() {
    let refused = Message::Refused(Refused { code: RefusalCode::Other, text: "x".repeat(REASON_BYTES_MAX) });
    assert_eq!(Message::decode(&refused.encode()), Ok(refused));
}
