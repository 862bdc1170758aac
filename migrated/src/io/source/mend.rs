//! What a rollback could not remove of the guest's path, removed later: the migration has ended, and the guest is used.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Result;
use tokio::time::sleep;

use super::context::Context;
use super::path;
use super::recovery::forget;
use crate::trouble::Repeated;

/// Between two attempts.
const AGAIN: Duration = Duration::from_secs(1);

/// Tries until nothing is left; then a daemon after this one need not.
pub async fn mend(context: Arc<Context>) {
    let begun = Instant::now();
    let mut repeated = Repeated::default();
    let (migration, guest) = (context.handle.id(), &context.guest.name);
    loop {
        sleep(AGAIN).await;
        // A move that has begun meanwhile looks for its own way, and must not lose it.
        if context.site.migrations.running_of(guest).is_some() {
            continue;
        }
        match mended(&context).await {
            Ok(()) => break,
            Err(error) if repeated.handle_failure(begun.elapsed()) => {
                tracing::error!(migration, guest, "the way of its packets is not as it was yet: {error:#}");
            }
            Err(_) => {}
        }
    }
    tracing::info!(migration, guest, "the way of its packets is as it was");
    // One that an operator has taken back is forgotten when the destination knows.
    if !context.known().is_taken_back {
        forget(&context.site, migration);
    }
}

async fn mended(context: &Arc<Context>) -> Result<()> {
    let known = context.site.guests.find(&context.guest.name);
    let machine = known.ok().and_then(|known| known.machine);
    // Only while it is this very machine here its packets are this host's to turn.
    if machine.is_some_and(|machine| machine.pid() == context.machine.pid()) {
        path::switch_back(context).await?;
    }
    path::remove(context).await
}
