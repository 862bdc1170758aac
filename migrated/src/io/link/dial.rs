//! Makes a link: its control connection, which data address is the fastest, its data connection.

use std::sync::Arc;
use std::time::Duration;

use super::dialler::{Dialler, fill_random};
use super::redial::{first_within, keep};
use super::shared::Shared;
use super::{Link, LinkConfig, lane, probing};
use crate::io::keys::Peer;
use crate::io::tls::greeting::Secured;
use crate::link::Lane;
use crate::link::error::LinkError;
use crate::link::hello::{LinkId, Purpose};
use crate::link::session::{SILENCE_MAX, Side};
use crate::transport::Transport;

/// How often the session looks at the clock.
const TICK: Duration = Duration::from_millis(200);
/// How long TCP, TLS and the hello may take together: a peer that is dead from the beginning is noticed by then (S0-27).
pub(super) const HELLO_WITHIN: Duration = Duration::from_secs(5);
/// A peer that is dead is noticed within three seconds (S3-17).
const _: () = assert!(SILENCE_MAX.as_millis() + TICK.as_millis() <= 3000);

/// Makes a link.
pub(super) async fn dial(config: &LinkConfig, peer: &Peer) -> Result<Link, LinkError> {
    let mut id: LinkId = [0; 16];
    fill_random(&mut id);
    let transport = config.transport.clone().or_else(|| config.transports.get(&peer.name).cloned());
    let transport = transport.unwrap_or_default();
    let (config, peer) = (config.clone(), peer.clone());
    let dialler = Arc::new(Dialler { config, peer, id, transport, side: Side::Dialler });
    let (config, peer) = (&dialler.config, &dialler.peer);
    let control = dialler.connect(Purpose::Begin, peer.address, config.hello_within).await?;
    let addresses = config.addresses_of(peer);
    let limit = config.bandwidth_bytes_per_s;
    let shared = Shared::new(Side::Dialler, peer.name.clone(), addresses, limit, config.resume_for);
    config.register.put_own((peer.key, id), &shared, dialler.transport == Transport::Tcp);
    // At once: over a long way the data connection takes seconds, and a silent one counts as dead.
    lane::start(&shared, Lane::Control, vec![control]);
    spawn_clock(&shared);
    let data = async {
        probing::choose(&dialler, &shared).await;
        connect_data(&dialler, &shared).await
    };
    // A peer that dies meanwhile is not waited for: its control connection falls silent (S0-27).
    let data = tokio::select! {
        data = data => data,
        () = shared.lost[Lane::Control as usize].notified() => Err(LinkError::Unreachable(format!(
            "{} has fallen silent while the link was made",
            dialler.peer.name
        ))),
    };
    let data = data.inspect_err(|error| shared.end(&error.to_string())).map_err(|error| match error {
        LinkError::Unreachable(text) => LinkError::Unreachable(format!("data connection: {text}")),
        other => other,
    })?;
    lane::start(&shared, Lane::Data, data);
    if let Some(warning) = dialler.lacking() {
        shared.warn(warning);
    }
    keep(&dialler, &shared);
    tracing::info!(peer = peer.name, address = %peer.address, "link made");
    Ok(Link::new(shared))
}

/// The first data connection: to the best address that answers, which may be the control address for want of another.
async fn connect_data(dialler: &Arc<Dialler>, shared: &Arc<Shared>) -> Result<Vec<Secured>, LinkError> {
    let candidates = shared.with(|state, _| state.addresses.candidates(Lane::Data));
    let within = first_within(candidates.len(), dialler.config.hello_within);
    let mut first_error = None;
    for to in &candidates {
        match dialler.connect_lane(Lane::Data, *to, within).await {
            Ok(connections) => {
                if let Some(error) = first_error {
                    shared.warn(format!(
                        "link: disks and memory go to {to}, a better address does not answer: {error}"
                    ));
                }
                return Ok(connections);
            }
            Err(error) if error.is_passing() => {
                tracing::warn!(peer = dialler.peer.name, %to, "no data connection: {error}");
                first_error.get_or_insert(error);
            }
            Err(error) => return Err(error),
        }
    }
    Err(first_error.expect("there is a candidate at least"))
}

/// Lets the session look at the clock until the link is over.
pub(super) fn spawn_clock(shared: &Arc<Shared>) {
    let shared = shared.clone();
    tokio::spawn(async move {
        let mut tick = tokio::time::interval(TICK);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut over = shared.over.subscribe();
        loop {
            tokio::select! {
                _ = tick.tick() => shared.tick(),
                _ = over.wait_for(Option::is_some) => return,
            }
        }
    });
}
