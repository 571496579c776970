//! A seccomp filter that refuses system calls if no build or test needs them, or if they could
//! bypass the other mechanisms.
//!
//! It lists refused calls rather than allowed ones, because a future compiler may use a new call.
//! The known ways around a list like this are closed explicitly: `io_uring`, x32 call numbers, and
//! other architectures' calls, which kill the process (SIGSYS).

use std::{collections::BTreeMap, io};

use libc::c_long;
use seccompiler::{
    SeccompAction, SeccompCmpArgLen::Dword, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule,
    TargetArch, apply_filter, sock_filter,
};

/// The kinds of calls that the filter does not need to refuse, because the network setting allows
/// them or another mechanism already contains them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Mechanisms {
    /// Whether IPv4 and IPv6 sockets are allowed.
    pub(crate) internet: bool,
    /// Whether Unix sockets that can connect to a path are allowed. Connected pairs of sockets,
    /// except datagram sockets, are always allowed.
    pub(crate) unix: bool,
    /// Whether namespaces hide processes outside the sandbox, along with their System V shared
    /// memory, semaphores and message queues.
    pub(crate) namespaces: bool,
}

/// Calls that are refused with "Operation not permitted", regardless of their arguments.
const REFUSED: &[c_long] = &[
    // other processes
    libc::SYS_ptrace,
    libc::SYS_process_vm_readv,
    libc::SYS_process_vm_writev,
    libc::SYS_process_madvise,
    libc::SYS_pidfd_getfd,
    libc::SYS_kcmp,
    // mounts and namespaces
    libc::SYS_mount,
    libc::SYS_umount2,
    libc::SYS_pivot_root,
    libc::SYS_chroot,
    libc::SYS_mount_setattr,
    libc::SYS_move_mount,
    libc::SYS_open_tree,
    OPEN_TREE_ATTR,
    libc::SYS_fsopen,
    libc::SYS_fsconfig,
    libc::SYS_fsmount,
    libc::SYS_fspick,
    libc::SYS_setns,
    libc::SYS_open_by_handle_at,
    libc::SYS_quotactl,
    libc::SYS_quotactl_fd,
    libc::SYS_swapon,
    libc::SYS_swapoff,
    libc::SYS_fanotify_init,
    // keys
    libc::SYS_keyctl,
    libc::SYS_add_key,
    libc::SYS_request_key,
    // the kernel itself
    libc::SYS_bpf,
    libc::SYS_perf_event_open,
    libc::SYS_userfaultfd,
    libc::SYS_kexec_load,
    #[cfg(not(target_arch = "riscv64"))]
    libc::SYS_kexec_file_load,
    libc::SYS_init_module,
    libc::SYS_finit_module,
    libc::SYS_delete_module,
    libc::SYS_syslog,
    libc::SYS_acct,
    libc::SYS_reboot,
    libc::SYS_settimeofday,
    libc::SYS_clock_settime,
    libc::SYS_sethostname,
    libc::SYS_setdomainname,
    libc::SYS_vhangup,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_iopl,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_ioperm,
];

/// The number of `open_tree_attr` on all architectures. The `libc` crate does not define it yet.
const OPEN_TREE_ATTR: c_long = 467;

/// Calls that are refused with "Function not implemented", so that programs fall back to calls that
/// the filter can check.
const ABSENT: &[c_long] = &[
    libc::SYS_clone3,
    libc::SYS_openat2,
    libc::SYS_io_uring_setup,
    libc::SYS_io_uring_enter,
    libc::SYS_io_uring_register,
];

/// Flags that create namespaces. A process that creates its own user namespace has root's
/// capabilities in it.
const NAMESPACES: &[libc::c_int] = &[
    libc::CLONE_NEWUSER,
    libc::CLONE_NEWNS,
    libc::CLONE_NEWNET,
    libc::CLONE_NEWPID,
    libc::CLONE_NEWIPC,
    libc::CLONE_NEWUTS,
    libc::CLONE_NEWCGROUP,
];

