//! What is done in which phase, and after what: one table.

use serde::{Deserialize, Serialize};

use crate::phase::Phase;

/// One thing that is done to the world; `io::source` knows how.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Op {
    /// Look at the guest and this host.
    Inspect,
    /// Make the link.
    Connect,
    /// Have the destination reserve, and start what receives.
    Reserve,
    /// Have blockd record writes and keep the destination's copy in step.
    Replicate,
    /// Make the tunnel and send a packet through it.
    PreparePath,
    /// Have QEMU send memory.
    StartRam,
    /// Wait until QEMU has paused the guest, all but the last memory sent.
    AwaitPause,
    /// Reroute the guest's packets at both sites, then take its taps down here.
    SwitchPath,
    /// Hold writes, send the last deltas, compare digests.
    Seal,
    /// Send the last memory.
    FinishRam,
    /// Wait until the destination's QEMU holds the whole guest.
    AwaitLoaded,
    /// Make sure that the link answers (M7), and journal *releasing*.
    Release,
    /// Have the destination take the guest.
    HandOver,
    /// Ask the destination's journal what became of a handover that was not answered.
    AskVerdict,
    /// Wait until the guest runs there.
    AwaitRunning,
    /// Give the disks here up.
    Fence,
    /// Have names lead there.
    Readdress,
    /// End QEMU and blockd here.
    CleanUp,
    /// Have the guest go on here, and let go of the link; its disks stay in step.
    Retreat,
    /// Make everything as it was, whatever was done.
    Restore,
}

impl Op {
    /// Its name in reports and logs.
    pub fn name(self) -> &'static str {
        match self {
            Op::Inspect => "inspect",
            Op::Connect => "connect",
            Op::Reserve => "reserve",
            Op::Replicate => "replicate",
            Op::PreparePath => "prepare-path",
            Op::StartRam => "start-ram",
            Op::AwaitPause => "await-pause",
            Op::SwitchPath => "switch-path",
            Op::Seal => "seal",
            Op::FinishRam => "finish-ram",
            Op::AwaitLoaded => "await-loaded",
            Op::Release => "release",
            Op::HandOver => "hand-over",
            Op::AskVerdict => "ask-verdict",
            Op::AwaitRunning => "await-running",
            Op::Fence => "fence",
            Op::Readdress => "readdress",
            Op::CleanUp => "clean-up",
            Op::Retreat => "retreat",
            Op::Restore => "restore",
        }
    }
}

/// When an operation starts.
#[derive(Clone, Copy, Debug)]
pub struct Planned {
    /// The phase that it belongs to.
    pub phase: Phase,
    /// The operation.
    pub op: Op,
    /// Operations of the same phase that come before it.
    pub after: &'static [Op],
}

/// Every operation of every phase.
pub const PLAN: [Planned; 20] = [
    planned(Phase::PreMigration, Op::Inspect, &[]),
    planned(Phase::Connect, Op::Connect, &[]),
    planned(Phase::Reservation, Op::Reserve, &[]),
    planned(Phase::Bulk, Op::Replicate, &[]),
    planned(Phase::Bulk, Op::PreparePath, &[]),
    planned(Phase::PreCopy, Op::StartRam, &[]),
    planned(Phase::PreCopy, Op::AwaitPause, &[Op::StartRam]),
    planned(Phase::StopAndCopy, Op::SwitchPath, &[]),
    planned(Phase::StopAndCopy, Op::Seal, &[]),
    planned(Phase::StopAndCopy, Op::FinishRam, &[]),
    planned(Phase::StopAndCopy, Op::AwaitLoaded, &[]),
    planned(Phase::Commitment, Op::Release, &[]),
    planned(Phase::Commitment, Op::HandOver, &[Op::Release]),
    planned(Phase::InDoubt, Op::AskVerdict, &[]),
    planned(Phase::Resume, Op::AwaitRunning, &[]),
    planned(Phase::Readdress, Op::Fence, &[]),
    planned(Phase::Readdress, Op::Readdress, &[]),
    planned(Phase::Readdress, Op::CleanUp, &[Op::Fence]),
    planned(Phase::Recovering, Op::Retreat, &[]),
    planned(Phase::RollingBack, Op::Restore, &[]),
];

const fn planned(phase: Phase, op: Op, after: &'static [Op]) -> Planned {
    Planned { phase, op, after }
}

#[cfg(test)]
mod tests {
    use super::PLAN;

    #[test]
    fn an_operation_is_written_as_it_is_named() {
        for planned in &PLAN {
            assert_eq!(serde_json::to_string(&planned.op).unwrap(), format!("{:?}", planned.op.name()));
        }
    }
}
