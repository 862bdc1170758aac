//! Whether a migration comes nearer to its end, and when it is given up because it does not (S1-03).
//!
//! ```text
//! bulk      less is left of the disks than ever before ──────────────────────┐
//! pre-copy  the first pass over the memory goes on ──────────────────────────┤
//!           a pass began with clearly less than any before it, and goes on ──┼─► nearer
//!           a pass begins in which QEMU gets more of the downtime ───────────┘
//!
//! not nearer for `no_progress` ───────────► given up
//! longer than the limit in all ───────────► given up; the limit follows from bytes and rate, and is said at once
//! a suspended guest without a link ───────► goes on at the source, and is moved when there is a link again
//! ```
//!
//! The first two clocks stand still while the link is down: a cut is a stall, however long. They end nothing once the
//! guest is paused; its own deadline is in `phase`. Pure: `now` is the time since any fixed instant.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::phase::Phase;
use crate::quantity::{ms, rate, time};
use crate::switchover::PASSES_TO_FULL_SHARE;

/// A migration may take so many times as long as its bytes take at the rate that the link has at the beginning.
const FACTOR: u32 = 4;
/// And so much more, for whatever does not go by bytes.
const BASE: Duration = Duration::from_secs(600);
/// The link's rate is believed after it has been busy for so long.
const BELIEVED_AFTER: Duration = Duration::from_secs(2);
/// What arrives is acknowledged in steps of many megabytes, which a very thin link takes long for: so many bytes may
/// pass without being progress.
const STEPS_BYTES: u64 = 64 << 20;
/// A pass that begins with more than this share of the smallest one before is no progress.
const CLEARLY_LESS: f64 = 0.95;

/// How long a migration may take in all.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum TimeLimit {
    /// What follows from bytes and rate.
    #[default]
    Computed,
    /// What an operator says.
    Given(Duration),
    /// As long as it comes nearer to its end.
    None,
}

/// What is seen at one moment.
#[derive(Clone, Copy, Debug)]
pub struct Observation {
    /// Where the migration is.
    pub phase: Phase,
    /// The link stands.
    pub is_link_up: bool,
    /// The guest is suspended for the whole move.
    pub is_suspended: bool,
    /// What the destination lacks of all disks, in bytes.
    pub disk_left_bytes: u64,
    /// What is left of this pass over the memory, in bytes; of the whole before its first pass.
    pub ram_left_bytes: u64,
    /// Passes over the memory.
    pub ram_passes: u64,
    /// What the guest dirties of it, in bytes a second.
    pub ram_dirty_bytes_per_s: u64,
    /// What arrives; 0: not known yet.
    pub goodput_bytes_per_s: u64,
    /// What the link may carry at most; none: what it gives.
    pub limit_bytes_per_s: Option<u64>,
}

/// What follows from it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// By then it has ended: after so much time with the link up.
    Bounded(Duration),
    /// It is given up, for this reason.
    GiveUp(String),
    /// A suspended guest has waited long enough for the link.
    LinkGone(String),
}

/// The clocks of one migration.
#[derive(Clone, Debug)]
pub struct Convergence {
    no_progress: Duration,
    /// A suspended guest waits so long for a link.
    suspended: Duration,
    wish: TimeLimit,
    last: Option<Duration>,
    /// Time with the link up so far, and of that with something to send.
    spent: Duration,
    busy: Duration,
    /// When it last came nearer, in time spent.
    nearer: Duration,
    limit: Option<Duration>,
    /// What the link might carry when the limit was said.
    allowed_bytes_per_s: u64,
    down_since: Option<Duration>,
    best: Best,
}

/// The nearest so far.
#[derive(Clone, Debug, Default)]
struct Best {
    phase: Option<Phase>,
    left_bytes: u64,
    pass: u64,
    /// With how much the smallest pass began.
    pass_bytes: u64,
    is_pass_smaller: bool,
}

impl Convergence {
    /// For a migration that may go on for `no_progress` without coming nearer, and a suspended guest that waits for a
    /// link for as long as `suspended`.
    pub fn new(no_progress: Duration, suspended: Duration, wish: TimeLimit) -> Self {
        Self {
            no_progress,
            suspended,
            wish,
            last: None,
            spent: Duration::ZERO,
            busy: Duration::ZERO,
            nearer: Duration::ZERO,
            limit: None,
            allowed_bytes_per_s: u64::MAX,
            down_since: None,
            best: Best::default(),
        }
    }

    /// After how much time with the link up it is given up; none: not known yet, or never.
    pub fn limit(&self) -> Option<Duration> {
        self.limit
    }

