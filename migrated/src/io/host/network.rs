//! Looks up what a guest's cards meet in this host's network: its devices and bridges, who answers for the addresses, and
//! what its firewall does. Changes nothing; whoever is asked on the network notices no more than a question.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::Ipv4Addr;
use std::time::Duration;

use tokio::task::{JoinSet, spawn_blocking};
use tokio::time::timeout;
use tracing::debug;
use tunnel::io::{look, nft, who_has};
use tunnel::transfer::Mac;

use crate::config::Config;
use crate::finding::Finding;
use crate::guest::Guest;
use crate::host::network::{Network, Occasion, firewall, pool};

/// How long an answer may take: the question is put twice. A guest that starts or moves waits for it.
const ANSWER_LIMIT: Duration = Duration::from_millis(150);
/// How long nft may take to list what it has.
const RULES_LIMIT: Duration = Duration::from_secs(2);

/// How long a guest may take that should answer: it may be busy, or emulated.
const GUEST_LIMIT: Duration = Duration::from_secs(1);

/// The network as it is now, for a guest that may get one of the addresses of `pool`. What keeps packets from being
/// forwarded is looked for where they would come through a tunnel.
///
/// # Errors
/// The kernel does not tell. Who cannot be asked on the network has not answered.
pub async fn network(
    config: &Config,
    guest: &Guest,
    occasion: Occasion,
    pool: &[Ipv4Addr],
) -> io::Result<Network> {
    let here = look::look().await?;
    let mut asked: BTreeMap<String, BTreeSet<Ipv4Addr>> = BTreeMap::new();
    let bridges = guest.nics.iter().filter_map(|nic| Some((config.bridges.get(&nic.bridge)?, nic)));
    let own: Vec<(String, Ipv4Addr)> =
        bridges.clone().filter_map(|(bridge, nic)| Some((bridge.clone(), nic.address?))).collect();
    for (bridge, address) in own.clone() {
        asked.entry(bridge).or_default().insert(address);
    }
    for address in pool {
        if let Some(device) = here.device_towards(*address) {
            asked.entry(device.to_owned()).or_default().insert(*address);
        }
    }
    let bridges: BTreeSet<String> = bridges.map(|(bridge, _)| bridge.clone()).collect();
    let listed = async { if occasion.wants_tunnel() { obstacles(bridges).await } else { Vec::new() } };
    let (mut answers, obstacles) = tokio::join!(answers(asked), listed);
    if occasion.awaits_guest() {
        wait_for_guest(&mut answers, own).await;
    }
    Ok(Network { here, bridges: config.bridges.clone(), answers, obstacles, ..Network::default() })
}

/// Waits longer for whom nobody has answered.
async fn wait_for_guest(answers: &mut Answers, own: Vec<(String, Ipv4Addr)>) {
    let mut questions = JoinSet::new();
    for (bridge, address) in own.into_iter().filter(|one| !answers.contains_key(one)) {
        questions.spawn(async move {
            let heard = who_has::first(&bridge, address, GUEST_LIMIT).await;
            heard.ok().flatten().map(|mac| ((bridge, address), BTreeSet::from([mac])))
        });
    }
    answers.extend(questions.join_all().await.into_iter().flatten());
}

type Answers = BTreeMap<(String, Ipv4Addr), BTreeSet<Mac>>;

/// What is wrong with the pool of a configuration at this very host.
pub fn pool_findings(config: &Config) -> Vec<Finding> {
    let pool = config.network.iter().flat_map(|network| &network.pool);
    // Who cannot look knows of no fault.
    let Ok(here) = look::now() else { return Vec::new() };
    pool.filter_map(|address| pool::fault(&here, *address))
        .map(|(what, remedy)| Finding::new("network.pool", what, remedy))
        .collect()
}

async fn answers(asked: BTreeMap<String, BTreeSet<Ipv4Addr>>) -> Answers {
    let mut questions = JoinSet::new();
    for (device, addresses) in asked {
        questions.spawn(async move {
            let addresses: Vec<Ipv4Addr> = addresses.into_iter().collect();
            match who_has::all(&device, &addresses, ANSWER_LIMIT).await {
                Ok(found) => (device, found),
                Err(error) => {
                    debug!(device, %error, "nobody can be asked there");
                    (device, BTreeMap::new())
                }
            }
        });
    }
    let each = questions.join_all().await.into_iter();
    each.flat_map(|(device, found)| found.into_iter().map(move |(at, macs)| ((device.clone(), at), macs)))
        .collect()
}

async fn obstacles(bridges: BTreeSet<String>) -> Vec<String> {
    let looked = spawn_blocking(move || {
        let mut found = Vec::new();
        let forwards = std::fs::read_to_string("/proc/sys/net/ipv4/ip_forward").unwrap_or_default();
        if forwards.trim() == "0" {
            found.push(
                "this host forwards nothing (net.ipv4.ip_forward is 0): the guest may be unreachable after the move; \
                 `sysctl -w net.ipv4.ip_forward=1`"
                    .to_owned(),
            );
        }
        let names: Vec<&str> = bridges.iter().map(String::as_str).collect();
        match nft::ruleset() {
            Ok(ruleset) => found.extend(firewall::obstacles(&ruleset, &names)),
            Err(error) => debug!(%error, "the firewall cannot be looked at"),
        }
        found
    });
    timeout(RULES_LIMIT, looked).await.ok().and_then(Result::ok).unwrap_or_default()
}
