//! What of a migration is kept for the daemon after this one, and when it is written down.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use nix::time::{ClockId, clock_gettime};
use serde::{Deserialize, Serialize};

use super::context::{Context, Kept, Options};
use crate::costs::Costs;
use crate::quantity::ms;

/// What of a migration the daemon after this one has to know; the journal says how far it came.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Departure {
    /// Its number.
    pub migration: String,
    /// Which guest.
    pub guest: String,
    /// To which host.
    pub to: String,
    /// How.
    pub options: Options,
    /// Bytes a second over all channels.
    pub bandwidth_bytes_per_s: Option<u64>,
    /// The guest ran when it was asked for.
    pub ran: bool,
    /// The generation of its disks after the move.
    pub generation: u64,
    /// An operator has taken the guest back: the destination is to be told.
    #[serde(default)]
    pub is_taken_back: bool,
    /// The guest is at home where it goes.
    #[serde(default)]
    pub to_home: bool,
    /// What it has cost so far; it may lack what came since it was written down.
    #[serde(default, skip_serializing_if = "Costs::is_unknown")]
    pub costs: Costs,
}

/// This host's clock that nobody sets. As long as a guest's QEMU lives it is the same one.
fn monotonic() -> Duration {
    clock_gettime(ClockId::CLOCK_MONOTONIC).map_or(Duration::ZERO, Duration::from)
}

impl Context {
    /// It has just been asked for.
    pub fn begin_costs(&mut self) {
        self.known().costs.begun_ms = Some(ms(monotonic()));
    }

    /// A daemon before this one has begun it, and it has cost so much already.
    pub fn go_on_with(&mut self, costs: Costs) {
        let passed = costs.begun_ms.map(|begun| monotonic().saturating_sub(Duration::from_millis(begun)));
        let begun = passed.and_then(|passed| Instant::now().checked_sub(passed));
        self.begun = begun.unwrap_or(self.begun);
        self.known().costs = costs;
        *self.kept.lock().expect("nothing panics while it writes it down") = Kept::Open;
    }

    /// What the daemon after this one has to know.
    pub fn departure(&self) -> Departure {
        let known = self.known();
        Departure {
            migration: self.handle.id().to_owned(),
            guest: self.guest.name.clone(),
            to: self.peer.name.clone(),
            options: self.options.clone(),
            bandwidth_bytes_per_s: *self.handle.bandwidth().borrow(),
            ran: known.ran,
            generation: known.generation,
            is_taken_back: known.is_taken_back,
            to_home: known.to_home,
            costs: known.costs.clone(),
        }
    }

    /// Writes it down; it is durable when this returns.
    pub fn keep_departure(&self) -> Result<()> {
        let kept = tokio::task::block_in_place(|| {
            // One after another, so that the last one written is the last one known.
            let mut kept = self.kept.lock().expect("nothing panics while it writes it down");
            let departure = self.departure();
            self.site.departures.save(&departure.migration, &departure)?;
            if *kept == Kept::NotYet {
                *kept = Kept::Open;
            }
            std::io::Result::Ok(())
        });
        kept.context("cannot write down in state_dir what is to be moved")
    }

    /// Writes down soon what it costs, if it is kept at all. Nobody waits for it, a guest that stands still least of all;
    /// what is lost with it is a part of the account.
    pub fn keep_costs(self: &Arc<Self>) {
        let context = Arc::clone(self);
        tokio::task::spawn_blocking(move || {
            let kept = context.kept.lock().expect("nothing panics while it writes it down");
            if *kept == Kept::Open {
                let departure = context.departure();
                if let Err(error) = context.site.departures.save(&departure.migration, &departure) {
                    tracing::debug!(migration = departure.migration, %error, "the account is not written down");
                }
            }
        });
    }

    /// It has ended: nothing is written down of it any more.
    pub fn keep_no_more(&self) {
        *self.kept.lock().expect("nothing panics while it writes it down") = Kept::Over;
    }
}
