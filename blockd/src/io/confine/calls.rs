//! The system calls that serving a disk takes, and what comes of any other.
//!
//! ```text
//! a call ──► in ALLOWED, arguments fit ──► done
//!       ├──► in DEADLY ──────────────────► the process is killed: no error of ours leads there
//!       └──► any other ──────────────────► ENOSYS, as from a kernel that does not have it
//! ```
//!
//! The list was measured (strace over all tests, both data planes) and completed with the calls that other versions
//! of the C library make for the same things. Why not all others kill: `docs/decisions/confined-blockd.md`.

use std::collections::BTreeMap;

use seccompiler::{
    BackendError, BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
    SeccompRule, TargetArch,
};

/// Calls that are allowed whatever their arguments.
const ALLOWED: &[i64] = &[
    // the disk
    libc::SYS_pread64,
    libc::SYS_pwrite64,
    libc::SYS_preadv,
    libc::SYS_pwritev,
    libc::SYS_preadv2,
    libc::SYS_pwritev2,
    libc::SYS_lseek,
    libc::SYS_fallocate,
    libc::SYS_ftruncate,
    libc::SYS_fdatasync,
    libc::SYS_fsync,
    libc::SYS_msync,
    libc::SYS_fadvise64,
    libc::SYS_statx,
    libc::SYS_newfstatat,
    libc::SYS_fstat,
    // the ring that was made before
    libc::SYS_io_uring_enter,
    libc::SYS_io_uring_register,
    // sockets and descriptors
    libc::SYS_read,
    libc::SYS_write,
    libc::SYS_readv,
    libc::SYS_writev,
    libc::SYS_sendto,
    libc::SYS_sendmsg,
    libc::SYS_recvfrom,
    libc::SYS_recvmsg,
    libc::SYS_accept,
    libc::SYS_accept4,
    libc::SYS_connect,
    libc::SYS_shutdown,
    libc::SYS_getsockopt,
    libc::SYS_setsockopt,
    libc::SYS_getsockname,
    libc::SYS_getpeername,
    libc::SYS_ppoll,
    libc::SYS_close,
    libc::SYS_fcntl,
    libc::SYS_dup,
    libc::SYS_eventfd2,
    // memory
    libc::SYS_munmap,
    libc::SYS_mremap,
    libc::SYS_madvise,
    libc::SYS_brk,
    // threads and signals
    libc::SYS_futex,
    libc::SYS_set_robust_list,
    libc::SYS_rseq,
    libc::SYS_gettid,
    libc::SYS_getpid,
    libc::SYS_geteuid,
    libc::SYS_sched_getaffinity,
    libc::SYS_sched_yield,
    libc::SYS_rt_sigaction,
    libc::SYS_rt_sigprocmask,
    libc::SYS_rt_sigreturn,
    libc::SYS_rt_sigtimedwait,
    libc::SYS_sigaltstack,
    libc::SYS_restart_syscall,
    libc::SYS_exit,
    libc::SYS_exit_group,
    // time and chance
    libc::SYS_clock_gettime,
    libc::SYS_clock_getres,
    libc::SYS_clock_nanosleep,
    libc::SYS_nanosleep,
    libc::SYS_gettimeofday,
    libc::SYS_getrandom,
];

/// Calls that newer processors' kernels do not have any more.
#[cfg(target_arch = "x86_64")]
const OLDER: &[i64] = &[libc::SYS_poll];
#[cfg(not(target_arch = "x86_64"))]
const OLDER: &[i64] = &[];

/// How a file's name is removed.
#[cfg(target_arch = "x86_64")]
const REMOVING: &[i64] = &[libc::SYS_unlink, libc::SYS_unlinkat];
#[cfg(not(target_arch = "x86_64"))]
const REMOVING: &[i64] = &[libc::SYS_unlinkat];

/// Calls that no error of ours and no library leads to, only somebody who has taken the process over.
const DEADLY: &[i64] = &[
    libc::SYS_execve,
    libc::SYS_execveat,
    libc::SYS_ptrace,
    libc::SYS_process_vm_readv,
    libc::SYS_process_vm_writev,
    libc::SYS_pidfd_getfd,
    libc::SYS_mount,
    libc::SYS_umount2,
    libc::SYS_pivot_root,
    libc::SYS_chroot,
    libc::SYS_setns,
    libc::SYS_unshare,
    libc::SYS_bpf,
    libc::SYS_init_module,
    libc::SYS_finit_module,
    libc::SYS_delete_module,
    libc::SYS_kexec_load,
    libc::SYS_reboot,
    libc::SYS_swapon,
    libc::SYS_open_by_handle_at,
    libc::SYS_userfaultfd,
    libc::SYS_perf_event_open,
    libc::SYS_keyctl,
    libc::SYS_add_key,
    libc::SYS_request_key,
    libc::SYS_setuid,
    libc::SYS_setresuid,
    libc::SYS_capset,
];

