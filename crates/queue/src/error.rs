//! Queue errors.

/// Why the queue cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The address or the credentials cannot be used.
    #[error("cannot connect to the queue: {0}")]
    Connect(String),
    /// The server cannot be reached at the moment.
    #[error("cannot connect to the queue: {0}")]
    Unreachable(String),
    /// The server refused a request.
    #[error("cannot {doing}: {why}")]
    Server {
        /// The action that failed.
        doing: &'static str,
        /// The reason given by the server or the client.
        why: String,
    },
    /// Another process is using the worker's folder.
    #[error("{folder} is in use by {holder}; choose another folder with --folder")]
    Locked {
        /// The folder.
        folder: String,
        /// The process that is using it.
        holder: String,
    },
    /// A record cannot be read or written.
    #[error(transparent)]
    Batch(#[from] batch::Error),
    /// A file cannot be read or written.
    #[error(transparent)]
    Journal(#[from] journal::Error),
}

impl Error {
    /// Whether the same command may succeed later, because the server may be back by then.
    #[must_use]
    pub fn is_temporary(&self) -> bool {
        match self {
            Error::Unreachable(_) => true,
            Error::Batch(e) => e.is_temporary(),
            Error::Connect(_) | Error::Server { .. } | Error::Locked { .. } | Error::Journal(_) => false,
        }
    }
}

/// Turns an error from the client into [`Error::Server`].
pub(crate) fn server<E: std::fmt::Display>(doing: &'static str) -> impl FnOnce(E) -> Error {
    move |e| Error::Server { doing, why: e.to_string() }
}
