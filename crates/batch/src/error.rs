//! Why a batch cannot run. A task that fails is a result, never an error.

use std::io;
use std::path::{Path, PathBuf};

/// Why a batch cannot begin or cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file system said no.
    #[error("{what} {}: {source}", path.display())]
    Io {
        /// What was tried.
        what: &'static str,
        /// Where.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// Another batch writes the folder.
    #[error("{} is in use by {holder}; wait for it to end, or give another folder", out.display())]
    Locked {
        /// The folder.
        out: PathBuf,
        /// Who holds it.
        holder: String,
    },
    /// A line that is not a record, before the last one.
    #[error("{}:{line}: not a record of this version: {why}; move the file away to begin anew", path.display())]
    Corrupt {
        /// The file.
        path: PathBuf,
        /// Counted from 1.
        line: usize,
        /// What is wrong with it.
        why: String,
    },
    /// A task that [`tasks::read`](crate::tasks::read) would not have let pass.
    #[error("{0}")]
    Task(String),
}

pub(crate) fn io_error(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Error {
    let path = path.to_owned();
    move |source| Error::Io { what, path, source }
}
