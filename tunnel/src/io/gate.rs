//! Puts a key into the set `open` of a filter, or takes it out: one short message of nfnetlink, where the nft
//! program needs milliseconds to start.
//!
//! ```text
//! begin (subsystem nftables) · new or delete set element { table, set, elements { element { key { value }}}} · end
//! ```
//!
//! Source: linux/netfilter/nfnetlink.h and nf_tables.h. Attributes are in the host's byte order but for values.

use super::netlink::{ACK, Request};
use crate::change::Family;

const BATCH_BEGIN: u16 = 0x10;
const BATCH_END: u16 = 0x11;
const SUBSYSTEM: u16 = 10;
const NEW_ELEMENT: u16 = 12;
const DELETE_ELEMENT: u16 = 14;
/// Only a request.
const PLAIN: u16 = 0x0001;
const CREATE: u16 = 0x0400;
const NESTED: u16 = 0x8000;
const FAMILY_INET: u8 = 1;
const FAMILY_IPV4: u8 = 2;
const FAMILY_BRIDGE: u8 = 7;

/// The batch that opens or closes a gate.
pub fn requests(family: Family, table: &str, key: &[u8], open: bool) -> Vec<Request> {
    let number = match family {
        Family::Bridge => FAMILY_BRIDGE,
        Family::Ip => FAMILY_IPV4,
        Family::Inet => FAMILY_INET,
    };
    let (kind, flags) = if open { (NEW_ELEMENT, ACK | CREATE) } else { (DELETE_ELEMENT, ACK) };
    let mut payload = generic(number, 0);
    attribute(&mut payload, 1, &[table.as_bytes(), b"\0"].concat());
    attribute(&mut payload, 2, b"open\0");
    // The list, its element, the element's key, the key's value.
    let value = nested(1, key);
    let element = nested(NESTED | 1, &value);
    let list = nested(NESTED | 1, &element);
    attribute(&mut payload, NESTED | 3, &list);
    vec![
        Request { kind: BATCH_BEGIN, flags: PLAIN, payload: generic(0, SUBSYSTEM) },
        Request { kind: SUBSYSTEM << 8 | kind, flags, payload },
        Request { kind: BATCH_END, flags: PLAIN, payload: generic(0, SUBSYSTEM) },
    ]
}

fn generic(family: u8, resource: u16) -> Vec<u8> {
    let [high, low] = resource.to_be_bytes();
    vec![family, 0, high, low]
}

fn nested(kind: u16, value: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    attribute(&mut bytes, kind, value);
    bytes
}

fn attribute(bytes: &mut Vec<u8>, kind: u16, value: &[u8]) {
    let len_bytes = (4 + value.len()) as u16;
    bytes.extend(len_bytes.to_ne_bytes());
    bytes.extend(kind.to_ne_bytes());
    bytes.extend(value);
    bytes.resize(bytes.len().next_multiple_of(4), 0);
}

#[cfg(test)]
mod tests {
    use super::requests;
    use crate::change::Family;

    #[test]
    #[cfg(target_endian = "little")]
    fn the_message_is_the_one_that_nft_sends() {
        let [begin, element, end] =
            requests(Family::Bridge, "move7", &[1, 2, 3, 4, 5, 6], true).try_into().unwrap();
        assert_eq!((begin.kind, begin.payload.as_slice()), (16, &[0, 0, 0, 10][..]));
        assert_eq!((end.kind, end.payload.as_slice()), (17, &[0, 0, 0, 10][..]));
        assert_eq!((element.kind, element.flags), (0x0a0c, 0x0405));
        let golden = [
            &[7, 0, 0, 0][..],
            &[10, 0, 1, 0, b'm', b'o', b'v', b'e', b'7', 0, 0, 0],
            &[9, 0, 2, 0, b'o', b'p', b'e', b'n', 0, 0, 0, 0],
            &[24, 0, 3, 0x80],
            &[20, 0, 1, 0x80],
            &[16, 0, 1, 0x80],
            &[10, 0, 1, 0, 1, 2, 3, 4, 5, 6, 0, 0],
        ];
        assert_eq!(element.payload, golden.concat());
    }
}
