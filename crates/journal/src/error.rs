//! Errors about sessions, logs and locks on disk.

use std::io;
use std::path::{Path, PathBuf};

use rustix::io::Errno;

/// An error about a session on disk.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file operation failed.
    #[error("{what} {}: {source}", path.display())]
    Io {
        /// The operation that failed, such as "cannot open".
        what: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },
    /// No session has that id.
    #[error("there is no session {0:?}; `agent sessions list` lists all sessions")]
    NotFound(String),
    /// Several sessions match a prefix.
    #[error("{prefix:?} matches {count} sessions ({}{}); use a longer prefix", ids.join(", "), if *count > ids.len() { ", …" } else { "" })]
    Ambiguous {
        /// The prefix.
        prefix: String,
        /// The number of sessions that match.
        count: usize,
        /// Up to five of them.
        ids: Vec<String>,
    },
    /// Another process is writing the session.
    #[error("session {id} is in use by {holder}; wait for it to end, or stop it")]
    Locked {
        /// The session.
        id: String,
        /// The holder of the lock.
        holder: String,
    },
    /// Another session is using the work tree.
    #[error("{} is in use by {holder}; wait for it to end, or work in another git worktree", root.display())]
    TreeLocked {
        /// The root of the tree.
        root: PathBuf,
        /// The holder of the lock.
        holder: String,
    },
    /// A line before the last one is not a record.
    #[error("cannot read {}: line {line} is not a valid record: {why}; move the file away to start over", path.display())]
    Corrupt {
        /// The log.
        path: PathBuf,
        /// The 1-based line number.
        line: usize,
        /// The error.
        why: String,
    },
}

/// Whether the same operation may succeed later. This is true if the system ran out of disk space,
/// memory, processes or open files, or if a file system did not respond.
#[must_use]
pub fn is_temporary(error: &io::Error) -> bool {
    use io::ErrorKind::{
        Interrupted, NetworkDown, NetworkUnreachable, OutOfMemory, QuotaExceeded, ResourceBusy,
        StaleNetworkFileHandle, StorageFull, TimedOut, WouldBlock,
    };
    let by_kind = matches!(
        error.kind(),
        Interrupted
            | NetworkDown
            | NetworkUnreachable
            | OutOfMemory
            | QuotaExceeded
            | ResourceBusy
            | StaleNetworkFileHandle
            | StorageFull
            | TimedOut
            | WouldBlock
    );
    // The standard library has no kinds for these.
    let codes = [Errno::MFILE, Errno::NFILE, Errno::NOLCK].map(Errno::raw_os_error);
    by_kind || error.raw_os_error().is_some_and(|code| codes.contains(&code))
}

impl Error {
    /// Whether the same operation may succeed later; see [`is_temporary`].
    #[must_use]
    pub fn is_temporary(&self) -> bool {
        matches!(self, Error::Io { source, .. } if is_temporary(source))
    }
}

/// Converts an error from a file operation into [`Error::Io`]. `what` describes the operation that
/// failed, such as "cannot open".
pub fn io_error(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Error {
    let path = path.to_owned();
    move |source| Error::Io { what, path, source }
}
