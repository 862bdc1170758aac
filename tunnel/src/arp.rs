//! Ethernet frames about who has an address: the one that says so unasked, the question, and what answers it.
//!
//! The announcement goes out twice, as a request for the own address and as an answer to nobody: some systems believe the
//! one, some the other. The question has no sender's address, so nobody's table is changed by it, and hosts that answer for
//! others (proxy ARP of Linux) are silent: who answers has the address himself.
//!
//! Protocol: RFC 826; the announcement: RFC 5227, section 3; the question: section 2.1.1.

use std::net::Ipv4Addr;

/// A frame without its checksum, padded to the least that Ethernet carries.
pub type Frame = [u8; 60];

/// Both forms of "`address` is at `mac`", sent by `sender`.
///
/// `sender` is the machine whose port the frame leaves by: bridges and switches learn from it. It differs from
/// `mac` when one machine speaks for another.
pub fn announcement(address: Ipv4Addr, mac: [u8; 6], sender: [u8; 6]) -> [Frame; 2] {
    let request = [0; 6];
    let reply = mac;
    let said = |operation, target| frame(operation, sender, (address, mac), (address, target));
    [said(REQUEST, request), said(REPLY, reply)]
}

/// "Who has `address`?", asked by nobody in particular from the port of `sender`.
pub fn probe(address: Ipv4Addr, sender: [u8; 6]) -> Frame {
    frame(REQUEST, sender, (Ipv4Addr::UNSPECIFIED, sender), (address, [0; 6]))
}

/// The address that a frame's sender has, and its MAC; none: the frame does not say (RFC 5227, section 2.1.1: a request
/// says it as well as an answer).
pub fn claim(frame: &[u8]) -> Option<(Ipv4Addr, [u8; 6])> {
    let head = frame.get(12..20)?;
    let operation = frame.get(20..22)?;
    let is_one = head == HEAD && (operation == [0, REQUEST] || operation == [0, REPLY]);
    let mac: [u8; 6] = frame.get(22..28)?.try_into().ok()?;
    let address: [u8; 4] = frame.get(28..32)?.try_into().ok()?;
    let address = Ipv4Addr::from(address);
    // The question itself.
    (is_one && frame.len() >= ARP_BYTES && !address.is_unspecified()).then_some((address, mac))
}

const REQUEST: u8 = 1;
const REPLY: u8 = 2;
/// The type of the frame; then Ethernet (1), IPv4 (0x0800), and their addresses of 6 and 4 bytes.
const HEAD: [u8; 8] = [0x08, 0x06, 0, 1, 8, 0, 6, 4];
/// The frame without what pads it.
const ARP_BYTES: usize = 42;

fn frame(
    operation: u8,
    port: [u8; 6],
    (address, mac): (Ipv4Addr, [u8; 6]),
    (target, target_mac): (Ipv4Addr, [u8; 6]),
) -> Frame {
    let mut frame = [0; 60];
    frame[..6].copy_from_slice(&[0xff; 6]);
    frame[6..12].copy_from_slice(&port);
    frame[12..20].copy_from_slice(&HEAD);
    frame[20..22].copy_from_slice(&[0, operation]);
    frame[22..28].copy_from_slice(&mac);
    frame[28..32].copy_from_slice(&address.octets());
    frame[32..38].copy_from_slice(&target_mac);
    frame[38..42].copy_from_slice(&target.octets());
    frame
}

#[cfg(test)]
mod tests {
    use super::{announcement, claim, probe};
    use std::net::Ipv4Addr;

    #[test]
    fn an_announcement_is_a_request_and_an_answer_to_everybody() {
        let (mac, sender) = ([0x52, 0x54, 0, 0, 0, 1], [2, 0, 0, 0, 0, 9]);
        let [request, reply] = announcement(Ipv4Addr::new(10, 1, 0, 100), mac, sender);
        let golden = "ffffffffffff020000000009080600010800060400015254000000010a0100640000000000000a010064";
        let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
        assert_eq!(hex(&request[..42]), golden);
        assert_eq!(request[42..], [0; 18]);
        assert_eq!(hex(&reply[20..42]), "00025254000000010a0100645254000000010a010064");
        assert_eq!(request[..20], reply[..20]);
    }

    #[test]
    fn a_question_tells_nobody_anything_and_whatever_answers_it_tells_who_has_the_address() {
        let (mac, sender, address) =
            ([0x52, 0x54, 0, 0, 0, 1], [2, 0, 0, 0, 0, 9], Ipv4Addr::new(10, 1, 0, 100));
        let question = probe(address, sender);
        let golden = "ffffffffffff02000000000908060001080006040001020000000009000000000000000000000a010064";
        let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
        assert_eq!(hex(&question[..42]), golden);
        assert_eq!(claim(&question), None);
        for said in announcement(address, mac, sender) {
            assert_eq!(claim(&said), Some((address, mac)));
            // Without the bytes that pad it, and no shorter.
            assert_eq!(claim(&said[..42]), Some((address, mac)));
            assert!((0..42).all(|len| claim(&said[..len]).is_none()));
            for (at, other) in [(12, 0x86), (15, 6), (16, 0), (18, 8), (19, 16), (21, 3), (20, 1)] {
                let mut bad = said;
                bad[at] = other;
                assert_eq!(claim(&bad), None, "{at}");
            }
        }
    }
}
