//! One operation, done: its promise is journalled where the table says, and what it found goes back to the decider.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result};
use tokio::time::timeout;

use super::context::Context;
use super::{disks, handover, memory, path, prepare, restore};
use crate::io::qmp::QmpError;
use crate::journal::Step;
use crate::phase::{Op, Promise};

/// How long QEMU and blockd may take to end when their guest is gone.
const CLEAN_UP_LIMIT: Duration = Duration::from_secs(30);

/// How an operation ended well.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// It is done.
    Done,
    /// It is done, and this host knows why the guest cannot move.
    CannotMove,
    /// The destination's journal has spoken.
    Verdict(bool),
}

/// Does an operation. `keep_copies`: of a migration that is over, what the destination has of the disks stays there.
pub async fn perform(
    op: Op,
    promise: Option<Promise>,
    context: Arc<Context>,
    keep_copies: bool,
) -> Result<Ended> {
    let context = &context;
    if context.site.hold_points.pass(&format!("source-{}", op.name())).await {
        context.event(format!("{} was held", op.name()));
    }
    match promise {
        Some(Promise::Before(step)) => promise_durably(context, step)?,
        Some(Promise::IfPossible(step)) => {
            if let Err(error) = promise_durably(context, step) {
                context.warn(format!("{error:#}"));
            }
        }
        Some(Promise::After(_)) | None => {}
    }
    let has_begun = context.known().has_begun();
    match op {
        Op::Inspect if prepare::inspect(context).await? => {}
        Op::Inspect => return Ok(Ended::CannotMove),
        Op::Connect if has_begun => prepare::reconnect(context).await?,
        Op::Connect => prepare::first_connect(context).await?,
        // What promises nothing only asks.
        Op::Reserve => prepare::reserve(context, promise.is_none()).await?,
        Op::Replicate => disks::replicate(context).await?,
        Op::PreparePath => path::prepare(context).await?,
        Op::StartRam => memory::start(context).await?,
        Op::AwaitPause => memory::await_pause(context).await?,
        Op::SwitchPath => path::switch(context).await?,
        Op::Seal => disks::seal(context).await?,
        Op::FinishRam => memory::finish(context).await?,
        Op::AwaitLoaded => handover::await_loaded(context).await?,
        Op::Release => handover::look_a_last_time(context).await?,
        Op::HandOver => return Ok(Ended::Verdict(handover::hand_over(context).await?)),
        Op::AskVerdict => return Ok(Ended::Verdict(handover::ask_verdict(context).await?)),
        Op::AwaitRunning if handover::await_running(context).await? => {}
        Op::AwaitRunning => return Ok(Ended::Verdict(false)),
        Op::Fence => {
            disks::fence(context).await?;
            handover::conclude(context).await;
        }
        Op::Readdress => prepare::readdress(context).await?,
        Op::CleanUp => timeout(CLEAN_UP_LIMIT, context.machine.quit()).await?,
        Op::Retreat => restore::retreat(context).await?,
        Op::Restore => restore::restore(context).await,
        Op::CallOff => restore::call_off(context, keep_copies).await,
    }
    if let Some(Promise::After(step)) = promise {
        promise_durably(context, step)?;
    }
    Ok(Ended::Done)
}

/// Journals a promise, and with it what a daemon after this one needs to know to keep it.
fn promise_durably(context: &Arc<Context>, step: Step) -> Result<()> {
    if step == Step::Begun {
        context.keep_departure()?;
    }
    let durable = context.promise(step)?;
    if step == Step::Releasing {
        let mut known = context.known();
        known.released = Some((durable, known.links));
        drop(known);
        context.event("commitment: releasing is journalled");
    }
    Ok(())
}

/// True where an operation failed for no other reason than that QEMU has ended.
pub fn has_lost_qemu(error: &anyhow::Error) -> bool {
    error.chain().any(|cause| matches!(cause.downcast_ref(), Some(QmpError::Closed { .. })))
}

impl Context {
    /// Why the link is over, if it is.
    pub fn lost_link(&self) -> Option<String> {
        let over = self.known().link.as_ref().and_then(|link| link.over())?;
        Some(format!("the link to {} ended: {over}", self.peer.name))
    }

    /// The guest was handed over on the link that there is.
    pub fn is_released_on_this_link(&self) -> Result<bool> {
        let known = self.known();
        let (_, link) = known.released.as_ref().context("nothing was handed over by this daemon")?;
        Ok(*link == known.links)
    }
}
