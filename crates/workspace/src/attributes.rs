//! What a file has besides content and permission bits: its owner and its extended attributes, access lists among them.

use std::{ffi::CStr, fs::File, io, os::fd::AsFd as _};

use rustix::fs::XattrFlags;

/// Room for the names of a file's attributes, and for the value of one: the kernel's own limit.
const XATTR_LIMIT: usize = 64 << 10;

/// Gives these to a new file that takes the place of another, as far as the system allows: only root may give files away.
pub(crate) fn take_over(from: &File, to: &File) -> io::Result<()> {
    let (old, new) = (rustix::fs::fstat(from)?, rustix::fs::fstat(to)?);
    if (old.st_uid, old.st_gid) != (new.st_uid, new.st_gid) {
        let (owner, group) = (rustix::fs::Uid::from_raw(old.st_uid), rustix::fs::Gid::from_raw(old.st_gid));
        if rustix::fs::fchown(to, Some(owner), Some(group)).is_err() {
            // The group alone may be one of ours.
            let _ = rustix::fs::fchown(to, None, Some(group));
        }
    }
    let names = read(|room| rustix::fs::flistxattr(from.as_fd(), room));
    for name in names.split_inclusive(|b| *b == 0).filter_map(|n| CStr::from_bytes_with_nul(n).ok()) {
        let value = read(|room| rustix::fs::fgetxattr(from.as_fd(), name, room));
        // Some belong to the system, which sets them itself.
        let _ = rustix::fs::fsetxattr(to.as_fd(), name, &value, XattrFlags::empty());
    }
    Ok(())
}

/// Nothing, where the file system has none.
fn read(ask: impl FnOnce(&mut [u8]) -> rustix::io::Result<usize>) -> Vec<u8> {
    let mut room = vec![0; XATTR_LIMIT];
    let size = ask(&mut room).unwrap_or(0);
    room.truncate(size);
    room
}
