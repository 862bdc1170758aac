//! Whether anybody has a file open for writing: the kernel gives a read lease (fcntl(2), `F_SETLEASE`) only where nobody has,
//! be it a process, a container's, or a loop device. Which of them it is it does not say.

use std::fs::File;
use std::os::fd::AsRawFd;
use std::path::Path;

use nix::errno::Errno;
use nix::sys::signal::{SigSet, Signal};
use nix::sys::statfs::{FsType, NFS_SUPER_MAGIC, SMB_SUPER_MAGIC, fstatfs};

/// The same as for SMB, of the versions that are in use (linux/magic.h).
const SMB2_MAGIC: FsType = FsType(0xfe53_4d42);
const CIFS_MAGIC: FsType = FsType(0xff53_4d42);

/// What the kernel says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Written {
    /// Nobody has it open for writing.
    ByNobody,
    /// Somebody has.
    BySomebody,
    /// It gives no leases for this: a device, a file of somebody else, a file system without them.
    Unknown,
}

/// Asks about the file at `path`, which this process must not have open for writing itself.
pub fn written(path: &Path) -> Written {
    let Ok(file) = File::open(path) else { return Written::Unknown };
    // These give a lease only to whom the server has given one, and say the same as if somebody wrote.
    let by_server = [NFS_SUPER_MAGIC, SMB_SUPER_MAGIC, SMB2_MAGIC, CIFS_MAGIC];
    if fstatfs(&file).map_or(true, |found| by_server.contains(&found.filesystem_type())) {
        return Written::Unknown;
    }
    // Whoever opens it in the moment of the lease makes the kernel send this, which would end the process. Blocked for
    // good: it may stay pending, for nothing waits for it.
    let mut signals = SigSet::empty();
    signals.add(Signal::SIGIO);
    if signals.thread_block().is_err() {
        return Written::Unknown;
    }
    match set_lease(&file, libc::F_RDLCK) {
        Ok(()) => {
            // It would end with the descriptor, which the next line closes.
            let _ = set_lease(&file, libc::F_UNLCK);
            Written::ByNobody
        }
        Err(Errno::EAGAIN) => Written::BySomebody,
        Err(_) => Written::Unknown,
    }
}

fn set_lease(file: &File, kind: libc::c_int) -> Result<(), Errno> {
    // SAFETY: the call takes a descriptor that lives across it, and a number.
    let result = unsafe { libc::fcntl(file.as_raw_fd(), libc::F_SETLEASE, kind) };
    Errno::result(result).map(drop)
}
