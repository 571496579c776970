//! Wrappers for system calls that have no safe wrapper in another crate. All `unsafe` code in this
//! crate is here.

use std::{ffi::CStr, io, os::fd::AsRawFd, os::fd::BorrowedFd};

use rustix::{process::Pid, thread::UnshareFlags};

/// The two sides of a fork.
pub(crate) enum Fork {
    /// The calling process, with its new child.
    Parent(Pid),
    /// The new process.
    Child,
}

/// Calls `fork(2)`. Only for the launcher, which is single-threaded.
#[expect(unsafe_code, reason = "fork has no safe wrapper")]
pub(crate) fn fork() -> io::Result<Fork> {
    // SAFETY: the launcher has one thread, so the child inherits no lock held by another thread.
    match unsafe { libc::fork() } {
        -1 => Err(io::Error::last_os_error()),
        0 => Ok(Fork::Child),
        pid => Ok(Pid::from_raw(pid).map_or(Fork::Child, Fork::Parent)),
    }
}

/// Calls `unshare(2)`, for namespaces only.
#[expect(
    unsafe_code,
    reason = "unshare is unsafe because of the descriptor table, which is not touched here"
)]
pub(crate) fn unshare(namespaces: UnshareFlags) -> io::Result<()> {
    // SAFETY: `FILES` is never among the flags, so all threads keep sharing the same descriptors.
    unsafe { rustix::thread::unshare_unsafe(namespaces.difference(UnshareFlags::FILES)) }.map_err(Into::into)
}

/// Marks every descriptor from 3 up as close-on-exec, no matter who opened it.
#[expect(unsafe_code, reason = "close_range has no safe wrapper")]
pub(crate) fn close_descriptors_on_exec() -> io::Result<()> {
    // Call it by number, because musl has no function for it.
    // SAFETY: with this flag, nothing is closed immediately; descriptors owned by Rust values stay
    // valid until exec replaces the program.
    let done =
        unsafe { libc::syscall(libc::SYS_close_range, 3, libc::c_uint::MAX, libc::CLOSE_RANGE_CLOEXEC) };
    if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Ignores SIGTERM in this process.
#[expect(unsafe_code, reason = "signal has no safe wrapper")]
pub(crate) fn ignore_sigterm() {
    // SAFETY: SIG_IGN installs no handler, so none of our code ever runs in signal context.
    unsafe { libc::signal(libc::SIGTERM, libc::SIG_IGN) };
}

/// Makes the mount at `path` read-only or, if `path` is empty, the mount that `at` refers to. If
/// `recursive` is true, also makes all mounts below it read-only.
#[expect(unsafe_code, reason = "mount_setattr has no safe wrapper")]
pub(crate) fn mount_read_only(at: BorrowedFd<'_>, path: &CStr, recursive: bool) -> io::Result<()> {
    let attributes =
        libc::mount_attr { attr_set: libc::MOUNT_ATTR_RDONLY, attr_clr: 0, propagation: 0, userns_fd: 0 };
    let mut flags = libc::AT_EMPTY_PATH;
    if recursive {
        flags |= libc::AT_RECURSIVE;
    }
    // SAFETY: the path and the structure outlive the call, and the size is that of the structure.
    let done = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            at.as_raw_fd(),
            path.as_ptr(),
            flags,
            &raw const attributes,
            size_of::<libc::mount_attr>(),
        )
    };
    if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Returns this kernel's Landlock version, if Landlock is enabled.
#[expect(unsafe_code, reason = "the landlock crate does not export this")]
pub(crate) fn landlock_abi() -> Option<u32> {
    const VERSION: libc::c_uint = 1;
    // SAFETY: with this flag, the kernel expects a null pointer and size 0, and only returns a
    // number.
    let abi =
        unsafe { libc::syscall(libc::SYS_landlock_create_ruleset, std::ptr::null::<u8>(), 0usize, VERSION) };
    u32::try_from(abi).ok().filter(|abi| *abi > 0)
}
