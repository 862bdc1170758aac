//! Wall clocks that are set while the daemons run. The kernel has one for all: a daemon with a clock of its own is started
//! with a library before the system's, and so are the daemons of its disks. Not so QEMU, which hands moments of the wall
//! clock to the kernel: the kernel would wait for a moment of its own clock.

use std::fs::File;
use std::os::unix::fs::FileExt;

use super::Hosts;
use crate::program::Tool;
use crate::site::Site;
use crate::wan::End;

/// The library's source; what it reads, and how it is loaded, is said there.
const SOURCE: &str = include_str!("wall_clock.c");

/// The library and the clock in a site's folder.
const LIBRARY: &str = "wall_clock.so";
const CLOCK: &str = "wall_clock";

/// QEMU with the kernel's clock, in a site's folder.
pub const QEMU: &str = "qemu";

const HOUR_S: i64 = 3600;

/// A clock of a site's own, still the kernel's.
pub fn place(site: &Site) {
    let library = site.join(LIBRARY).display().to_string();
    Tool::new("cc").args(["-shared", "-fPIC", "-O2", "-o", &library, "-x", "c", "-"]).input(SOURCE).run();
    site.place_program(QEMU, "#!/bin/sh\nunset LD_PRELOAD\nexec qemu-system-x86_64 \"$@\"\n");
    set(site, 0);
}

/// What a program is started with to have it.
pub fn environment(site: &Site) -> [String; 2] {
    [("LD_PRELOAD", LIBRARY), ("WALL_CLOCK", CLOCK)]
        .map(|(name, file)| format!("{name}={}", site.inside(file).display()))
}

/// In place and as a whole: everyone has the file mapped.
fn set(site: &Site, ahead_s: i64) {
    let clock = File::options().write(true).create(true).truncate(false).open(site.join(CLOCK));
    clock.expect("open a clock").write_all_at(&ahead_s.to_ne_bytes(), 0).expect("set a clock");
}

impl Hosts {
    /// Set the wall clock of a host: so many hours from the real time.
    pub fn step_clock(&self, end: End, hours: i64) {
        set(self.site(end), hours * HOUR_S);
    }
}
