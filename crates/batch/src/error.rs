//! Errors of a batch. A task that fails is a result, never an error.

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
    #[error("{} is not the folder of a batch: it has no {RESULTS}", _0.display())]
    NoBatch(PathBuf),
    /// A file in the folder cannot be used.
    #[error(transparent)]
    Journal(#[from] journal::Error),
    /// Results that cannot be merged.
    #[error("{0}")]
    Merge(String),
    /// The [`Place`](crate::Place) where the attempts run cannot be used.
    #[error("{0}")]
    Place(String),
    /// A task that [`tasks::read`](crate::tasks::read) rejects.
    #[error("{0}")]
    Task(String),
}
