//! Makes system calls fail, as they do on file systems that do not support them.

use std::collections::BTreeMap;

use seccompiler::{
    SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule, apply_filter,
};

/// A kind of file system that lacks some features.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Old {
    /// Renames with flags are not supported, as on NFS.
    Renames,
    /// Hard links are not supported either, as on some FUSE file systems.
    RenamesAndLinks,
}

/// Makes file operations behave as they do on this kind of file system, for the calling thread and
/// for the threads and processes that it starts. This cannot be undone.
///
/// # Panics
/// Panics if the system does not allow seccomp filters.
pub fn act_like(old: Old) {
    let flags = SeccompCondition::new(4, SeccompCmpArgLen::Dword, SeccompCmpOp::Ne, 0).unwrap();
    refuse(libc::SYS_renameat2, vec![SeccompRule::new(vec![flags]).unwrap()], libc::EINVAL);
    if old == Old::RenamesAndLinks {
        refuse(libc::SYS_linkat, Vec::new(), libc::EPERM);
    }
}

fn refuse(call: i64, when: Vec<SeccompRule>, error: i32) {
    let filter = SeccompFilter::new(
        BTreeMap::from([(call, when)]),
        SeccompAction::Allow,
        SeccompAction::Errno(error.unsigned_abs()),
        std::env::consts::ARCH.try_into().unwrap(),
    );
    let program: Vec<_> = filter.unwrap().try_into().unwrap();
    apply_filter(&program).unwrap();
}