/// Calls for shared memory, semaphores and message queues, which can reach other processes of the
/// same user. Namespaces prevent this.
const SHARED: &[c_long] = &[
    libc::SYS_shmget,
    libc::SYS_shmat,
    libc::SYS_shmctl,
    libc::SYS_msgget,
    libc::SYS_msgsnd,
    libc::SYS_msgrcv,
    libc::SYS_msgctl,
    libc::SYS_semget,
    libc::SYS_semop,
    libc::SYS_semtimedop,
    libc::SYS_semctl,
    libc::SYS_mq_open,
    libc::SYS_mq_unlink,
];

/// Calls that set a file's mode, each with the index of the mode argument. `openat2` takes the mode
/// in a structure, which a filter cannot read, so it is in [`ABSENT`].
const FILE_MODES: &[(c_long, u8)] = &[
    #[cfg(target_arch = "x86_64")]
    (libc::SYS_chmod, 1),
    #[cfg(target_arch = "x86_64")]
    (libc::SYS_open, 2),
    #[cfg(target_arch = "x86_64")]
    (libc::SYS_creat, 1),
    #[cfg(target_arch = "x86_64")]
    (libc::SYS_mknod, 1),
    (libc::SYS_fchmod, 1),
    (libc::SYS_fchmodat, 2),
    (FCHMODAT2, 2),
    (libc::SYS_openat, 3),
    (libc::SYS_mknodat, 2),
];

/// The number of `fchmodat2` on all architectures. The `libc` crate does not define it for arm64
/// and riscv64 yet.
const FCHMODAT2: c_long = 452;

/// The mode bit that makes a program run as the owner of its file.
const SET_USER_ID: u64 = 0o4000;

/// The `ioctl` requests that type or paste text into a terminal.
const TERMINAL_REQUESTS: &[u64] = &[0x5412, 0x541c]; // TIOCSTI, TIOCLINUX

/// Refused calls and the conditions under which they are refused.
type Rules = BTreeMap<c_long, Vec<SeccompRule>>;

/// Installs the filter in this process permanently. Also sets `no_new_privs`.
///
/// # Errors
/// Fails if the kernel does not support seccomp filters.
pub(crate) fn refuse(mechanisms: Mechanisms) -> io::Result<()> {
    let problem = |e: &dyn std::fmt::Display| io::Error::other(format!("seccomp: {e}"));
    let all = rules(mechanisms).map_err(|e| problem(&e))?;
    for (errno, rules) in all.into_iter().filter(|(_, rules)| !rules.is_empty()) {
        let refuse = SeccompAction::Errno(errno.unsigned_abs());
        let arch = TargetArch::try_from(std::env::consts::ARCH).map_err(|e| problem(&e))?;
        let filter = SeccompFilter::new(rules, SeccompAction::Allow, refuse, arch);
        let program: Vec<sock_filter> =
            filter.and_then(TryInto::try_into).map_err(|e: seccompiler::BackendError| problem(&e))?;
        let program = [&refuse_x32()[..], &program].concat();
        apply_filter(&program).map_err(|e| problem(&e))?;
    }
    Ok(())
}

