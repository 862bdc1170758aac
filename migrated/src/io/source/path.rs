//! The path's operations: a tunnel for each of the guest's addresses, made and tried before the pause (S4-41), and the
//! guest's packets turned into it at the pause.

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use tunnel::{Move, Side, Tunnel};

use super::context::Context;
use crate::guest::{Guest, Nic, parse_mac};
use crate::io::machine::Machine;
use crate::io::site::found;
use crate::peer::{PathPrepare, Request};

/// How long a packet may take through the tunnel and back.
const PROBE_LIMIT: Duration = Duration::from_secs(5);

/// Makes the tunnels at both ends, and sends a packet through each.
pub async fn prepare(context: &Arc<Context>) -> Result<()> {
    let nics = context.guest.nics.iter().filter(|nic| nic.address.is_some());
    let numbers: Vec<(usize, Nic)> = nics.cloned().enumerate().collect();
    if !context.options.wan || numbers.is_empty() {
        return Ok(());
    }
    let (local, remote) = ends(context)?;
    let first = tunnel_number(context.handle.id());
    let order = PathPrepare { tunnel: first, remote: local };
    context
        .client()?
        .order(Request::PathPrepare(order))
        .await
        .context("the destination cannot make its tunnel")?;
    for (index, nic) in numbers {
        let tap = tap_of(&context.machine, &nic);
        let moved =
            move_of(&nic, first + index as u32, (local, remote), context.site.bridge(&nic.bridge)?, tap)?;
        let made = Tunnel::prepare(Side::Source, moved).await.context("cannot make a tunnel")?;
        context.known().tunnels.push(made.clone());
        let took = probe(context, &made).await?;
        context.event(format!("tunnel: up, a packet took {} ms there and back", took.as_millis()));
    }
    Ok(())
}

/// Sends a packet through a tunnel and back. While the link is down it says nothing of the tunnel that none comes.
async fn probe(context: &Arc<Context>, made: &Tunnel) -> Result<Duration> {
    let mut in_vain = 0;
    loop {
        match made.probe(PROBE_LIMIT).await {
            Ok(took) => return Ok(took),
            // The link may have come back only just now.
            Err(_) if in_vain == 0 || !context.link()?.status().up => {
                in_vain += u32::from(context.link()?.status().up);
            }
            Err(error) => return Err(error).context("no packet comes back through the tunnel"),
        }
    }
}

/// What the tunnel crate wants to know of a card.
pub fn move_of(
    nic: &Nic,
    number: u32,
    (local, remote): (Ipv4Addr, Ipv4Addr),
    bridge: String,
    tap: Option<String>,
) -> Result<Move> {
    Ok(Move {
        id: number,
        guest_mac: parse_mac(&nic.mac).with_context(|| format!("{:?} is no hardware address", nic.mac))?,
        guest_address: nic.address.context("only cards with an address have a tunnel")?,
        local,
        remote,
        bridge,
        tap,
        new_address: None,
    })
}

/// The name of a card's tap.
pub fn tap_of(machine: &Machine, nic: &Nic) -> Option<String> {
    machine.taps().iter().find(|tap| tap.nic == nic.id).map(|tap| tap.name.clone())
}

fn ends(context: &Arc<Context>) -> Result<(Ipv4Addr, Ipv4Addr)> {
    let here = context.site.config.network.as_ref().map(|network| network.tunnel_address);
    let there = context.known().reserved.as_ref().and_then(|reserved| reserved.tunnel_address);
    match (here, there) {
        (Some(here), Some(there)) => Ok((here, there)),
        (None, _) => {
            bail!("this host has no [network] in its configuration, so there is no end for a tunnel")
        }
        (_, None) => bail!(
            "{} has no [network] in its configuration, so there is no end for a tunnel",
            context.peer.name
        ),
    }
}

/// The number of a migration's first tunnel: 24 bits of the migration's own number, room for its cards.
pub fn tunnel_number(migration: &str) -> u32 {
    let hash = crc32fast::hash(migration.as_bytes());
    // Never 0, which is no network.
    (hash & 0x00ff_fff0) | 1
}

/// The numbers of all of a migration's tunnels: one for each of the guest's addresses.
pub fn tunnel_numbers(migration: &str, guest: &Guest) -> impl Iterator<Item = u32> + use<> {
    let cards = guest.nics.iter().filter(|nic| nic.address.is_some()).count();
    (tunnel_number(migration)..).take(cards)
}

/// The tunnels of a migration that the daemon before this one has made here.
pub async fn tunnels_of(migration: &str, guest: &Guest) -> Vec<Tunnel> {
    found(tunnel_numbers(migration, guest)).await
}

/// Turns the guest's packets to the destination, at both sites at once; then nothing of the guest leaves here (S3-36).
pub async fn switch(context: &Arc<Context>) -> Result<()> {
    let tunnels = context.known().tunnels.clone();
    context.known().is_switched = true;
    let there = async {
        if tunnels.is_empty() {
            return Ok(());
        }
        context
            .client()?
            .order(Request::PathSwitch {})
            .await
            .context("the destination cannot take the packets")
    };
    let here = async {
        context
            .site
            .paths
            .leave(&context.guest.name)
            .await
            .context("cannot leave the tunnel of an earlier move")?;
        for tunnel in &tunnels {
            tunnel.switch().await.context("cannot turn the guest's packets into the tunnel")?;
        }
        context.machine.tap_down().context("cannot take the guest's taps down")?;
        anyhow::Ok(())
    };
    let (here, there) = tokio::join!(here, there);
    here.and(there)?;
    context.event("path: packets go to the destination, the guest's taps are down here");
    Ok(())
}

/// Turns the guest's packets back. Whatever was done is undone.
pub async fn switch_back(context: &Arc<Context>) -> Result<()> {
    context.machine.tap_up().context("cannot bring the guest's taps up")?;
    let tunnels = context.known().tunnels.clone();
    for tunnel in &tunnels {
        tunnel.switch_back().await.context("cannot turn the guest's packets back")?;
    }
    if tunnels.is_empty() {
        // The daemon before this one may have made some.
        remove(context).await?;
    }
    context
        .site
        .paths
        .resume(&context.guest.name)
        .await
        .context("cannot take up the tunnel of an earlier move")
}

/// Removes the tunnels here, also one whose making was stopped half-way.
pub async fn remove(context: &Arc<Context>) -> Result<()> {
    let tunnels = std::mem::take(&mut context.known().tunnels);
    for tunnel in &tunnels {
        tunnel.remove().await.context("cannot remove a tunnel")?;
    }
    let guest = context.options.wan.then_some(&context.guest);
    for number in guest.into_iter().flat_map(|guest| tunnel_numbers(context.handle.id(), guest)) {
        tunnel::remove_leftovers(number).await.context("cannot remove what is left of a tunnel")?;
    }
    Ok(())
}
