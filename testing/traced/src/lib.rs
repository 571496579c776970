//! Kills a process at a chosen system call, to test what a crash at that point leaves behind.
//!
//! Linux only, since it uses ptrace. Child processes of the program are not traced. They outlive
//! the program unless they exit on their own.

#![allow(clippy::unwrap_used, reason = "a failing test may panic")]

use std::{
    collections::HashMap,
    fmt, io,
    os::unix::process::CommandExt as _,
    process::{Command, Stdio},
    ptr,
};

mod refused;

pub use refused::{Old, act_like};

/// How the process ended.
#[derive(Debug, PartialEq, Eq)]
pub enum End {
    /// It was killed. The text describes the stop.
    Killed(String),
    /// It ended before the chosen stop.
    Finished,
}

/// System calls that change files or directories, or send data.
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
            Self::Finished => "the end of the program",
        })
    }
}

/// Which system calls stop the program.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// Calls between [`begin`] and [`end`], in the thread that calls these functions.
    Marked,
    /// Calls in all of the program's threads, from start to end.
    Program,
}

/// Starts counting calls in this thread ([`Scope::Marked`]).
pub fn begin() {
    // The tracer recognizes this system call as the marker, because no other code makes it.
    rustix::process::getpriority_user(rustix::process::Uid::ROOT).ok();
}

/// Stops counting calls.
pub fn end() {
    begin();
}

/// A point where a thread is stopped, before or after a system call.
#[derive(Debug, Clone, Copy)]
pub struct Stop {
    /// The 0-based number of the stop. With [`Scope::Marked`], the number is even before a call and
    /// odd after a call.
    pub n: usize,
    /// The number of the system call.
    pub call: i64,
    /// Whether the call has finished. If not, the call is about to start.
    pub done: bool,
}

/// Starts a program and stops it before and after each call in scope. Kills it at the first stop
/// for which `when` returns true.
///
/// # Panics
/// Panics if tracing is not permitted or, with [`Scope::Marked`], if the program fails.
#[expect(clippy::zombie_processes, reason = "the loop and `kill` wait until the process has ended")]
pub fn kill_when(mut command: Command, scope: Scope, mut when: impl FnMut(Stop) -> bool) -> End {
    #[expect(unsafe_code, reason = "tracing begins between fork and exec")]
    // SAFETY: the closure makes only one system call.
    unsafe {
        command.pre_exec(|| match libc::ptrace(libc::PTRACE_TRACEME, 0, 0, 0) {
            -1 => Err(io::Error::last_os_error()),
            _ => Ok(()),
        });
    }
    let child = command.stdout(Stdio::null()).spawn();
    let child =
        child.unwrap_or_else(|e| panic!("this test needs ptrace, which this system does not permit: {e}"));
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
            // The stop after exec, or the first stop of a new thread.
            libc::SIGTRAP | libc::SIGSTOP => {}
            other => signal = usize::try_from(other).unwrap(),
        }
        ptrace(libc::PTRACE_SYSCALL, thread, 0, signal);
    }
}

/// Returns the call that a thread is about to make, or `None` if it stopped after a call.
fn entering(thread: i32) -> Option<i64> {
    #[expect(unsafe_code, reason = "a C struct of integers")]
    // SAFETY: all fields are integers, for which zero is valid.
    let mut info: libc::ptrace_syscall_info = unsafe { std::mem::zeroed() };
    let size = size_of::<libc::ptrace_syscall_info>();
    ptrace(libc::PTRACE_GET_SYSCALL_INFO, thread, size, (&raw mut info).expose_provenance());
    if info.op != libc::PTRACE_SYSCALL_INFO_ENTRY {
        return None;
    }
    #[expect(unsafe_code, reason = "a C union")]
    // SAFETY: `op` was checked, so this is the active member.
    i64::try_from(unsafe { info.u.entry.nr }).ok()
}

fn ptrace(request: libc::c_uint, thread: i32, address: usize, data: usize) {
    #[expect(unsafe_code, reason = "ptrace has no safe wrapper")]
    // SAFETY: callers pass integers, or the address and size of a struct that outlives the call.
    let done = unsafe {
        libc::ptrace(
            request,
            thread,
            ptr::without_provenance_mut::<u8>(address),
            ptr::with_exposed_provenance_mut::<u8>(data),
        )
    };
    // The thread may have exited in the meantime.
    if done == -1 {
        let error = io::Error::last_os_error();
        assert_eq!(error.raw_os_error(), Some(libc::ESRCH), "ptrace: {error}");
    }
}

/// Waits for the next state change of a traced thread. Waits only for children of this thread, so
/// that the children of other tests are not reaped.
fn wait() -> (i32, i32) {
    let mut status = 0;
    #[expect(unsafe_code, reason = "waiting for threads (__WALL) has no safe wrapper")]
    // SAFETY: the status outlives the call.
    let thread = unsafe { libc::waitpid(-1, &raw mut status, libc::__WALL | libc::__WNOTHREAD) };
    assert!(thread > 0, "waitpid: {}", io::Error::last_os_error());
    (thread, status)
}

/// Kills the process and waits until it is dead.
fn kill(pid: i32) {
    #[expect(unsafe_code, reason = "kill takes a plain process id")]
    // SAFETY: the child has not been waited for, so its process id has not been reused.
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