/// Returns the rules for each error code. Each code needs its own filter, because a filter can
/// return only one code.
fn rules(mechanisms: Mechanisms) -> Result<[(libc::c_int, Rules); 4], seccompiler::BackendError> {
    use SeccompCmpOp::{Eq, MaskedEq, Ne};
    let always = |calls: &[c_long]| calls.iter().map(|call| (*call, Vec::new())).collect::<Rules>();
    let when = |argument, op, value: u64| SeccompCondition::new(argument, Dword, op, value);
    let family = |number: libc::c_int| u64::from(number.unsigned_abs());

    let mut not_permitted = always(REFUSED);
    for (call, argument) in [(libc::SYS_unshare, 0), (libc::SYS_clone, 0)] {
        let flags = NAMESPACES.iter().map(|flag| u64::from(flag.unsigned_abs()));
        let rules = flags.map(|flag| SeccompRule::new(vec![when(argument, MaskedEq(flag), flag)?]));
        not_permitted.insert(call, rules.collect::<Result<_, _>>()?);
    }
    let requests = TERMINAL_REQUESTS.iter().map(|request| SeccompRule::new(vec![when(1, Eq, *request)?]));
    not_permitted.insert(libc::SYS_ioctl, requests.collect::<Result<_, _>>()?);

    // Refuse calls that make a program set-user-ID, because any other user could then run it with
    // the privileges of the agent's user.
    for (call, mode) in FILE_MODES {
        let rule = SeccompRule::new(vec![when(*mode, MaskedEq(SET_USER_ID), SET_USER_ID)?])?;
        not_permitted.insert(*call, vec![rule]);
    }

    // Refuse all families that are not `known`, such as packet sockets, VSOCK, Bluetooth and kernel
    // cryptography.
    let known = [libc::AF_UNIX, libc::AF_INET, libc::AF_INET6, libc::AF_NETLINK];
    let other = known.iter().map(|f| when(0, Ne, family(*f))).collect::<Result<Vec<_>, _>>()?;
    // Of the netlink protocols, allow only NETLINK_ROUTE (0), which lists addresses. The other
    // protocols are for firewalls and auditing.
    let netlink = vec![when(0, Eq, family(libc::AF_NETLINK))?, when(2, Ne, 0)?];
    let other = vec![SeccompRule::new(other)?, SeccompRule::new(netlink)?];
    let no_such_family = Rules::from([(libc::SYS_socket, other.clone()), (libc::SYS_socketpair, other)]);

    let mut denied = Rules::new();
    let mut families = Vec::new();
    if !mechanisms.internet {
        families.extend([libc::AF_INET, libc::AF_INET6]);
    }
    if !mechanisms.unix {
        families.push(libc::AF_UNIX);
        // A datagram socket in a pair can still send to any address.
        let datagrams = vec![when(1, MaskedEq(0xf), family(libc::SOCK_DGRAM))?];
        denied.insert(libc::SYS_socketpair, vec![SeccompRule::new(datagrams)?]);
    }
    if !mechanisms.namespaces {
        denied.extend(always(SHARED));
        // Deny `prlimit` for other processes. A process ID of 0 means the calling process.
        let of_others = vec![when(0, Ne, 0)?];
        denied.insert(libc::SYS_prlimit64, vec![SeccompRule::new(of_others)?]);
    }
    if !families.is_empty() {
        let rules = families.iter().map(|f| SeccompRule::new(vec![when(0, Eq, family(*f))?]));
        denied.insert(libc::SYS_socket, rules.collect::<Result<_, _>>()?);
    }
    Ok([
        (libc::EPERM, not_permitted),
        (libc::ENOSYS, always(ABSENT)),
        (libc::EAFNOSUPPORT, no_such_family),
        (libc::EACCES, denied),
    ])
}

/// Returns instructions that run before a filter and reject x32 calls, which the filter would not
/// recognize.
fn refuse_x32() -> Vec<sock_filter> {
    const X32: u32 = 0x4000_0000;
    const LOAD_NUMBER: u16 = 0x20; // BPF_LD | BPF_W | BPF_ABS, at offset 0 of seccomp_data
    const JUMP_IF_AT_LEAST: u16 = 0x35; // BPF_JMP | BPF_JGE | BPF_K
    const RETURN: u16 = 0x06; // BPF_RET | BPF_K
    const ERROR: u32 = 0x0005_0000; // SECCOMP_RET_ERRNO
    if !cfg!(target_arch = "x86_64") {
        return Vec::new();
    }
    vec![
        sock_filter { code: LOAD_NUMBER, jt: 0, jf: 0, k: 0 },
        sock_filter { code: JUMP_IF_AT_LEAST, jt: 0, jf: 1, k: X32 },
        sock_filter { code: RETURN, jt: 0, jf: 0, k: ERROR | libc::ENOSYS.unsigned_abs() },
    ]
}
