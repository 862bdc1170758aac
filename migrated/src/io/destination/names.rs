//! The guest's names follow it: an update for each card that has one, after the guest was seen at its new place (S4-42).
//!
//! ```text
//! reservation   zone, key, server, record: tried          what is wrong for good is a reason, silence a warning
//! running       seen at its new address? ── at least there by ARP? ── else QEMU's word ──► update, read back
//! ```
//!
//! All cards at once. What fails is told, and the guest runs all the same. It refuses to touch an address of a name that
//! was never the guest's.

use std::fmt;
use std::net::Ipv4Addr;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use futures_util::future::join_all;
use tunnel::NameChange;
use tunnel::io::dns::{Updated, update};
use tunnel::io::presence::{Patience, Seen, seen};
use tunnel::name::listed;
use tunnel::transfer::Mac;

use super::arrival::Arrival;
use crate::guest::{Nic, parse_mac};
use crate::io::site::Site;
use crate::io::zones::{ZoneFault, authority, try_name_in};
use crate::peer::Reserve;
use crate::qmp::RunState;

/// What of names stands against a reservation, and what is only worth knowing.
#[derive(Debug, Default)]
pub struct Look {
    /// Each with what to do.
    pub reasons: Vec<String>,
    /// Likewise.
    pub warnings: Vec<String>,
}

/// Tries, before anything moves, whether the guest's names could be changed. Changes nothing.
pub async fn look(site: &Site, wanted: &Reserve) -> Look {
    let cards = wanted.guest.nics.iter().filter(|nic| wanted.wan && nic.address.is_some());
    let looks = cards.filter_map(|nic| Some(look_at(site, wanted, nic, nic.dns_name.as_deref()?)));
    let mut all = Look::default();
    for one in join_all(looks).await {
        all.reasons.extend(one.reasons);
        all.warnings.extend(one.warnings);
    }
    all
}

async fn look_at(site: &Site, wanted: &Reserve, nic: &Nic, name: &str) -> Look {
    let mut look = Look::default();
    let Some(zone) = site.config.zone_of(name) else {
        let what =
            format!("dns: no [[dns]] zone of this host's configuration holds {name}, the guest's name");
        look.reasons.push(format!("{what}; add one, or send without --wan"));
        return look;
    };
    match try_name_in(zone, name).await {
        Ok(found) => {
            let (led_to, had) = (found.hosts(), had(wanted, nic));
            if !led_to.is_empty() && !led_to.iter().any(|address| had.contains(address)) {
                look.warnings.push(format!(
                    "{name} leads to {} and to no address of the guest ({}): it will stay as it is",
                    listed(&led_to),
                    listed(&had)
                ));
            }
        }
        Err(fault @ ZoneFault::Silent(_)) => {
            look.warnings.push(format!("{name} may stay as it is: {fault}; {}", fault.remedy()));
        }
        Err(fault) => {
            look.reasons.push(format!("dns: {name}: {fault}; {}, or send without --wan", fault.remedy()));
        }
    }
    look
}

/// The addresses that were the guest's on a card: its own, and those that other sites gave it.
fn had(wanted: &Reserve, nic: &Nic) -> Vec<Ipv4Addr> {
    let given = wanted.given_addresses.get(&nic.id).into_iter().flatten().copied();
    nic.address.into_iter().chain(given).collect()
}

/// Has all names lead here. Gives what was done, and what could not be.
pub async fn readdress(arrival: &Arrival) -> (Vec<String>, Vec<String>) {
    let cards = arrival.reserve.guest.nics.iter().zip(&arrival.reserved.new_addresses);
    let follows = cards.filter_map(|(nic, new)| {
        let (name, own) = (nic.dns_name.as_deref()?, nic.address?);
        Some(async move { (nic, name, follow(arrival, nic, name, own, *new).await) })
    });
    let (mut names, mut troubles) = (Vec::new(), Vec::new());
    let mut given = arrival.given_addresses();
    for (nic, name, followed) in join_all(follows).await {
        match followed {
            Ok((told, new)) => {
                names.push(told);
                // The name leads to none of those before.
                given.entry(nic.id.clone()).or_default().retain(|address| *address == new);
            }
            Err(error) => troubles.push(format!("the name {name} was not changed: {error:#}")),
        }
    }
    given.retain(|_, addresses| !addresses.is_empty());
    if let Err(error) = arrival.claim.keep(|record| record.given_addresses = given) {
        tracing::warn!(guest = arrival.reserve.guest.name, %error, "cannot write down where its names lead");
    }
    (names, troubles)
}

