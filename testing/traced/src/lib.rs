//! A process that is killed at a system call of one's choice, for tests of what such a death leaves behind.
//!
//! Linux only, by ptrace. Programs that the process starts are not traced; they live on unless they see to it themselves.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::{
    collections::HashMap,
    fmt, io,
    os::unix::process::CommandExt as _,
    process::{Command, Stdio},
    ptr,
};

mod refused;

pub use refused::{Old, act_like};

/// How it ended.
#[derive(Debug, PartialEq, Eq)]
pub enum End {
    /// Killed; a text that says at which stop.
    Killed(String),
    /// There were no more stops.
    Finished,
}

/// Calls that change what files there are or what is in them, or that send something out.
pub const CHANGES: &[i64] = &[
    libc::SYS_write,
    libc::SYS_writev,
    libc::SYS_pwrite64,
    libc::SYS_pwritev,
    libc::SYS_pwritev2,
    libc::SYS_sendto,
    libc::SYS_sendmsg,
    libc::SYS_copy_file_range,
    libc::SYS_sendfile,
    libc::SYS_fallocate,
    libc::SYS_ftruncate,
    libc::SYS_fsync,
    libc::SYS_fdatasync,
    libc::SYS_fchmod,
    libc::SYS_fchmodat,
    libc::SYS_utimensat,
    libc::SYS_linkat,
    libc::SYS_symlinkat,
    libc::SYS_mkdirat,
    libc::SYS_unlinkat,
    libc::SYS_renameat2,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_mkdir,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_rmdir,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_unlink,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_rename,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_chmod,
];

impl fmt::Display for End {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Killed(at) => at,
            Self::Finished => "its end",
        })
    }
}

/// Which calls stop the program.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// Those between [`begin`] and [`end`], of the thread that calls these.
    Marked,
    /// Those of all its threads, from its first to its last.
    Program,
}

/// From here on calls count, in the thread that calls this ([`Scope::Marked`]).
pub fn begin() {
    // A call that nothing else makes.
    rustix::process::getpriority_user(rustix::process::Uid::ROOT).ok();
}

/// They count no more.
pub fn end() {
    begin();
}

/// Where a thread has stopped.
#[derive(Debug, Clone, Copy)]
pub struct Stop {
    /// Counted from 0; even before a call, odd after it.
    pub n: usize,
    /// The system call's number.
    pub call: i64,
    /// Whether it has been carried out, or is about to be.
    pub done: bool,
}

/// Starts a program, whose calls stop it twice, before and after, and kills it at the first stop for which this says so.
///
/// # Panics
/// When this process may not trace another, or the program fails ([`Scope::Marked`] only: else its exit code is its business).
#[expect(clippy::zombie_processes, reason = "it is waited for by its number")]
pub fn kill_when(mut command: Command, scope: Scope, mut when: impl FnMut(Stop) -> bool) -> End {
    #[expect(unsafe_code, reason = "tracing begins between fork and exec")]
    // SAFETY: the closure makes one system call.
    unsafe {
        command.pre_exec(|| match libc::ptrace(libc::PTRACE_TRACEME, 0, 0, 0) {
            -1 => Err(io::Error::last_os_error()),
            _ => Ok(()),
        });
    }
    let child = command.stdout(Stdio::null()).spawn();
    let child = child.unwrap_or_else(|e| {
        panic!(
            "this test has to trace a process of its own with ptrace, which this system does not allow: {e}"
        )
    });
    let pid = i32::try_from(child.id()).unwrap();
    let (thread, status) = wait();
    assert!(thread == pid && libc::WIFSTOPPED(status), "{status:x}");
    let options = libc::PTRACE_O_TRACESYSGOOD | libc::PTRACE_O_TRACECLONE | libc::PTRACE_O_EXITKILL;
    ptrace(libc::PTRACE_SETOPTIONS, pid, 0, usize::try_from(options).unwrap());
    ptrace(libc::PTRACE_SYSCALL, pid, 0, 0);
    let (mut counting, mut stops) = (None, 0);
    let mut entered = HashMap::new();
    loop {
        let (thread, status) = wait();
        if libc::WIFEXITED(status) || libc::WIFSIGNALED(status) {
            if thread == pid {
                assert!(status == 0 || scope == Scope::Program, "the traced program failed: {status:x}");
                return End::Finished;
            }
            continue;
        }
        let mut signal = 0;
        match libc::WSTOPSIG(status) {
            stop if stop == libc::SIGTRAP | 0x80 => {
                let (call, done) = match entering(thread) {
                    Some(call) => {
                        entered.insert(thread, call);
                        (call, false)
                    }
                    None => (entered.get(&thread).copied().unwrap_or_default(), true),
                };
                if scope == Scope::Marked && call == libc::SYS_getpriority {
                    if done {
                        counting = if counting.is_none() { Some(thread) } else { None };
                    }
                } else if scope == Scope::Program || counting == Some(thread) {
                    let stop = Stop { n: stops, call, done };
                    if when(stop) {
                        kill(pid);
                        return End::Killed(format!("{stop:?}"));
                    }
                    stops += 1;
                }
            }
            // The stop after exec, of a new thread, or at its making.
            libc::SIGTRAP | libc::SIGSTOP => {}
            other => signal = usize::try_from(other).unwrap(),
        }
        ptrace(libc::PTRACE_SYSCALL, thread, 0, signal);
    }
}

