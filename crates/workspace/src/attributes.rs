//! A file's owner and extended attributes, which include access control lists.

use std::{ffi::CStr, fs::File, io, os::fd::AsFd as _};

use rustix::fs::XattrFlags;

/// The kernel's limit, in bytes, on both the list of a file's attribute names and a single value.
const XATTR_LIMIT: usize = 64 << 10;

/// Copies the owner and attributes of a file to its replacement, as far as the system allows. Only
/// root may change a file's owner.
pub(crate) fn copy_to(from: &File, to: &File) -> io::Result<()> {
    let (old, new) = (rustix::fs::fstat(from)?, rustix::fs::fstat(to)?);
    if (old.st_uid, old.st_gid) != (new.st_uid, new.st_gid) {
        let (owner, group) = (rustix::fs::Uid::from_raw(old.st_uid), rustix::fs::Gid::from_raw(old.st_gid));
        if rustix::fs::fchown(to, Some(owner), Some(group)).is_err() {
            // Without root privileges, the owner cannot be kept, but the group can if the user is a
            // member of it.
            let _ = rustix::fs::fchown(to, None, Some(group));
        }
    }
    let names = read(|buffer| rustix::fs::flistxattr(from.as_fd(), buffer));
    for name in names.split_inclusive(|b| *b == 0).filter_map(|n| CStr::from_bytes_with_nul(n).ok()) {
        let value = read(|buffer| rustix::fs::fgetxattr(from.as_fd(), name, buffer));
        // Fails for attributes that only the kernel may set.
        let _ = rustix::fs::fsetxattr(to.as_fd(), name, &value, XattrFlags::empty());
    }
    Ok(())
}

/// Uses `call` to read the list of attribute names or the value of one attribute. Returns no bytes
/// if the file system does not support attributes.
fn read(call: impl FnOnce(&mut [u8]) -> rustix::io::Result<usize>) -> Vec<u8> {
    let mut buffer = vec![0; XATTR_LIMIT];
    let size = call(&mut buffer).unwrap_or(0);
    buffer.truncate(size);
    buffer
}
