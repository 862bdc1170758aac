//! Runs the throttle's policy: observes the disk now and then, and hands on the limits.
//!
//! The policy decides, the volume's gate enforces; they meet only in [`Limits`]. Limits that nobody
//! renews expire, so nothing has to be undone if this thread ends.

use std::io;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use throttle::policy::Unthrottled;
use throttle::{Limits, Observation, Policy};
use tracing::info;

use crate::extent::BLOCK_BYTES;
use crate::io::clock;
use crate::io::lock::lock;
use crate::io::mailbox::Mailbox;

use super::replication::Replication;

/// Time between two observations.
const EVERY: Duration = Duration::from_millis(100);

/// Whose decisions hold, and how far it has gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// The policy's name.
    pub policy: &'static str,
    /// Its level.
    pub level: u32,
}

/// The policy in force.
pub struct Throttling {
    verdict: Arc<Mutex<Verdict>>,
    policies: Mutex<Sender<Box<dyn Policy>>>,
}

impl Throttling {
    /// Starts to run `policy`. Without a replication there is no backlog to see.
    pub fn start(
        policy: Box<dyn Policy>,
        mailbox: Mailbox,
        replication: Option<Arc<Replication>>,
    ) -> io::Result<Self> {
        let (policies, changes) = channel();
        let verdict = Arc::new(Mutex::new(Verdict { policy: policy.name(), level: 0 }));
        let runner = Runner { policy, mailbox, replication, verdict: Arc::clone(&verdict) };
        thread::Builder::new().name("throttle".into()).spawn(move || runner.run(&changes))?;
        Ok(Self { verdict, policies: Mutex::new(policies) })
    }

    /// Whose decisions hold.
    pub fn verdict(&self) -> Verdict {
        *lock(&self.verdict)
    }

    /// Has `policy` decide from now on.
    pub fn choose(&self, policy: Box<dyn Policy>) {
        *lock(&self.verdict) = Verdict { policy: policy.name(), level: 0 };
        // The runner ends with the daemon only.
        let _ = lock(&self.policies).send(policy);
    }
}

struct Runner {
    policy: Box<dyn Policy>,
    mailbox: Mailbox,
    replication: Option<Arc<Replication>>,
    verdict: Arc<Mutex<Verdict>>,
}

impl Runner {
    fn run(mut self, changes: &Receiver<Box<dyn Policy>>) {
        let mut last = Limits::NONE;
        loop {
            let Ok(observation) = self.observe() else { return };
            let limits = self.policy.observe(&observation);
            *lock(&self.verdict) = Verdict { policy: self.policy.name(), level: self.policy.level() };
            // Limits set by hand stay in force while the policy has nothing to say.
            let speaks = limits != Limits::NONE || last != Limits::NONE;
            last = limits;
            if speaks
                && self.mailbox.post(move |server, now| server.volume_mut().set_limits(limits, now)).is_err()
            {
                return;
            }
            match self.wait(changes, last) {
                Ok(policy) => {
                    info!(policy = policy.name(), "another throttle policy decides");
                    self.policy = policy;
                    // Whatever the one before had said is to be replaced.
                    last = Limits { delay: Duration::MAX, ..Limits::NONE };
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
        }
    }

    /// Until the next observation, or until there is another policy. A policy that never speaks
    /// needs no observations, and an idle disk no wake-ups.
    fn wait(
        &self,
        changes: &Receiver<Box<dyn Policy>>,
        last: Limits,
    ) -> Result<Box<dyn Policy>, RecvTimeoutError> {
        if self.policy.name() == Unthrottled.name() && last == Limits::NONE {
            return changes.recv().map_err(|_| RecvTimeoutError::Disconnected);
        }
        changes.recv_timeout(EVERY)
    }

    fn observe(&self) -> Result<Observation, crate::io::mailbox::Stopped> {
        let counts = self.mailbox.ask(|server, _| server.volume_mut().counts())?;
        let recorder = self.replication.as_ref().and_then(|replication| replication.recorder());
        let (backlog_bytes, acknowledged_bytes_total) = recorder.map_or((0, 0), |recorder| {
            let guard = recorder.lock();
            let pending = guard.tracker.pending();
            let backlog = pending.dirty_blocks() * BLOCK_BYTES + pending.queue_bytes();
            (backlog + guard.source.unacknowledged_bytes(), guard.source.counts().acknowledged_bytes_total)
        });
        Ok(Observation {
            now: clock::now(),
            writes_total: counts.writes_total,
            written_bytes_total: counts.written_bytes_total,
            backlog_bytes,
            acknowledged_bytes_total,
        })
    }
}
