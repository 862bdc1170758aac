//! The peers: who they are, whether they answer, how hosts come to know each other.

use std::time::Duration;

use serde_json::{Value, json};
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::api::{Failure, FailureCode, HostState};
use crate::io::keys::Peer;
use crate::io::link::{Link, LinkConfig};
use crate::io::pairing::Desk;
use crate::io::site::Site;
use crate::io::source::control;
use crate::peer::{Answer, Request};

/// How long a peer may take to answer before it counts as unreachable (S0-27).
const ANSWER_LIMIT: Duration = Duration::from_secs(4);

/// How long it may then take to say which version it is; without that it is reachable all the same.
const VERSION_LIMIT: Duration = Duration::from_secs(2);

/// All peers, each looked at now, all at once.
pub(super) async fn list(site: &Site) -> Vec<HostState> {
    let mut looks = JoinSet::new();
    for peer in site.link.peers.all() {
        looks.spawn(look(site.link.clone(), peer));
    }
    let mut hosts = looks.join_all().await;
    hosts.sort_by(|a, b| a.name.cmp(&b.name));
    hosts
}

async fn look(config: LinkConfig, peer: Peer) -> HostState {
    let answered = timeout(ANSWER_LIMIT, async {
        let link = Link::dial(&config, &peer).await?;
        let rtt = link.ping().await?;
        Ok::<_, crate::link::error::LinkError>((link, rtt))
    });
    let (reached, trouble) = match answered.await {
        Ok(Ok(reached)) => (Some(reached), String::new()),
        Ok(Err(error)) => (None, error.to_string()),
        Err(_) => (None, format!("it does not answer within {} s", ANSWER_LIMIT.as_secs())),
    };
    let (mut rtt, mut version) = (None, String::new());
    if let Some((link, took)) = reached {
        rtt = Some(took);
        version = timeout(VERSION_LIMIT, version_of(&link)).await.ok().flatten().unwrap_or_default();
        link.close().await;
    }
    HostState {
        data_address: shown(&peer),
        address: peer.address.to_string(),
        name: peer.name,
        reachable: rtt.is_some(),
        rtt_us: rtt.map_or(0, |rtt| rtt.as_micros() as u64),
        version,
        trouble,
    }
}

/// Where its data goes.
fn shown(peer: &Peer) -> String {
    let addresses: Vec<String> = peer.data_addresses.iter().map(ToString::to_string).collect();
    if addresses.is_empty() { peer.address.to_string() } else { addresses.join(", ") }
}

/// What it says of itself; none: it is older than the question, and hangs up.
async fn version_of(link: &Link) -> Option<String> {
    let (client, _notices) = control(link).await.ok()?;
    match client.call(Request::Introduce {}).await.ok()? {
        Answer::Introduced { version } => Some(version),
        _ => None,
    }
}

/// A one-time token for another host.
pub(super) fn token(desk: &Desk) -> Result<Value, Failure> {
    let hint = "set `listen` to the address at which other hosts reach this one";
    let token = desk.token_new(None);
    token
        .map(|token| json!(token))
        .map_err(|error| Failure::new(FailureCode::Failed, error.to_string(), hint))
}

/// Pairs with the host that made a token.
pub(super) async fn pair_with(desk: &Desk, token: &str) -> Result<Value, Failure> {
    let hint = "have the other host print a new token by `migrated pair`; it works once, for ten minutes";
    match desk.pair_with(token).await {
        Ok(peer) => Ok(json!(peer.name)),
        Err(error) => Err(Failure::new(FailureCode::Denied, error.to_string(), hint)),
    }
}

/// Forgets a peer, and ends every link with it at once.
pub(super) fn unpair(site: &Site, host: &str) -> Result<Value, Failure> {
    let failed = |code, message: String, hint: &str| Failure::new(code, message, hint);
    let known = site.link.peers.by_name(host);
    match site.link.peers.remove(host) {
        Ok(true) => {
            let why = format!("{} and this host are not paired any more", site.config.name);
            let ended = known.map_or(0, |peer| site.link.register.end_all_of(&peer.key, &why));
            tracing::info!(host, links = ended, "unpaired");
            Ok(json!(host))
        }
        Ok(false) => {
            let message = format!("no host {host:?} is paired with this one");
            Err(failed(FailureCode::NotFound, message, "see `migrated hosts`"))
        }
        Err(error) => Err(failed(FailureCode::Failed, error.to_string(), "look at state_dir")),
    }
}