/// `prctl(PR_SET_VMA)`: newer C libraries name their memory.
const PR_SET_VMA: u64 = 0x5356_4d41;

/// The filters, to be applied in this order.
pub fn filters(removes_sockets: bool) -> Result<[BpfProgram; 2], BackendError> {
    let arch: TargetArch = std::env::consts::ARCH.try_into()?;
    let mut allowed: BTreeMap<i64, Vec<SeccompRule>> =
        ALLOWED.iter().chain(OLDER).map(|call| (*call, Vec::new())).collect();
    if removes_sockets {
        allowed.extend(REMOVING.iter().map(|call| (*call, Vec::new())));
    }
    allowed.extend(by_argument()?);
    let deadly = DEADLY.iter().map(|call| (*call, Vec::new())).collect();
    let unknown = SeccompAction::Errno(libc::ENOSYS as u32);
    Ok([
        // First, for the second one does not let a filter be added any more. The stricter answer of the two counts.
        SeccompFilter::new(deadly, SeccompAction::Allow, SeccompAction::KillProcess, arch)?.try_into()?,
        SeccompFilter::new(allowed, unknown, SeccompAction::Allow, arch)?.try_into()?,
    ])
}

/// Calls of which only some uses are allowed. Of `clone3` none is, whose argument no filter can see: the C library
/// then takes `clone`.
fn by_argument() -> Result<Vec<(i64, Vec<SeccompRule>)>, BackendError> {
    let executable = libc::PROT_EXEC as u64;
    let thread = libc::CLONE_THREAD as u64;
    Ok(vec![
        (libc::SYS_mmap, vec![when(2, SeccompCmpOp::MaskedEq(executable), 0)?]),
        (libc::SYS_mprotect, vec![when(2, SeccompCmpOp::MaskedEq(executable), 0)?]),
        (libc::SYS_clone, vec![when(0, SeccompCmpOp::MaskedEq(thread), thread)?]),
        (libc::SYS_socket, vec![when(0, SeccompCmpOp::Eq, libc::AF_UNIX as u64)?]),
        // abort(3) and raise(3).
        (libc::SYS_tgkill, vec![when(0, SeccompCmpOp::Eq, std::process::id().into())?]),
        (libc::SYS_ioctl, vec![when(1, SeccompCmpOp::Eq, libc::FIONBIO)?]),
        (
            libc::SYS_prctl,
            vec![
                when(0, SeccompCmpOp::Eq, libc::PR_SET_NAME as u64)?,
                when(0, SeccompCmpOp::Eq, PR_SET_VMA)?,
            ],
        ),
    ])
}

fn when(argument: u8, is: SeccompCmpOp, value: u64) -> Result<SeccompRule, BackendError> {
    SeccompRule::new(vec![SeccompCondition::new(argument, SeccompCmpArgLen::Dword, is, value)?])
}

#[cfg(test)]
mod tests {
    use seccompiler::sock_filter;

    use super::filters;

    /// What a filter answers to a call, as the kernel would reckon it: of the instructions, those that filters are made of.
    fn answer(filter: &[sock_filter], call: i64, arguments: [u64; 2]) -> u32 {
        let arch = if cfg!(target_arch = "x86_64") { 0xc000_003eu32 } else { 0xc000_00b7 };
        let mut data = [(call as u32).to_ne_bytes(), arch.to_ne_bytes(), [0; 4], [0; 4]].concat();
        data.extend(arguments.iter().flat_map(|argument| argument.to_ne_bytes()));
        data.resize(64, 0);
        let (mut at, mut word) = (0, 0u32);
        loop {
            let one = &filter[at];
            let jump = |holds: bool| usize::from(if holds { one.jt } else { one.jf });
            at += 1 + match one.code {
                0x20 => {
                    let from = one.k as usize;
                    word = u32::from_ne_bytes(data[from..from + 4].try_into().unwrap());
                    0
                }
                0x54 => {
                    word &= one.k;
                    0
                }
                0x05 => one.k as usize,
                0x15 => jump(word == one.k),
                0x25 => jump(word > one.k),
                0x35 => jump(word >= one.k),
                0x06 => return one.k,
                other => panic!("an instruction that no filter had so far: {other:#x}"),
            };
        }
    }

    #[test]
    fn a_signal_goes_to_the_own_process_only() {
        const ALLOW: u32 = 0x7fff_0000;
        let [_, allowed] = filters(false).unwrap();
        let own = u64::from(std::process::id());
        assert_eq!(answer(&allowed, libc::SYS_tgkill, [own, own]), ALLOW);
        assert_eq!(answer(&allowed, libc::SYS_read, [0, 0]), ALLOW);
        for other in [1, own + 1, own - 1] {
            assert_ne!(answer(&allowed, libc::SYS_tgkill, [other, other]), ALLOW, "{other}");
        }
        for call in [libc::SYS_kill, libc::SYS_tkill] {
            assert_ne!(answer(&allowed, call, [own, own]), ALLOW, "{call}");
        }
    }
}
