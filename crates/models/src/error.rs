//! What can go wrong between us and a model server, and what to do about it.

/// Whether the same request may be sent again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Retry {
    /// Yes, after a pause (the server's own delay in seconds, where it named one).
    After(Option<u64>),
    /// Not before the conversation has been made shorter.
    Compact,
    /// Never: a person has to change something.
    Never,
}

/// A failed request. The text says what happened and, where we know it, what to do next.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum Error {
    /// No connection, or it broke before the answer was complete.
    #[error("{0}")]
    Transport(String),
    /// The server said it is busy, loading or failing (408, 429, 5xx).
    #[error("{message}")]
    Unavailable {
        /// What it said.
        message: String,
        /// Seconds it asked us to wait.
        retry_after: Option<u64>,
    },
    /// The server is there, but still loading its model, which takes minutes for a large one.
    #[error("{0}")]
    Loading(String),
    /// The prompt is longer than the window.
    #[error("{message}")]
    Overflow {
        /// What the server said.
        message: String,
        /// The prompt's tokens, where told.
        prompt_tokens: Option<u64>,
        /// The window, where told.
        window: Option<u64>,
    },
    /// Nothing came for longer than the first-byte or idle limit.
    #[error("{0}")]
    Timeout(String),
    /// A server of one's own did not begin its answer within the first-byte limit. It may still be loading or evaluating, and the same
    /// request again would only start that over.
    #[error("{0}")]
    Slow(String),
    /// The model is not there.
    #[error("{message}")]
    MissingModel {
        /// What to tell the user.
        message: String,
        /// Models that are there.
        available: Vec<String>,
    },
    /// The server refused the request for good (400, 402, 422), or cannot be trusted (its certificate).
    #[error("{0}")]
    Refused(String),
    /// A setting cannot be used as it is: an address (404, 405, a redirect), a key (401, 403) or a name. A person has to change it, so a
    /// program's exit code should not be the one that says "try again later".
    #[error("{0}")]
    Settings(String),
    /// The answer is not what the protocol says (a line too long, not JSON).
    #[error("{0}")]
    Protocol(String),
}

impl Error {
    /// Whether and when to try again: the one place that decides it.
    #[must_use]
    pub fn retry(&self) -> Retry {
        match self {
            Error::Transport(_) | Error::Loading(_) | Error::Timeout(_) | Error::Protocol(_) => {
                Retry::After(None)
            }
            Error::Unavailable { retry_after, .. } => Retry::After(*retry_after),
            Error::Overflow { .. } => Retry::Compact,
            Error::MissingModel { .. } | Error::Slow(_) | Error::Refused(_) | Error::Settings(_) => {
                Retry::Never
            }
        }
    }
}