    /// Takes a look in, and says what follows.
    pub fn handle_sample(&mut self, seen: &Observation, now: Duration) -> Option<Verdict> {
        let since = now.saturating_sub(self.last.replace(now).unwrap_or(now));
        if seen.is_link_up {
            self.spent += since;
            self.down_since = None;
        } else if let Some(word) = self.without_link(seen, now) {
            return Some(word);
        }
        if !matches!(seen.phase, Phase::Bulk | Phase::PreCopy) {
            self.best.phase = None;
            return None;
        }
        if seen.is_link_up {
            self.busy += since;
        }
        if self.best.handle(seen) {
            self.nearer = self.spent;
        }
        if let Some(bounded) = self.bound(seen) {
            return Some(bounded);
        }
        self.give_up(seen)
    }

    fn without_link(&mut self, seen: &Observation, now: Duration) -> Option<Verdict> {
        let down = now.saturating_sub(*self.down_since.get_or_insert(now));
        let is_waiting = matches!(seen.phase, Phase::Bulk | Phase::PreCopy);
        (seen.is_suspended && is_waiting && down > self.suspended).then(|| {
            self.down_since = None;
            Verdict::LinkGone(format!(
                "the guest is suspended, and there was no link for {} s",
                down.as_secs()
            ))
        })
    }

    /// The limit, when it becomes known, and when it becomes another: an operator who takes bandwidth gives time.
    fn bound(&mut self, seen: &Observation) -> Option<Verdict> {
        let allowed_bytes_per_s = seen.limit_bytes_per_s.unwrap_or(u64::MAX);
        let limit = match self.wish {
            TimeLimit::None => return None,
            TimeLimit::Given(limit) => limit,
            TimeLimit::Computed => {
                let is_known = seen.goodput_bytes_per_s > 0 && self.busy >= BELIEVED_AFTER;
                let is_less = allowed_bytes_per_s < self.allowed_bytes_per_s;
                if !is_known || (self.limit.is_some() && !is_less) {
                    return None;
                }
                let left_bytes = seen.disk_left_bytes.saturating_add(seen.ram_left_bytes);
                let carried = seen.goodput_bytes_per_s.min(allowed_bytes_per_s).max(1);
                let bytes_take = Duration::from_secs(left_bytes / carried);
                let limit = self.spent + BASE + bytes_take * FACTOR;
                self.limit.map_or(limit, |before| before.max(limit))
            }
        };
        self.allowed_bytes_per_s = allowed_bytes_per_s;
        (self.limit.replace(limit) != Some(limit)).then_some(Verdict::Bounded(limit))
    }

    fn give_up(&self, seen: &Observation) -> Option<Verdict> {
        let steps_take = STEPS_BYTES.checked_div(seen.goodput_bytes_per_s).map(Duration::from_secs);
        let patience = steps_take.unwrap_or_default().max(self.no_progress);
        let why = if self.spent.saturating_sub(self.nearer) > patience {
            format!("it has not come nearer to its end for {}", time(ms(patience)))
        } else {
            let limit = self.limit.filter(|limit| self.spent > *limit)?;
            format!("it has taken {}, and may not take longer (--time-limit)", time(ms(limit)))
        };
        let what = match seen.phase {
            Phase::Bulk => "the guest writes to its disks as fast as they are copied".to_owned(),
            _ => format!("the guest dirties {} of memory", rate(seen.ram_dirty_bytes_per_s)),
        };
        Some(Verdict::GiveUp(format!(
            "{why}, with the link up: {what}, and the link carries {}; let it stand still for longer \
             (--max-downtime) or for the whole move (--cold), or give it more bandwidth. The copies of its disks stay \
             there, and are gone on with",
            rate(seen.goodput_bytes_per_s)
        )))
    }
}

impl Best {
    /// True if this is nearer than ever.
    fn handle(&mut self, seen: &Observation) -> bool {
        let left_bytes = match seen.phase {
            Phase::Bulk => seen.disk_left_bytes,
            _ => seen.disk_left_bytes.saturating_add(seen.ram_left_bytes),
        };
        if self.phase != Some(seen.phase) {
            *self = Self {
                phase: Some(seen.phase),
                left_bytes,
                pass: seen.ram_passes,
                pass_bytes: left_bytes,
                is_pass_smaller: true,
            };
            return true;
        }
        if seen.ram_passes > self.pass {
            self.is_pass_smaller = (left_bytes as f64) < self.pass_bytes as f64 * CLEARLY_LESS;
            self.pass_bytes = self.pass_bytes.min(left_bytes);
            (self.pass, self.left_bytes) = (seen.ram_passes, left_bytes);
            return self.is_pass_smaller || seen.ram_passes <= PASSES_TO_FULL_SHARE;
        }
        let is_less = left_bytes < self.left_bytes;
        self.left_bytes = self.left_bytes.min(left_bytes);
        is_less && self.is_pass_smaller
    }
}

#[cfg(test)]
mod tests;
