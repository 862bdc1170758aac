//! What of this host a tunnel depends on: its bridge, the way to the other end, and what other tunnels remember. Changes
//! nothing.

use std::io;
use std::net::Ipv4Addr;

use nix::sys::socket::{getsockopt, sockopt};

use super::{TunnelError, system};
use crate::change::Setting;
use crate::filter::VXLAN_PORT;
use crate::io::apply::Kernel;
use crate::io::sysctl;
use crate::plan::{self, Host};
use crate::record::Record;
use crate::transfer::{Move, Side};

/// Most ends that one card has at one side of one host: of the move before, of this one, and of its trial.
const ENDS_OF_CARD_MAX: usize = 3;

/// What of this host the plan needs to know.
pub fn look(kernel: &mut Kernel, side: Side, moved: &Move) -> Result<Host, TunnelError> {
    let (index, bridge_mac) = bridge(kernel, &moved.bridge)?;
    let others = others(kernel, moved)?;
    let addresses = kernel.addresses(index).map_err(system("read the bridge's addresses"))?;
    let near = |(address, bits): &&(Ipv4Addr, u8)| same_network(*address, moved.guest_address, *bits);
    let bridge_address = addresses.iter().find(near).or(addresses.first()).map(|(address, _)| *address);
    let earlier = plan::settings(side)
        .iter()
        .map(|(setting, _)| {
            let remembered = others.iter().find_map(|record| record.earlier(*setting));
            let value = remembered.map_or_else(|| sysctl::read(&moved.bridge, *setting), Ok);
            Ok((*setting, value.map_err(system("read the bridge's settings"))?))
        })
        .collect::<Result<Vec<(Setting, u32)>, TunnelError>>()?;
    // Without a way nothing is known of it; there may be one later.
    let path_bytes = path_bytes(moved.local, moved.remote).unwrap_or(plan::USUAL_PATH_BYTES);
    Ok(Host { bridge_mac, bridge_address, earlier, path_bytes })
}

/// The largest packet on the way from one address to another, as far as the kernel knows: its own interface's, or what
/// connections to there have found out.
fn path_bytes(local: Ipv4Addr, remote: Ipv4Addr) -> io::Result<u32> {
    let socket = std::net::UdpSocket::bind((local, 0))?;
    socket.connect((remote, VXLAN_PORT))?;
    let bytes = getsockopt(&socket, sockopt::IpMtu)?;
    Ok(u32::try_from(bytes).unwrap_or_default())
}

/// Number and MAC of a bridge.
pub fn bridge(kernel: &mut Kernel, name: &str) -> Result<(u32, [u8; 6]), TunnelError> {
    let link = kernel.link(name).map_err(system("look for the bridge"))?;
    link.and_then(|link| Some((link.index, link.mac?)))
        .ok_or_else(|| TunnelError::NoBridge { bridge: name.to_owned() })
}

fn same_network(one: Ipv4Addr, other: Ipv4Addr, bits: u8) -> bool {
    (one.to_bits() ^ other.to_bits()).leading_zeros() >= u32::from(bits)
}

/// What the tunnels of other moves remember of the same bridge.
pub fn others(kernel: &mut Kernel, moved: &Move) -> Result<Vec<Record>, TunnelError> {
    let mut records = records(kernel)?;
    records.retain(|record| record.moved.id != moved.id && record.moved.bridge == moved.bridge);
    Ok(records)
}

/// Refuses an end whose number is another path's, which stays as it is: the other host has chosen the number. What an earlier
/// attempt of the same move has left may be cleared away. Refuses also more ends than a card ever needs.
pub fn see_whose(kernel: &mut Kernel, side: Side, moved: &Move) -> Result<(), TunnelError> {
    let here = records(kernel)?;
    if here.iter().any(|record| record.moved.id == moved.id && !record.is_end_of(side, moved)) {
        return Err(TunnelError::Taken { id: moved.id });
    }
    let of_card = |record: &&Record| record.moved.id != moved.id && record.is_of_card(side, moved);
    if here.iter().filter(of_card).count() >= ENDS_OF_CARD_MAX {
        return Err(TunnelError::Enough { address: moved.guest_address });
    }
    Ok(())
}

/// What every tunnel here remembers.
pub fn records(kernel: &mut Kernel) -> Result<Vec<Record>, TunnelError> {
    let links = kernel.links().map_err(system("list network devices"))?;
    let ours = links.into_iter().filter_map(|link| {
        let id: u32 = link.name.strip_prefix("move")?.parse().ok()?;
        Record::parse(id, &link.alias?)
    });
    Ok(ours.collect())
}
