//! The daemon's life: takes its folders, serves, and ends without touching a guest.
//!
//! ```text
//! locks (one daemon a state_dir, one a runtime_dir) ─► site ─► API socket ─► ready ─► … SIGTERM ─► gone
//!                                                                 │
//!                                                              answer: commands ─► site
//! ```
//!
//! Machines and block daemons are processes of their own, in sessions of their own: the end of this one is nothing to
//! them. Knows how to start and end, not what commands mean: that is [`answer`].

mod answer;
mod folders;
mod guests;
mod hosts;
mod recover;

use std::sync::Arc;

use anyhow::{Context, Result};
use sd_notify::NotifyState;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tracing::{info, warn};

use crate::config::Config;
use crate::io::api_server;
use crate::io::destination;
use crate::io::hold::HoldPoints;
use crate::io::link::LinkListener;
use crate::io::site::Site;
use crate::io::source;

use self::answer::Operator;
use self::folders::Taken;

/// Serves until it is told to end.
pub async fn run(config: Config, hold_points: HoldPoints) -> Result<()> {
    let ends = [SignalKind::terminate(), SignalKind::interrupt()].map(signal);
    let [terminate, interrupt] = ends.map(|end| end.context("cannot listen for signals"));
    let (mut terminate, mut interrupt) = (terminate?, interrupt?);
    let taken = Taken::take(&config)?;
    let listener = taken.listen()?;
    let name = config.name.clone();
    if let Some(warning) = hold_points.warning() {
        warn!("{warning}");
    }
    let site = Arc::new(Site::open(config, hold_points).context("cannot read what is kept in state_dir")?);
    site.find_paths().await;
    site.look_at_pool();
    destination::recover(&site).await;
    site.adopt().await;
    source::recover(&site);
    let links = LinkListener::bind(site.link.clone()).await.context("cannot listen for other hosts")?;
    let operator = Arc::new(Operator::new(Arc::clone(&site), links.desk().clone()));
    info!(host = name, socket = %taken.socket().display(), "serving");
    tell(&[NotifyState::Ready]);
    tokio::select! {
        () = api_server::serve(listener, operator) => unreachable!("it serves for ever"),
        () = welcome(&site, &links) => unreachable!("it welcomes for ever"),
        () = ended(&mut terminate) => info!("SIGTERM: ending; guests go on"),
        () = ended(&mut interrupt) => info!("SIGINT: ending; guests go on"),
    }
    tell(&[NotifyState::Stopping]);
    Ok(())
}

/// Each link that a peer makes is a guest that may come, or only a look.
async fn welcome(site: &Arc<Site>, links: &LinkListener) {
    loop {
        let link = links.accept().await;
        tokio::spawn(destination::serve(Arc::clone(site), link));
    }
}

async fn ended(end: &mut Signal) {
    end.recv().await;
}

fn tell(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        warn!(%error, "cannot tell systemd how this goes");
    }
}
