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
    /// The server refused a request or did not answer it.
    #[error("cannot {doing}: {why}")]
    Server {
        /// The action that failed.
        doing: &'static str,
        /// The reason given by the server or the client.
        why: String,
        /// Whether the server did not answer in time.
        timed_out: bool,
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
    /// Whether the same command may succeed later, for example because the server is back by then.
    #[must_use]
    pub fn is_temporary(&self) -> bool {
        match self {
            Error::Unreachable(_) | Error::Locked { .. } => true,
            Error::Server { timed_out, .. } => *timed_out,
            Error::Batch(e) => e.is_temporary(),
            Error::Journal(e) => e.is_temporary(),
            Error::Connect(_) => false,
        }
    }
}

/// Turns an error from the client into [`Error::Server`].
pub(crate) fn server<E: std::fmt::Display>(doing: &'static str) -> impl FnOnce(E) -> Error {
    move |e| {
        let why = e.to_string();
        // The client has a type of error for each kind of request. Only their messages are similar.
        let timed_out = why.contains("timed out");
        Error::Server { doing, why, timed_out }
    }
}
