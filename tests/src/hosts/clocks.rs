//! Wall clocks that are set while the daemons run. The kernel has one for all; `libfaketime` gives a daemon its own, and
//! leaves it the monotonic clock. What a daemon starts has the kernel's: a guest's clock is another matter, and blockd has
//! given up the right to read a file of offsets.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use super::Hosts;
use crate::requires::Missing;
use crate::site::Site;
use crate::wan::End;

/// The library of Debian's package.
const LIBRARY: &str = "/usr/lib/x86_64-linux-gnu/faketime/libfaketimeMT.so.1";

/// The file of a site in which the clock's offset stands.
const FILE: &str = "clock";

/// What a daemon is started with.
pub fn environment() -> Result<Vec<String>, Missing> {
    if !Path::new(LIBRARY).exists() {
        return Err(Missing::Installable("libfaketime is not installed; run `make setup`".to_owned()));
    }
    let words = [
        &format!("LD_PRELOAD={LIBRARY}"),
        &format!("FAKETIME_TIMESTAMP_FILE=/site/{FILE}"),
        "FAKETIME_NO_CACHE=1",
        "FAKETIME_DONT_FAKE_MONOTONIC=1",
    ];
    Ok(words.map(str::to_owned).to_vec())
}

/// Make a program of a site that becomes `program` without that library; where the site sees it.
pub fn without_library(site: &Site, program: &Path) -> PathBuf {
    let name = program.file_name().expect("a program has a name");
    let script = format!("#!/bin/sh\nunset LD_PRELOAD\nexec {} \"$@\"\n", program.display());
    fs::write(site.join(name), script).expect("write a program");
    fs::set_permissions(site.join(name), fs::Permissions::from_mode(0o755)).expect("make it one");
    site.inside(name)
}

impl Hosts {
    /// Set the wall clock of a host's daemon: so many hours from the real time.
    pub fn step_clock(&self, end: End, hours: i64) {
        let (file, next) = (self.site(end).join(FILE), self.site(end).join("clock.next"));
        fs::write(&next, format!("{hours:+}h\n")).expect("write a clock's offset");
        // As a whole: it is read all the time.
        fs::rename(next, file).expect("set a clock");
    }
}
