//! Batch errors. A failed task is a result, never an error.

use std::io::ErrorKind;
use std::path::PathBuf;

use crate::store::RESULTS;

/// Why a batch cannot start or continue.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Another process is using the folder.
    #[error("{} is in use by {holder}; wait for it to end, or choose another folder", out.display())]
    Locked {
        /// The folder.
        out: PathBuf,
        /// The process that is using it.
        holder: String,
    },
    /// The folder has no results.
    #[error("{} is not a batch folder: it has no {RESULTS}", _0.display())]
    NoBatch(PathBuf),
    /// A file in the folder cannot be used.
    #[error(transparent)]
    Journal(#[from] journal::Error),
    /// The results cannot be merged.
    #[error("{0}")]
    Merge(String),
    /// The [`Place`](crate::Place) where the attempts run cannot be used.
    #[error("{0}")]
    Place(String),
    /// A task that [`tasks::read`](crate::tasks::read) rejects.
    #[error("{0}")]
    Task(String),
}

impl Error {
    /// Whether the same command may succeed later. True if another process is using the folder or
    /// the disk is full.
    #[must_use]
    pub fn is_temporary(&self) -> bool {
        match self {
            Error::Locked { .. } => true,
            Error::Journal(journal::Error::Io { source, .. }) => {
                matches!(source.kind(), ErrorKind::StorageFull | ErrorKind::QuotaExceeded)
            }
            Error::NoBatch(_) | Error::Journal(_) | Error::Merge(_) | Error::Place(_) | Error::Task(_) => {
                false
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_disk_and_a_lock_are_temporary() {
        let io = |kind: ErrorKind| journal::io_error("cannot write", "x".as_ref())(kind.into());
        assert!(Error::from(io(ErrorKind::StorageFull)).is_temporary());
        assert!(Error::Locked { out: "x".into(), holder: "process 1".into() }.is_temporary());
        assert!(!Error::from(io(ErrorKind::PermissionDenied)).is_temporary());
        assert!(!Error::NoBatch("x".into()).is_temporary());
    }
}