async fn follow(
    arrival: &Arrival,
    nic: &Nic,
    name: &str,
    own: Ipv4Addr,
    new_address: Option<Ipv4Addr>,
) -> Result<(String, Ipv4Addr)> {
    let at_home = arrival.reserved.is_home.then_some(own);
    let new = at_home.or(new_address).context(
        "this host has no free address in [network] pool for the guest; add one, and update the name",
    )?;
    let zone = arrival
        .site
        .config
        .zone_of(name)
        .with_context(|| format!("no [[dns]] zone of this host's configuration holds {name}"))?;
    let authority = authority(zone)?;
    let proof = prove(arrival, nic, own, new).await?;
    let change =
        NameChange { name: name.to_owned(), had: had(&arrival.reserve, nic), new, ttl_s: zone.ttl_s };
    let updated = update(&authority, &change).await?;
    let guest = &arrival.reserve.guest.name;
    tracing::info!(guest, nic = nic.id, name, %new, ttl_s = updated.ttl_s, serial = updated.serial, %proof, "name updated");
    Ok((told(name, new, &updated, &proof), new))
}

/// What was done, for people.
fn told(name: &str, new: Ipv4Addr, updated: &Updated, proof: &Proof) -> String {
    let ttl = match updated.others.is_empty() {
        true => format!("TTL {} s", updated.ttl_s),
        false => format!("TTL {} s as before, shared with {}", updated.ttl_s, listed(&updated.others)),
    };
    let already = if updated.is_changed { "" } else { " already" };
    format!("{name} leads to {new}{already} ({ttl}; {proof})")
}

/// What shows that the guest is here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Proof {
    /// It answered at the address that the name is to lead to.
    Answered(Duration),
    /// It answers no ping, but ARP.
    HasAddress(Duration),
    /// It answered nothing. QEMU says that it runs.
    Runs,
    /// QEMU says that it stands still, as it did at the source.
    StandsStill,
}

impl fmt::Display for Proof {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Proof::Answered(took) => write!(f, "the guest answered in {} ms", took.as_millis()),
            Proof::HasAddress(took) => {
                write!(
                    f,
                    "the guest answers no ping; its card said in {} ms that it is here",
                    took.as_millis()
                )
            }
            Proof::Runs => f.write_str("the guest answers neither ping nor ARP; QEMU says that it runs"),
            Proof::StandsStill => f.write_str("the guest stands still, as it did at the source"),
        }
    }
}

async fn prove(arrival: &Arrival, nic: &Nic, own: Ipv4Addr, new: Ipv4Addr) -> Result<Proof> {
    if arrival.reserve.runs {
        let bridge = arrival.site.bridge(&nic.bridge)?;
        let mac = parse_mac(&nic.mac).with_context(|| format!("{:?} is no hardware address", nic.mac))?;
        match seen(&bridge, Mac(mac), own, new, Patience::default()).await {
            Seen::Answers(took) => return Ok(Proof::Answered(took)),
            Seen::HasAddress(took) => return Ok(Proof::HasAddress(took)),
            Seen::OnlyAtOwnAddress => bail!(
                "the guest answers at its own address {own}, and not at {new}, where its users would look for it; \
                 look at the rules of this host (nft list ruleset)"
            ),
            Seen::Nothing => {}
        }
    }
    let state =
        arrival.machine.qmp().state().await.context("the guest answers nothing, and its QEMU neither")?;
    match state {
        RunState::Running => Ok(Proof::Runs),
        state if state.is_paused_by_order() => Ok(Proof::StandsStill),
        state => bail!("the guest is {state}"),
    }
}

/// The guest runs here, and its source asks for nothing more: its names are seen to all the same.
pub async fn readdress_unasked(arrival: &Arrival) {
    if !arrival.reserve.wan {
        return;
    }
    let (names, troubles) = readdress(arrival).await;
    let guest = &arrival.reserve.guest.name;
    for trouble in &troubles {
        tracing::error!(guest, "{trouble}");
    }
    tracing::info!(guest, ?names, "the names lead here");
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;
    use std::time::Duration;

    use tunnel::io::dns::Updated;

    use super::{Proof, told};

    #[test]
    fn what_was_done_is_told_with_its_proof_and_its_neighbours() {
        let new = Ipv4Addr::new(10, 2, 0, 100);
        let alone =
            Updated { serial: 2, ttl_s: 60, others: Vec::new(), took: Duration::ZERO, is_changed: true };
        let took = Duration::from_millis(3);
        assert_eq!(
            told("web.lab.test", new, &alone, &Proof::Answered(took)),
            "web.lab.test leads to 10.2.0.100 (TTL 60 s; the guest answered in 3 ms)"
        );
        let shared = Updated { ttl_s: 300, others: vec![Ipv4Addr::new(10, 1, 0, 11)], ..alone.clone() };
        assert_eq!(
            told("web.lab.test", new, &shared, &Proof::HasAddress(took)),
            "web.lab.test leads to 10.2.0.100 (TTL 300 s as before, shared with 10.1.0.11; \
             the guest answers no ping; its card said in 3 ms that it is here)"
        );
        let again = Updated { is_changed: false, ..alone };
        assert_eq!(
            told("web.lab.test", new, &again, &Proof::Runs),
            "web.lab.test leads to 10.2.0.100 already (TTL 60 s; the guest answers neither ping nor ARP; \
             QEMU says that it runs)"
        );
    }
}
