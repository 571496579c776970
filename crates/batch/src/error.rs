//! Errors of a batch. A task that fails is a result, never an error.

use std::io;
use std::path::{Path, PathBuf};

/// Why a batch cannot start or continue.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file operation failed.
    #[error("{what} {}: {source}", path.display())]
    Io {
        /// The operation, as in "cannot open".
        what: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },
    /// Another batch writes the folder.
    #[error("{} is in use by {holder}; wait for it to end, or choose another folder", out.display())]
    Locked {
        /// The folder.
        out: PathBuf,
        /// Who holds it.
        holder: String,
    },
    /// A log of the folder, or its lock, cannot be used.
    #[error(transparent)]
    Journal(#[from] journal::Error),
    /// A task that [`tasks::read`](crate::tasks::read) rejects.
    #[error("{0}")]
    Task(String),
}

pub(crate) fn io_error(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Error {
    let path = path.to_owned();
    move |source| Error::Io { what, path, source }
}