/// The call that a thread has stopped before; `None` when it has stopped after one.
fn entering(thread: i32) -> Option<i64> {
    #[expect(unsafe_code, reason = "a C structure of numbers")]
    // SAFETY: all its fields are numbers, for which zero is a value.
    let mut info: libc::ptrace_syscall_info = unsafe { std::mem::zeroed() };
    let size = size_of::<libc::ptrace_syscall_info>();
    ptrace(libc::PTRACE_GET_SYSCALL_INFO, thread, size, (&raw mut info).expose_provenance());
    if info.op != libc::PTRACE_SYSCALL_INFO_ENTRY {
        return None;
    }
    #[expect(unsafe_code, reason = "a C union")]
    // SAFETY: `op` says that this member is the one.
    i64::try_from(unsafe { info.u.entry.nr }).ok()
}

fn ptrace(request: libc::c_uint, thread: i32, address: usize, data: usize) {
    #[expect(unsafe_code, reason = "ptrace has no safe form")]
    // SAFETY: the callers pass numbers, or the address of a structure that outlives the call with its size.
    let done = unsafe {
        libc::ptrace(
            request,
            thread,
            ptr::without_provenance_mut::<u8>(address),
            ptr::with_exposed_provenance_mut::<u8>(data),
        )
    };
    // A thread may be gone by the time it is asked about.
    if done == -1 {
        let error = io::Error::last_os_error();
        assert_eq!(error.raw_os_error(), Some(libc::ESRCH), "ptrace: {error}");
    }
}

/// The next change of any traced thread. Waiting for all children of this process alone would take other tests' children.
fn wait() -> (i32, i32) {
    let mut status = 0;
    #[expect(unsafe_code, reason = "waiting for threads (__WALL) has no safe form")]
    // SAFETY: the status outlives the call.
    let thread = unsafe { libc::waitpid(-1, &raw mut status, libc::__WALL | libc::__WNOTHREAD) };
    assert!(thread > 0, "waitpid: {}", io::Error::last_os_error());
    (thread, status)
}

/// Kills it and sees it dead.
fn kill(pid: i32) {
    #[expect(unsafe_code, reason = "the process id is a plain number here")]
    // SAFETY: a child that has not been waited for, so the number is still its.
    unsafe {
        libc::kill(pid, libc::SIGKILL);
    }
    loop {
        let (thread, status) = wait();
        if thread == pid && (libc::WIFSIGNALED(status) || libc::WIFEXITED(status)) {
            return;
        }
    }
}
