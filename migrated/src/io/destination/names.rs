//! The guest's names follow it: an update for each card that has one, after the guest answered at its new place (S4-42).

use std::net::Ipv4Addr;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use tunnel::NameUpdate;
use tunnel::io::dns::update;
use tunnel::io::probe::reachable;

use super::arrival::Arrival;
use crate::config::Zone;
use crate::guest::Nic;
use crate::io::tsig_key;

/// How long the guest may take to answer.
const PROBE_LIMIT: Duration = Duration::from_secs(10);

/// Has all names lead here. Gives what was done, and what could not be.
pub async fn readdress(arrival: &Arrival) -> (Vec<String>, Vec<String>) {
    let (mut names, mut troubles) = (Vec::new(), Vec::new());
    for (nic, new_address) in arrival.reserve.guest.nics.iter().zip(&arrival.reserved.new_addresses) {
        let (Some(name), Some(address)) = (&nic.dns_name, nic.address) else { continue };
        match name_of(arrival, nic, name, address, *new_address).await {
            Ok(done) => names.push(done),
            Err(error) => troubles.push(format!("{name} still leads to the old place: {error:#}")),
        }
    }
    (names, troubles)
}

async fn name_of(
    arrival: &Arrival,
    nic: &Nic,
    name: &str,
    address: Ipv4Addr,
    new_address: Option<Ipv4Addr>,
) -> Result<String> {
    let at_home = arrival.reserved.is_home.then_some(address);
    let new = at_home.or(new_address).context(
        "this host has no free address in [network] pool for the guest; add one, and update the name",
    )?;
    let zone = zone_of(&arrival.site.config.zones, name)
        .with_context(|| format!("no [[dns]] zone of this host's configuration holds {name}"))?;
    let answered =
        reachable(address, PROBE_LIMIT).await.context("the guest does not answer at its new place")?;
    let wanted = NameUpdate {
        server: zone.server,
        zone: zone.zone.clone(),
        name: name.to_owned(),
        key_name: zone.key_name.clone(),
        key_secret: tsig_key::read(&zone.key_file)?,
        ttl_s: zone.ttl_s,
        old: None,
        new,
    };
    update(&wanted).await.with_context(|| format!("{} does not take the update", zone.server))?;
    tracing::info!(guest = arrival.reserve.guest.name, nic = nic.id, name, %new, ttl_s = zone.ttl_s, "name updated");
    Ok(format!(
        "{name} leads to {new} (TTL {} s; the guest answered in {} ms)",
        zone.ttl_s,
        answered.as_millis()
    ))
}

/// The longest zone that a name lies in.
fn zone_of<'a>(zones: &'a [Zone], name: &str) -> Option<&'a Zone> {
    let lies_in = |zone: &&Zone| {
        let (name, zone) = (name.trim_end_matches('.'), zone.zone.trim_end_matches('.'));
        name.eq_ignore_ascii_case(zone)
            || name.len() > zone.len()
                && name.to_ascii_lowercase().ends_with(&format!(".{}", zone.to_ascii_lowercase()))
    };
    zones.iter().filter(lies_in).max_by_key(|zone| zone.zone.len())
}

/// A guest's name that no zone holds is found before anything moves.
pub fn check(zones: &[Zone], nics: &[Nic]) -> Result<()> {
    for name in nics.iter().filter_map(|nic| nic.dns_name.as_deref()) {
        if zone_of(zones, name).is_none() {
            bail!("no [[dns]] zone of this host's configuration holds {name}, the guest's name");
        }
    }
    Ok(())
}
