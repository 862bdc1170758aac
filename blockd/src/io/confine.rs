//! Least rights: what the daemon gives up once its disk and its sockets are open.
//!
//! ```text
//! open disk, sidecar, sockets, ring ──► confine ──► threads, clients, replica
//!                                          │ no core file, not to be looked into by others of its user
//!                                          │ no new privileges, no capabilities
//!                                          │ landlock: no path is opened, no network reached, nobody signalled
//!                                          └ seccomp: the system calls that serving takes ([`calls`])
//! ```
//!
//! Holds for the calling thread and all that it starts, and cannot be undone; the supervisor stays as it was, so a
//! daemon that it starts again confines itself anew. Operations of an io_uring pass no seccomp filter: the ring is
//! made before, allows its own few operations only ([`crate::io::ring`]), and no second one can be made.

mod calls;

use std::fmt;
use std::path::{Path, PathBuf};

use caps::CapSet;
use landlock::{
    ABI, Access, AccessFs, AccessNet, LandlockStatus, PathBeneath, PathFd, Ruleset, RulesetAttr,
    RulesetCreatedAttr, RulesetError, Scope,
};
use nix::sys::prctl;
use nix::sys::resource::{Resource, setrlimit};
use seccompiler::apply_filter;
use thiserror::Error;
use tracing::{info, warn};

use crate::config::ConfineFlag;

/// The newest rights of landlock that were tried with this program; what a later kernel knows more stays allowed.
const TRIED_ABI: ABI = ABI::V7;

/// What serving still needs of the world.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Needs {
    /// Sockets that have to be removed at the end; with a supervisor, which does it, none.
    pub sockets: Vec<PathBuf>,
    /// Whoever is to be told of the start listens on an abstract socket.
    pub abstract_sockets: bool,
}

/// What holds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Confined {
    /// Landlock's ABI; none: the kernel has none.
    pub landlock: Option<i32>,
    /// The filter of system calls.
    pub seccomp: bool,
    /// No capabilities, no new ones, no core file.
    pub rights: bool,
}

impl fmt::Display for Confined {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if *self == Self::default() {
            return f.write_str("off");
        }
        match self.landlock {
            Some(abi) => write!(f, "landlock {abi}")?,
            None => f.write_str("no landlock")?,
        }
        f.write_str(if self.seccomp { ", seccomp" } else { ", no seccomp" })?;
        f.write_str(if self.rights { ", no capabilities" } else { ", capabilities kept" })
    }
}

/// Why rights could not be given up.
#[derive(Debug, Error)]
pub enum ConfineError {
    /// The kernel has no landlock, or has it switched off.
    #[error(
        "this kernel has no landlock; use --confine auto, or a kernel with it (CONFIG_SECURITY_LANDLOCK, lsm=)"
    )]
    NoLandlock,
    /// Landlock failed.
    #[error("landlock: {0}")]
    Landlock(#[from] RulesetError),
    /// A socket's folder cannot be named.
    #[error("landlock: {0}")]
    Folder(#[from] landlock::PathFdError),
    /// Seccomp failed.
    #[error("seccomp: {0}")]
    Seccomp(#[from] seccompiler::Error),
    /// The filter cannot be built.
    #[error("seccomp: {0}")]
    Filter(#[from] seccompiler::BackendError),
    /// A capability stays.
    #[error("capabilities: {0}")]
    Capabilities(#[from] caps::errors::CapsError),
    /// The process's settings.
    #[error("cannot change what this process may do: {0}")]
    Process(#[from] nix::errno::Errno),
}

/// Gives up what is not needed. To be called while there is one thread only, with everything open.
pub fn confine(how: ConfineFlag, needs: &Needs) -> Result<Confined, ConfineError> {
    if how == ConfineFlag::Off {
        return Ok(Confined::default());
    }
    let tolerate = |part: &str, result: Result<(), ConfineError>| match result {
        Ok(()) => Ok(true),
        Err(error) if how == ConfineFlag::Required => Err(error),
        Err(error) => {
            warn!(%error, "serving with more rights than needed: {part} is not to be had");
            Ok(false)
        }
    };
    let rights = tolerate("giving up capabilities", drop_rights())?;
    let mut abi = None;
    tolerate("landlock", restrict_paths(needs).map(|found| abi = Some(found)))?;
    // Last: what stands above takes calls that are forbidden from here on.
    let seccomp = tolerate("seccomp", filter_calls(needs))?;
    let confined = Confined { landlock: abi, seccomp, rights };
    info!(%confined, "gave up what serving does not need");
    Ok(confined)
}

fn drop_rights() -> Result<(), ConfineError> {
    // A core file would hold the guest's data.
    setrlimit(Resource::RLIMIT_CORE, 0, 0)?;
    prctl::set_dumpable(false)?;
    prctl::set_no_new_privs()?;
    for set in [CapSet::Ambient, CapSet::Inheritable, CapSet::Effective, CapSet::Permitted] {
        caps::clear(None, set)?;
    }
    Ok(())
}

/// Everything that is needed is open, so no path is allowed. Gives landlock's ABI.
fn restrict_paths(needs: &Needs) -> Result<i32, ConfineError> {
    let mut scopes = Scope::from_all(TRIED_ABI);
    if needs.abstract_sockets {
        scopes.remove(Scope::AbstractUnixSocket);
    }
    let mut ruleset = Ruleset::default()
        .handle_access(AccessFs::from_all(TRIED_ABI))?
        .handle_access(AccessNet::from_all(TRIED_ABI))?
        .scope(scopes)?
        .create()?;
    for socket in &needs.sockets {
        let folder =
            socket.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        ruleset = ruleset.add_rule(PathBeneath::new(PathFd::new(folder)?, AccessFs::RemoveFile))?;
    }
    match ruleset.restrict_self()?.landlock {
        LandlockStatus::Available { effective_abi, kernel_abi } => {
            Ok(kernel_abi.unwrap_or(effective_abi as i32))
        }
        _ => Err(ConfineError::NoLandlock),
    }
}

fn filter_calls(needs: &Needs) -> Result<(), ConfineError> {
    for filter in calls::filters(!needs.sockets.is_empty())? {
        apply_filter(&filter)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests;
