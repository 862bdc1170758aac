//! What nearly every test of the daemon starts with: the tools are there, so is the daemon, and there is a
//! directory to work in.
//!
//! ```ignore
//! let lab = require!(Lab::with(&["qemu-io"]));
//! let disk = lab.serve("disk", &lab.scratch.sparse("image", 1 << 20)).start();
//! ```

use std::path::{Path, PathBuf};

use crate::binaries;
use crate::daemon::Serve;
use crate::requires::{Missing, program};
use crate::scratch::Scratch;

/// The ground of one test.
#[derive(Debug)]
pub struct Lab {
    /// The test's own directory.
    pub scratch: Scratch,
    blockd: PathBuf,
}

impl Lab {
    /// Insist on `programs` and on the daemon.
    pub fn with(programs: &[&str]) -> Result<Self, Missing> {
        for name in ["setpriv", "timeout"].iter().chain(programs) {
            program(name)?;
        }
        Ok(Self { blockd: binaries::blockd()?, scratch: Scratch::new() })
    }

    /// A daemon for `image`, still to be started; sockets and log are named after `name`.
    pub fn serve(&self, name: &str, image: &Path) -> Serve {
        Serve::image(&self.blockd, &self.scratch, name, image)
    }
}
