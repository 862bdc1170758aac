//! Whether this machine fits its configuration: folders, programs, networks, zones. Everything at once.
//!
//! ```text
//! configuration ─┬─ folders ── stat, access ───────┐
//!                ├─ programs ─ $PATH, access ──────┤
//!                ├─ networks ─ sysfs, rtnetlink ───┼──► findings: where, what, what to do
//!                └─ zones ──── key file, server ───┘
//! ```
//!
//! It refuses to change anything: nothing is made, started, locked or listened at. So it may be done beside a daemon that
//! runs. What it finds stops nobody: it may be mended, or pass, before it is needed.

mod folders;
mod networks;
mod programs;

use futures_util::future::join_all;
use tokio::task::spawn_blocking;

use crate::config::{Config, Zone};
use crate::finding::Finding;
use crate::io::run_as::RunAs;
use crate::io::zones::try_zone;

/// Everything that does not fit. Takes a few seconds where a name server is silent.
pub async fn look(config: &Config) -> Vec<Finding> {
    let on_this_host = {
        let config = config.clone();
        spawn_blocking(move || {
            let mut findings = folders::look(&config);
            findings.extend(programs::look(&config));
            findings.extend(user(&config));
            findings.extend(networks::look(&config));
            findings
        })
    };
    let tried = join_all((0..).zip(&config.zones).map(|(index, zone)| zone_of(index, zone)));
    let (here, zones) = tokio::join!(on_this_host, tried);
    let here = here.unwrap_or_else(|error| vec![Finding::new("this host", error.to_string(), "try again")]);
    here.into_iter().chain(zones.into_iter().flatten()).collect()
}

async fn zone_of(index: usize, zone: &Zone) -> Option<Finding> {
    let fault = try_zone(zone).await.err()?;
    Some(Finding::new(format!("dns[{index}].{}", fault.field()), fault.to_string(), fault.remedy()))
}

fn user(config: &Config) -> Option<Finding> {
    let error = RunAs::find(config.qemu.user.as_deref()?).err()?.to_string();
    // It names its key and says what to do, for it is also told without this list.
    let told = error.strip_prefix("qemu.user: ").unwrap_or(&error);
    let (what, remedy) = told.split_once("; ").unwrap_or((told, "look at /etc/passwd"));
    Some(Finding::new("qemu.user", what, remedy))
}
