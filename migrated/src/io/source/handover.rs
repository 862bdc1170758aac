//! The handover (M1, M2, M7, M8): the source promises, the destination takes, and only its journal counts from then on.
//!
//! ```text
//! link answered, QEMU completed ─► journal *releasing* ─► take n ─► verdict ─► … ─► running
//!                                                          └─ no answer: redial and ask, for as long as it takes
//! ```

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use tokio::time::{sleep, timeout};

use super::context::Context;
use super::prepare::{self, REDIAL};
use super::recovery::ask_for_ever;
use crate::io::peer_channel::PeerError;
use crate::journal::Step;
use crate::peer::{Answer, Request};

/// A link that has answered within this time is alive (M7).
const FRESH: Duration = Duration::from_millis(200);

/// How long a link that has been quiet may take to answer, beside a few of its round trips.
const PING_LIMIT: Duration = Duration::from_secs(1);
const PING_ROUND_TRIPS: u32 = 4;

/// How long a destination may take to let go of a guest that is there.
const LET_GO_LIMIT: Duration = Duration::from_secs(5);

/// A destination that has taken the guest is asked again after this long, whether it runs.
const ASK_AGAIN: Duration = Duration::from_secs(3);

/// How long one attempt may take.
const ASK_LIMIT: Duration = Duration::from_secs(15);

/// Looks a last time at the link and at QEMU (M7).
pub async fn look_a_last_time(context: &Arc<Context>) -> Result<()> {
    let link = context.link()?;
    let now = link.status();
    if Duration::from_millis(now.quiet_ms) > FRESH {
        context.count_round_trip();
        let limit = PING_LIMIT + PING_ROUND_TRIPS * Duration::from_micros(now.rtt_us);
        timeout(limit, link.ping()).await.context("the link does not answer any more")??;
    }
    let memory = context.machine.qmp().query_migrate().await?;
    if !memory.is_completed() {
        bail!("QEMU's migration is {} and not completed", memory.status);
    }
    Ok(())
}

/// Has the destination take the guest. Ok: what its journal says. An error: nobody knows.
pub async fn hand_over(context: &Arc<Context>) -> Result<bool> {
    let (generation, run) = {
        let known = context.known();
        let (releasing, _) = known.released.context("nothing leaves before releasing is journalled")?;
        assert_eq!(releasing.step(), Step::Releasing, "M2: the promise comes first");
        (known.generation, known.ran)
    };
    let request = Request::Take { migration: context.handle.id().to_owned(), generation, run };
    context.count_round_trip();
    let answer = timeout(ASK_LIMIT, context.client()?.call(request)).await;
    match answer.context("the handover was not answered in time")? {
        Ok(Answer::Verdict { taken, running }) => {
            note(context, taken, running);
            Ok(taken)
        }
        Ok(other) => Err(PeerError::Unexpected(Box::new(other)).into()),
        // It journals its refusal before it says so.
        Err(PeerError::Refused(reasons)) => {
            context.event(format!("commitment: refused: {}", reasons.join("; ")));
            Ok(false)
        }
        Err(error) => Err(error).context("the handover was not answered"),
    }
}

/// Asks the destination's journal until it answers.
pub async fn ask_verdict(context: &Arc<Context>) -> Result<bool> {
    let mut attempt = 0;
    loop {
        match timeout(ASK_LIMIT, ask(context)).await {
            Ok(Ok(taken)) => return Ok(taken),
            Ok(Err(error)) => {
                tracing::warn!(migration = context.handle.id(), "cannot ask the destination: {error:#}")
            }
            Err(_) => tracing::warn!(migration = context.handle.id(), "the destination does not answer"),
        }
        sleep(REDIAL[attempt.min(REDIAL.len() - 1)]).await;
        attempt += 1;
    }
}

async fn ask(context: &Arc<Context>) -> Result<bool> {
    if context.heard.borrow().gone || context.client().is_err() {
        prepare::connect(context).await?;
    }
    let request = Request::Verdict {
        migration: context.handle.id().to_owned(),
        generation: context.known().generation,
    };
    let asked = context.client()?.call(request).await;
    if asked.is_err() {
        // Whatever is wrong with this link: the next attempt has a new one.
        context.heard.send_modify(|heard| heard.gone = true);
    }
    match asked? {
        Answer::Verdict { taken, running } => {
            note(context, taken, running);
            Ok(taken)
        }
        other => Err(PeerError::Unexpected(Box::new(other)).into()),
    }
}

fn note(context: &Arc<Context>, taken: bool, running: bool) {
    context.event(if taken { "commitment: taken" } else { "commitment: not taken" });
    if taken && running {
        context.note_running();
        context.heard.send_modify(|heard| heard.running = true);
    }
}

/// Lets the destination close its account: this host knows that the guest runs there. Where it does not answer now it is
/// told later; if that is lost, nothing is: the destination only keeps the account open.
pub async fn conclude(context: &Arc<Context>) {
    if say_concluded(context, PING_LIMIT).await {
        return;
    }
    context.event("the destination will be told later that its account can be closed");
    let (site, to) = (Arc::clone(&context.site), context.peer.name.clone());
    let limit = Duration::from_millis(site.config.migration.lease_ms);
    let request = Request::Concluded { migration: context.handle.id().to_owned() };
    tokio::spawn(async move { timeout(limit, ask_for_ever(&site, &to, request)).await });
}

/// Lets the destination let go of the guest, so that who is told of the end can do the next thing with it there, too.
/// Without an answer it does so when the link ends.
pub async fn let_go(context: &Arc<Context>) {
    if !say_concluded(context, LET_GO_LIMIT).await {
        tracing::debug!(migration = context.handle.id(), "the destination lets go when it sees the link end");
    }
}

async fn say_concluded(context: &Arc<Context>, limit: Duration) -> bool {
    let request = Request::Concluded { migration: context.handle.id().to_owned() };
    match context.client() {
        Ok(client) => matches!(timeout(limit, client.order(request)).await, Ok(Ok(()))),
        Err(_) => false,
    }
}

/// Waits until the guest runs at the destination; asks again over a new link where the old one ends. False: it does not,
/// the destination has handed it back (M8).
pub async fn await_running(context: &Arc<Context>) -> Result<bool> {
    let mut heard = context.heard.subscribe();
    loop {
        let told = async {
            let heard =
                heard.wait_for(|heard| heard.running || heard.gone).await.context("nobody listens")?;
            anyhow::Ok((heard.running, heard.gone))
        };
        let (running, gone) = match timeout(ASK_AGAIN, told).await {
            Ok(told) => told?,
            // Its notice may have gone to a link that is no more.
            Err(_) => (false, true),
        };
        if running {
            context.event("resume: the guest is up at the destination");
            return Ok(true);
        }
        if gone {
            if !ask_verdict(context).await? {
                return Ok(false);
            }
            // It has taken the guest and is starting it: its notice, or the next answer, says when.
            sleep(REDIAL[0]).await;
        }
    }
}

/// Waits until the destination's QEMU holds the whole guest.
pub async fn await_loaded(context: &Arc<Context>) -> Result<()> {
    let mut heard = context.heard.subscribe();
    context.count_round_trip();
    let heard = heard.wait_for(|heard| heard.loaded || heard.gone).await.context("nobody listens")?;
    if heard.loaded { Ok(()) } else { bail!("the link ended before the destination had the whole guest") }
}
