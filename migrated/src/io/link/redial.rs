//! Has a lost lane back, and a detour left when the better way is there again. Both sides of a link run this.
//!
//! Where and when stands in `link::redial` and `link::addresses`. What one dial is told ends the link only where the other
//! host itself says that there is nothing to come back to; for its listener, only that it is over there.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::sleep;

use super::dialler::{Dialler, fill_random};
use super::lane;
use super::shared::Shared;
use crate::link::Lane;
use crate::link::error::LinkError;
use crate::link::redial::{Redial, back_after, takes_own};
use crate::link::session::Side;
use crate::transport::Transport;

/// Looks after both lanes until the link is over.
pub(super) fn keep(dialler: &Arc<Dialler>, shared: &Arc<Shared>) {
    for lane in Lane::ALL {
        tokio::spawn(keep_lane(dialler.clone(), shared.clone(), lane));
    }
}

async fn keep_lane(dialler: Arc<Dialler>, shared: Arc<Shared>, lane: Lane) {
    let mut over = shared.over.subscribe();
    let mut falls = 0;
    loop {
        tokio::select! {
            () = shared.lost[lane as usize].notified() => {}
            () = go_back(&dialler, &shared, lane, falls) => continue,
            _ = over.wait_for(Option::is_some) => return,
        }
        falls += 1;
        tokio::select! {
            () = redial(&dialler, &shared, lane) => {}
            _ = over.wait_for(Option::is_some) => return,
        }
    }
}

/// Dials until the lane has its connection, whoever made it.
async fn redial(dialler: &Arc<Dialler>, shared: &Arc<Shared>, lane: Lane) {
    let mut redial = Redial::new(dialler.side);
    loop {
        let Some(candidates) = shared.with(|state, _| state.candidates(lane)) else { return };
        let attempt = redial.next(&candidates, dialler.config.hello_within, dice());
        sleep(attempt.pause).await;
        // The other side may have been faster.
        if shared.with(|state, _| state.candidates(lane).is_none()) {
            return;
        }
        match dialler.connect_lane(lane, attempt.to, attempt.within).await {
            Ok(connections) => {
                let is_attached = shared.with(|state, _| state.session.is_attached(lane));
                if takes_own(dialler.side, is_attached) {
                    tracing::info!(peer = shared.peer, %lane, to = %attempt.to, "connected again");
                    lane::start(shared, lane, connections);
                }
                return;
            }
            Err(error) if is_final(dialler.side, &error) => {
                return shared.end(&error.to_string());
            }
            Err(error) if redial.round() == 0 => {
                tracing::warn!(peer = shared.peer, %lane, to = %attempt.to, "dial failed: {error}");
            }
            Err(error) => {
                tracing::debug!(peer = shared.peer, %lane, to = %attempt.to, "dial failed: {error}")
            }
        }
    }
}

/// Nothing will come of dialling again, anywhere. Another key is not that: the address may be somebody else's by now.
///
/// The last word of a dialler that has ended the link can be lost with the connection that carried it, where both sides
/// dial at once. Then the listener hears so what it would wait for as long as a link may be down.
fn is_final(side: Side, error: &LinkError) -> bool {
    match side {
        Side::Dialler => !error.is_passing() && !matches!(error, LinkError::WrongKey(_)),
        Side::Listener => matches!(error, LinkError::UnknownLink(_)),
    }
}

/// Returns when the lane has gone back to a better way.
async fn go_back(dialler: &Arc<Dialler>, shared: &Arc<Shared>, lane: Lane, falls: u32) {
    if dialler.side == Side::Listener || dialler.transport != Transport::Tcp {
        std::future::pending::<()>().await;
    }
    loop {
        sleep(back_after(falls, dice())).await;
        let better = shared.with(|state, _| state.better(lane));
        for to in better {
            match dialler.connect_lane(lane, to, dialler.config.hello_within).await {
                Ok(connections) => return lane::start(shared, lane, connections),
                Err(error) => {
                    tracing::debug!(peer = shared.peer, %lane, %to, "no better way yet: {error}");
                }
            }
        }
    }
}

fn dice() -> u8 {
    let mut random = [0; 1];
    fill_random(&mut random);
    random[0]
}

/// How long one of several data addresses may take when a link is made: the other host does not wait for ever.
pub(super) fn first_within(candidates: usize, hello_within: Duration) -> Duration {
    if candidates > 1 { hello_within / 2 } else { hello_within }
}
