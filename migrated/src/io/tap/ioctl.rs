//! The kernel's calls for taps and bridges, which have no safe wrapper: `TUNSETIFF` and a few of `SIOC…`.
//!
//! Each takes a `struct ifreq` with the interface's name. Nothing is decided here.

use std::fs::{File, OpenOptions};
use std::io;
use std::mem::zeroed;
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::fs::OpenOptionsExt;

use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};

const TUNSETIFF: libc::c_ulong = 0x4004_54ca;
const TUNSETPERSIST: libc::c_ulong = 0x4004_54cb;
const TUNSETOWNER: libc::c_ulong = 0x4004_54cc;
const SIOCBRADDIF: libc::c_ulong = 0x89a2;
/// Hardware type of Ethernet.
const ARPHRD_ETHER: libc::sa_family_t = 1;

/// Makes a tap and lets it stay, for this user to open (without one, any user might), or lets it go.
pub fn make_persistent(name: &str, owner: Option<u32>) -> io::Result<()> {
    let tun: File =
        OpenOptions::new().read(true).write(true).custom_flags(libc::O_CLOEXEC).open("/dev/net/tun")?;
    let mut request = request(name)?;
    request.ifr_ifru.ifru_flags = (libc::IFF_TAP | libc::IFF_NO_PI | libc::IFF_VNET_HDR) as libc::c_short;
    call(tun.as_raw_fd(), TUNSETIFF, &mut request)?;
    if let Some(owner) = owner {
        // SAFETY: this one takes a number, not a pointer.
        check(unsafe { libc::ioctl(tun.as_raw_fd(), TUNSETOWNER, libc::c_ulong::from(owner)) })?;
    }
    // SAFETY: so does this one.
    let done = unsafe { libc::ioctl(tun.as_raw_fd(), TUNSETPERSIST, libc::c_int::from(owner.is_some())) };
    check(done)
}

/// The interface's number.
pub fn index(name: &str) -> io::Result<libc::c_int> {
    let mut request = request(name)?;
    on_socket(libc::SIOCGIFINDEX, &mut request)?;
    // SAFETY: SIOCGIFINDEX has filled this field.
    Ok(unsafe { request.ifr_ifru.ifru_ifindex })
}

/// Sets the hardware address.
pub fn set_mac(name: &str, mac: [u8; 6]) -> io::Result<()> {
    let mut request = request(name)?;
    // SAFETY: all bits zero is a valid address.
    let mut address: libc::sockaddr = unsafe { zeroed() };
    address.sa_family = ARPHRD_ETHER;
    for (to, from) in address.sa_data.iter_mut().zip(mac) {
        *to = from as libc::c_char;
    }
    request.ifr_ifru.ifru_hwaddr = address;
    on_socket(libc::SIOCSIFHWADDR, &mut request)
}

/// Makes an interface a port of a bridge; one that is a port of it already stays one.
pub fn add_to_bridge(bridge: &str, name: &str) -> io::Result<()> {
    let mut request = request(bridge)?;
    request.ifr_ifru.ifru_ifindex = index(name)?;
    match on_socket(SIOCBRADDIF, &mut request) {
        Err(error) if error.raw_os_error() == Some(libc::EBUSY) => Ok(()),
        other => other,
    }
}

/// Switches an interface on or off.
pub fn set_up(name: &str, up: bool) -> io::Result<()> {
    let bit = libc::IFF_UP as libc::c_short;
    let flags = flags(name)?;
    let mut request = request(name)?;
    request.ifr_ifru.ifru_flags = if up { flags | bit } else { flags & !bit };
    on_socket(libc::SIOCSIFFLAGS, &mut request)
}

/// Whether an interface is switched on.
pub fn is_up(name: &str) -> io::Result<bool> {
    Ok(flags(name)? & libc::IFF_UP as libc::c_short != 0)
}

fn flags(name: &str) -> io::Result<libc::c_short> {
    let mut request = request(name)?;
    on_socket(libc::SIOCGIFFLAGS, &mut request)?;
    // SAFETY: SIOCGIFFLAGS has filled this field.
    Ok(unsafe { request.ifr_ifru.ifru_flags })
}

fn request(name: &str) -> io::Result<libc::ifreq> {
    // SAFETY: all bits zero is a valid request.
    let mut request: libc::ifreq = unsafe { zeroed() };
    if name.is_empty() || name.len() >= request.ifr_name.len() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, format!("{name:?} is no interface's name")));
    }
    for (to, from) in request.ifr_name.iter_mut().zip(name.bytes()) {
        *to = from as libc::c_char;
    }
    Ok(request)
}

fn on_socket(number: libc::c_ulong, request: &mut libc::ifreq) -> io::Result<()> {
    let socket = socket(AddressFamily::Inet, SockType::Datagram, SockFlag::SOCK_CLOEXEC, None)?;
    call(socket.as_raw_fd(), number, request)
}

fn call(fd: RawFd, number: libc::c_ulong, request: &mut libc::ifreq) -> io::Result<()> {
    // SAFETY: all of these calls take a `struct ifreq`, and the kernel reads and writes no more than that.
    let done = unsafe { libc::ioctl(fd, number, std::ptr::from_mut(request)) };
    check(done)
}

fn check(done: libc::c_int) -> io::Result<()> {
    if done < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
