//! One host as its daemon's parts share it: its configuration, its guests, its migrations.
//!
//! ```text
//! adopt (after a restart) ─┐
//! run, an arrival ─────────┴─► tend: the machine is the guest's ─► it ends by itself: cleaned up, and said why
//! ```
//!
//! Knows nothing of those who use it: the API's answers, the two ends of a migration.

use std::io;
use std::sync::Arc;

use tracing::warn;

use crate::config::Config;
use crate::io::machine::{ExitReason, Machine};
use crate::io::registry::{Claim, Guests, Migrations, Task};

/// One host.
#[derive(Debug)]
pub struct Site {
    /// As it is configured.
    pub config: Config,
    /// Its guests.
    pub guests: Guests<Machine>,
    /// Its migrations, at either end.
    pub migrations: Migrations,
}

impl Site {
    /// The host, with what is kept below its `state_dir`. To be opened by the one daemon that holds its lock.
    pub fn open(config: Config) -> io::Result<Self> {
        let guests = Guests::load(&config.state_dir)?;
        let migrations = Migrations::load(&config.state_dir)?;
        Ok(Self { config, guests, migrations })
    }

    /// Finds the machines again that the daemon before this one left running.
    pub async fn adopt(self: &Arc<Self>) {
        for known in self.guests.list() {
            let name = &known.record.guest.name;
            let Ok(claim) = self.guests.claim(name, Task::Start) else { continue };
            match Machine::adopt(&self.config, &known.record.guest).await {
                Ok(Some(machine)) => self.tend(&claim, machine),
                Ok(None) => {}
                Err(error) => {
                    warn!(guest = name, %error, "cannot tell whether this guest runs");
                    claim.set_trouble(&error.to_string());
                }
            }
        }
    }

    /// The guest has this machine from now on. When it ends by itself, what is left of it is cleared away and the
    /// reason is noted. Not so while somebody has a claim: then it waits for its turn.
    pub fn tend(self: &Arc<Self>, claim: &Claim<Machine>, machine: Machine) {
        claim.set_machine(Some(machine.clone()));
        claim.set_trouble("");
        let (site, name) = (Arc::clone(self), claim.name().to_owned());
        tokio::spawn(async move {
            let reason = machine.ended().await;
            let Some(claim) = site.guests.claim_when_free(&name, Task::Stop).await else { return };
            // Somebody else may have ended it, and the guest may have another machine by now.
            if claim.machine().is_ok_and(|current| current.pid() == machine.pid()) {
                machine.quit().await;
                claim.set_machine(None);
                claim.set_trouble(&words(&reason));
            }
        });
    }
}

fn words(reason: &ExitReason) -> String {
    match reason {
        ExitReason::GuestShutdown => "it switched itself off".to_owned(),
        ExitReason::Told(who) => format!("QEMU was told to end ({who})"),
        ExitReason::Died(why) => format!("QEMU died: {why}"),
    }
}
