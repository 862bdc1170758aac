//! The Ethernet frame that says who has an address, to everybody, unasked.
//!
//! Twice, as a request for the own address and as an answer to nobody: some systems believe the one, some the
//! other. Protocol: RFC 826; the announcement: RFC 5227, section 3.

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
    [frame(1, address, mac, sender, request), frame(2, address, mac, sender, reply)]
}

fn frame(operation: u8, address: Ipv4Addr, mac: [u8; 6], sender: [u8; 6], target_mac: [u8; 6]) -> Frame {
    let mut frame = [0; 60];
    frame[..6].copy_from_slice(&[0xff; 6]);
    frame[6..12].copy_from_slice(&sender);
    frame[12..14].copy_from_slice(&[0x08, 0x06]);
    // Ethernet (1), IPv4 (0x0800), their addresses of 6 and 4 bytes, the operation.
    frame[14..22].copy_from_slice(&[0, 1, 8, 0, 6, 4, 0, operation]);
    frame[22..28].copy_from_slice(&mac);
    frame[28..32].copy_from_slice(&address.octets());
    frame[32..38].copy_from_slice(&target_mac);
    frame[38..42].copy_from_slice(&address.octets());
    frame
}

#[cfg(test)]
mod tests {
    use super::announcement;
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
}
