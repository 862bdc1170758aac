//! The ports of a guest that is on its way, and its memory. A bridge with a spanning tree lets a new port wait for half a
//! minute: the memory waits with it, so that no guest is paused that would then have no network.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Result, bail};
use tokio::time::{Instant, interval};
use tunnel::io::look::port_state;
use tunnel::surroundings::PortState;

use super::ASKED_EVERY;
use crate::io::machine::Machine;
use crate::qmp::MigrateInfo;

/// The longest forward delay of the standard is 30 s, and a port waits twice as long.
const LIMIT: Duration = Duration::from_secs(70);
const LOOKED_EVERY: Duration = Duration::from_millis(200);

/// The ports of one guest's taps. A clone is of the same guest.
#[derive(Clone, Debug)]
pub struct Ports {
    taps: Arc<[String]>,
    deadline: Instant,
}

impl Ports {
    /// Those of a machine that was just started.
    pub fn of(machine: &Machine) -> Self {
        Self::named(machine.taps().iter().map(|tap| tap.name.clone()))
    }

    /// Those with these names.
    pub fn named(taps: impl Iterator<Item = String>) -> Self {
        Self { taps: taps.collect(), deadline: Instant::now() + LIMIT }
    }

    /// Waits until all of them pass frames. An error: one does not.
    pub async fn pass(&self) -> Result<()> {
        let mut tick = interval(LOOKED_EVERY);
        loop {
            tick.tick().await;
            let Some((tap, state)) = self.waiting().await else { return Ok(()) };
            if Instant::now() >= self.deadline {
                bail!(
                    "the guest's port {tap} passes no frames ({state:?}), so the guest would have no network; look at the \
                     spanning tree of its bridge"
                );
            }
        }
    }

    /// One that passes nothing yet. What is no port of a bridge is none of ours.
    async fn waiting(&self) -> Option<(&str, PortState)> {
        for tap in self.taps.iter() {
            match port_state(tap).await {
                Ok(Some(state)) if state != PortState::Forwarding => return Some((tap, state)),
                Ok(_) => {}
                Err(error) => tracing::debug!(tap, %error, "cannot look at a port"),
            }
        }
        None
    }
}

/// Waits until QEMU holds the whole guest. An error: it never will.
pub async fn loaded(machine: &Machine, ports: &Ports) -> Result<()> {
    ports.pass().await?;
    let found = machine.qmp().migration_until(ASKED_EVERY, MigrateInfo::has_ended).await?;
    if !found.is_completed() {
        bail!("the destination's QEMU could not take the memory: {}", found.error_desc);
    }
    Ok(())
}
