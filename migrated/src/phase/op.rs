//! The operations of the source: what is done to the world, each in the phase that the table says.

use serde::{Deserialize, Serialize};

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
    /// Make sure that the link answers and that QEMU has sent everything (M7).
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
    /// Have the guest go on here as it was, whatever was done.
    Restore,
    /// Tell the destination that the guest does not come, and end recording and tunnels.
    CallOff,
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
            Op::CallOff => "call-off",
        }
    }
}
