//! The path's operations: a tunnel for each of the guest's addresses, made and tried before the pause (S4-41), and the
//! guest's packets turned into it at the pause.

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use tunnel::io::probe::reachable;
use tunnel::{Move, Side, Tunnel};

use super::context::Context;
use crate::guest::{Guest, Nic, parse_mac};
use crate::host::Reservations;
use crate::host::network::{Occasion, findings};
use crate::io::machine::Machine;
use crate::io::peer_channel::PeerError;
use crate::io::site::found;
use crate::peer::{PathPrepare, Request};
use crate::quantity::ms;
use crate::report::ReachReport;

/// How long a packet may take through the tunnel and back.
const PROBE_LIMIT: Duration = Duration::from_secs(5);
/// The same where it is only tried: somebody waits for it.
const TRIAL_LIMIT: Duration = Duration::from_secs(2);
const SILENT: &str =
    "no packet comes back through the tunnel; is UDP 4789 open between both tunnel_addresses?";
/// How long a guest may take to answer where it is, and when it has moved.
const ASK_LIMIT: Duration = Duration::from_secs(1);
const REACH_LIMIT: Duration = Duration::from_secs(3);

/// Why there cannot be a tunnel, as far as this host knows.
pub fn reasons(context: &Context) -> Vec<String> {
    let mut reasons = Vec::new();
    if wants_tunnels(context) && context.site.config.network.is_none() {
        reasons.push(format!("tunnel: {}", no_network("this host")));
    }
    reasons
}

fn no_network(host: &str) -> String {
    format!(
        "{host} has no [network] in its configuration, so there is no end for a tunnel; add one, or send without --wan, which \
         breaks the guest's connections"
    )
}

fn wants_tunnels(context: &Context) -> bool {
    context.options.wan && context.guest.nics.iter().any(|nic| nic.address.is_some())
}

/// Looks at the guest's cards and this host's network, and warns of what it finds.
pub async fn look(context: &Arc<Context>, runs: bool) {
    let wan = context.options.wan;
    if wan && !wants_tunnels(context) {
        context.warn("no card of the guest has an address in its description: no tunnel is made, connections will break");
    }
    let occasion = Occasion::Leave { wan, runs };
    let Some(network) = context.site.network(&context.guest, occasion, &[]).await else { return };
    let found = findings(&network, &Reservations::default(), &context.guest, occasion);
    for warning in found.warnings {
        context.warn(warning);
    }
}

/// Makes the tunnels at both ends, and sends a packet through each. Meanwhile the guest is asked whether it answers: only
/// what it did before the move can be missed afterwards.
pub async fn prepare(context: &Arc<Context>) -> Result<()> {
    if !wants_tunnels(context) {
        return Ok(());
    }
    let ((), made) = tokio::join!(ask_guest(context), make(context, Request::PathPrepare));
    made
}

/// Makes the tunnels of a move that is only looked at, sends a packet through each, and removes them at both ends.
pub async fn attempt(context: &Arc<Context>) -> Result<()> {
    if !wants_tunnels(context) {
        return Ok(());
    }
    let made = make(context, Request::PathTry).await;
    let removed = remove(context).await;
    let abort = Request::Abort { reason: "it was only a look".to_owned(), keep_disks: true };
    let told = context.client()?.order(abort).await;
    if let Err(error) = &made
        && let Some(PeerError::Closed) = error.downcast_ref()
    {
        context.warn(format!(
            "{}, maybe an earlier version, hung up: the tunnel was not tried",
            context.peer.name
        ));
        return removed;
    }
    made.and(removed).and(told.map_err(Into::into))
}

/// Asks the guest at each of its addresses.
async fn ask_guest(context: &Arc<Context>) {
    let ran = context.known().ran;
    for address in context.guest.nics.iter().filter_map(|nic| nic.address).filter(|_| ran) {
        if reachable(address, ASK_LIMIT).await.is_ok() {
            context.known().answered_before.push(address);
        }
    }
}

/// Asks the guest again, through the tunnels: what lies between here and its card at the destination lets it be reached, or
/// does not.
pub async fn reach(context: &Arc<Context>) {
    let addresses = context.known().answered_before.clone();
    for address in addresses {
        let answered_ms = reachable(address, REACH_LIMIT).await.ok().map(ms);
        if answered_ms.is_none() {
            context.warn(format!(
                "the guest does not answer at {address} through the tunnel, and did before the move: a firewall here or at {} \
                 may drop what is forwarded from and to its bridge and the devices move*",
                context.peer.name
            ));
        }
        context.known().reached.push(ReachReport { address, answered_ms });
    }
}

async fn make(context: &Arc<Context>, request: fn(PathPrepare) -> Request) -> Result<()> {
    let nics = context.guest.nics.iter().filter(|nic| nic.address.is_some());
    let numbers: Vec<(usize, Nic)> = nics.cloned().enumerate().collect();
    let (local, remote) = ends(context)?;
    let first = tunnel_number(context.handle.id());
    let order = request(PathPrepare { tunnel: first, remote: local });
    let is_trial = matches!(order, Request::PathTry(_));
    context.client()?.order(order).await.context("the destination cannot make its tunnel")?;
    for (index, nic) in numbers {
        let tap = tap_of(&context.machine, &nic);
        let bridge = context.site.bridge(&nic.bridge)?;
        let moved = move_of(&nic, first + index as u32, (local, remote), bridge, tap)?;
        let moved = if is_trial { moved.trial() } else { moved };
        let made = Tunnel::prepare(Side::Source, moved).await.context("cannot make a tunnel")?;
        context.known().tunnels.push(made.clone());
        let took = match is_trial {
            true => made.probe(TRIAL_LIMIT).await.context(SILENT)?,
            false => probe(context, &made).await?,
        };
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
            Err(error) => return Err(error).context(SILENT),
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
        (None, _) => bail!(no_network("this host")),
        (_, None) => bail!(no_network(&context.peer.name)),
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
