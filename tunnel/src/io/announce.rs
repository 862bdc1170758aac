//! Tells everybody on a device's network who has an address, by a raw packet socket: `arping` speaks only for
//! addresses of its own host.

use std::io;
use std::net::Ipv4Addr;

use socket2::{Domain, SockAddr, Socket, Type};

use crate::arp;

/// Say on the device with number `index` and MAC `sender` that `address` is at `mac`.
pub fn announce(index: u32, sender: [u8; 6], address: Ipv4Addr, mac: [u8; 6]) -> io::Result<()> {
    // Protocol 0: sends, and hears nothing.
    let socket = Socket::new(Domain::PACKET, Type::RAW, None)?;
    let to = device_address(index);
    for frame in arp::announcement(address, mac, sender) {
        socket.send_to(&frame, &to)?;
    }
    Ok(())
}

/// The device as an address; whom a frame is for stands in the frame itself. A socket that is bound to it hears what ARP
/// says there.
pub fn device_address(index: u32) -> SockAddr {
    let family = libc::AF_PACKET as libc::sa_family_t;
    let link = libc::sockaddr_ll {
        sll_family: family,
        sll_protocol: (libc::ETH_P_ARP as u16).to_be(),
        sll_ifindex: index as i32,
        sll_hatype: 0,
        sll_pkttype: 0,
        sll_halen: 6,
        sll_addr: [0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0, 0],
    };
    let mut storage = socket2::SockAddrStorage::zeroed();
    // SAFETY: a storage of zeroes is large enough and aligned for every kind of socket address, this one included,
    // and all of its bytes are written before they are read.
    unsafe {
        *storage.view_as::<libc::sockaddr_ll>() = link;
        SockAddr::new(storage, size_of::<libc::sockaddr_ll>() as libc::socklen_t)
    }
}
