//! An ICMP echo request, and its answer among whatever a raw socket hears. Protocol: RFC 792.

use std::net::Ipv4Addr;

const ECHO_REPLY: u8 = 0;
const ECHO_REQUEST: u8 = 8;

/// A request with `key` as its identifier and sequence number.
pub fn request(key: u32) -> [u8; 8] {
    let mut packet = [0; 8];
    packet[0] = ECHO_REQUEST;
    packet[4..].copy_from_slice(&key.to_be_bytes());
    let sum = checksum(&packet).to_be_bytes();
    packet[2..4].copy_from_slice(&sum);
    packet
}

/// Whether `packet`, with its IP header, is `from`'s answer to the request with `key`.
pub fn is_reply(packet: &[u8], from: Ipv4Addr, key: u32) -> bool {
    let Some(first) = packet.first() else { return false };
    let header_bytes = usize::from(first & 0xf) * 4;
    let (Some(source), Some(icmp)) = (packet.get(12..16), packet.get(header_bytes..)) else { return false };
    header_bytes >= 20
        && first >> 4 == 4
        && source == from.octets()
        && icmp.len() >= 8
        && icmp[..2] == [ECHO_REPLY, 0]
        && icmp[4..8] == key.to_be_bytes()
        && checksum(icmp) == 0
}

/// The ones' complement of the ones' complement sum. Zero over a packet that holds its own.
fn checksum(bytes: &[u8]) -> u16 {
    let word = |pair: &[u8]| u32::from(pair[0]) << 8 | u32::from(*pair.get(1).unwrap_or(&0));
    let mut sum: u32 = bytes.chunks(2).map(word).sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

#[cfg(test)]
mod tests {
    use super::{checksum, is_reply, request};
    use std::net::Ipv4Addr;

    const FROM: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 1);

    fn reply(key: u32) -> Vec<u8> {
        let mut packet = vec![0x45, 0, 0, 28, 0, 0, 0, 0, 64, 1, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2];
        let mut icmp = request(key);
        icmp[0] = 0;
        icmp[2..4].fill(0);
        let sum = checksum(&icmp).to_be_bytes();
        icmp[2..4].copy_from_slice(&sum);
        packet.extend(icmp);
        packet
    }

    #[test]
    fn a_request_holds_its_own_checksum() {
        assert_eq!(request(0x0001_0009), [8, 0, 0xf7, 0xf5, 0, 1, 0, 9]);
        assert_eq!(checksum(&request(0xdead_beef)), 0);
    }

    #[test]
    fn only_the_whole_answer_of_the_asked_one_counts() {
        let good = reply(77);
        assert!(is_reply(&good, FROM, 77));
        assert!(!is_reply(&good, FROM, 78));
        assert!(!is_reply(&good, Ipv4Addr::new(10, 0, 0, 3), 77));
        for len in 0..good.len() {
            assert!(!is_reply(&good[..len], FROM, 77), "{len}");
        }
        for at in [0, 20, 21, 22, 24] {
            let mut bad = good.clone();
            bad[at] ^= 0x83;
            assert!(!is_reply(&bad, FROM, 77), "{at}");
        }
    }
}
