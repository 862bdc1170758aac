//! What somebody does to a guest's QEMU behind the back of its daemon: on a second monitor, or to the connection of the first.

use std::fs;

use super::Hosts;
use crate::program::Tool;
use crate::qmp::Qmp;
use crate::wan::End;

/// A QEMU with a second monitor; those that are only asked what they can do have none.
const TALKATIVE_QEMU: &str = "#!/bin/sh\ncase \"$*\" in\n*id=monitor*) exec qemu-system-x86_64 \"$@\" \
     -qmp unix:/site/operator,server=on,wait=off;;\nesac\nexec qemu-system-x86_64 \"$@\"\n";

/// Shuts the connection that a process has under a number: both of its ends see the end of the stream.
const SHUT: &str = "import ctypes, os, socket, sys\npid, number = int(sys.argv[1]), int(sys.argv[2])\n\
     got = ctypes.CDLL(None, use_errno=True).syscall(438, os.pidfd_open(pid), number, 0)\n\
     if got < 0: sys.exit(os.strerror(ctypes.get_errno()))\n\
     socket.socket(fileno=got).shutdown(socket.SHUT_RDWR)\n";

/// Where [`Hosts::place_talkative_qemu`] puts it, as a site sees it.
pub const TALKATIVE: &str = "/site/qemu";

impl Hosts {
    /// Put a QEMU with a second monitor where a host's configuration names it (`Settings`).
    pub fn place_talkative_qemu(&self, end: End) {
        self.site(end).place_program("qemu", TALKATIVE_QEMU);
    }

    /// The second monitor of the guest's QEMU at a host.
    pub fn operator(&self, end: End) -> Qmp {
        Qmp::connect(&self.site(end).join("operator"))
    }

    /// Break the daemon's connection to the monitor of a guest's QEMU; both live.
    #[track_caller]
    pub fn break_monitor(&mut self, end: End, guest: &str) {
        let listed = self.site(end).tool("ss").args(["-xnH"]).run();
        let place = format!("/run/migrated/{guest}/monitor");
        // Type, state, two queues, its own name and number, and those of the other end.
        let of_qemu = listed.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
        let far = of_qemu
            .filter(|words| words.get(1) == Some(&"ESTAB") && words.get(4) == Some(&place.as_str()))
            .find_map(|words| words.get(7).map(|number| format!("socket:[{number}]")));
        let far = far.unwrap_or_else(|| panic!("nobody is connected to {place}:\n{listed}"));
        let daemon = self.daemon(end).pid();
        let opened = fs::read_dir(format!("/proc/{daemon}/fd")).expect("list a daemon's files").flatten();
        let number = opened
            .filter(|entry| fs::read_link(entry.path()).is_ok_and(|link| link.as_os_str() == far.as_str()))
            .find_map(|entry| entry.file_name().into_string().ok())
            .unwrap_or_else(|| panic!("{far} is not the daemon's"));
        Tool::new("python3").args(["-c", SHUT, &daemon.to_string(), &number]).run();
    }
}
