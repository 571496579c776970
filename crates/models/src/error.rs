//! Errors from requests to model servers, and whether each of them is worth a retry.

/// Whether to send the same request again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Retry {
    /// Yes, after a pause. Holds the delay that the server asks for, if any, in seconds.
    After(Option<u64>),
    /// Only after the conversation has been compacted.
    Compact,
    /// Never: the user has to change something.
    Never,
}

/// A failed request. The text says what happened and, if known, what to do about it.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum Error {
    /// The connection could not be established, or it failed before the answer was complete.
    #[error("{0}")]
    Transport(String),
    /// The server is overloaded, or this client is sending too many requests (429, 503, 529).
    #[error("{message}")]
    Busy {
        /// The server's message.
        message: String,
        /// Seconds to wait, if the server asks for a delay.
        retry_after: Option<u64>,
    },
    /// The server reports that it is failing (408, 499, other 5xx except 501).
    #[error("{message}")]
    Unavailable {
        /// The server's message.
        message: String,
        /// Seconds to wait, if the server asks for a delay.
        retry_after: Option<u64>,
    },
    /// The server is running but still loading its model, which can take minutes.
    #[error("{0}")]
    Loading(String),
    /// The prompt is longer than the context window.
    #[error("{message}")]
    Overflow {
        /// The server's message.
        message: String,
        /// The number of prompt tokens, if the server reports it.
        prompt_tokens: Option<u64>,
        /// The window, if the server reports it.
        window: Option<u64>,
    },
    /// Nothing arrived within the first-byte or idle timeout.
    #[error("{0}")]
    Timeout(String),
    /// A local server did not start answering within the first-byte timeout. It may still be
    /// loading the model or evaluating the prompt, and a retry would only start that work over.
    #[error("{0}")]
    Slow(String),
    /// The server does not have the model.
    #[error("{message}")]
    MissingModel {
        /// What to tell the user.
        message: String,
        /// Models that the server has.
        available: Vec<String>,
    },
    /// No model was named, and none was found.
    #[error("{0}")]
    NoModel(String),
    /// The server permanently refused the request (400, 422, 501 and every status that no other
    /// variant covers), or its certificate is not trusted.
    #[error("{0}")]
    Refused(String),
    /// The account has no balance or quota left, or the server has too little memory for the model.
    #[error("{0}")]
    Exhausted(String),
    /// A setting is wrong: an address (404, 405, a redirect), a key (401, 403), a proxy (407) or a
    /// name. The user has to change it, so the exit code should not suggest trying again later.
    #[error("{0}")]
    Settings(String),
    /// The answer violates the protocol, for example because a line is too long or is not JSON.
    #[error("{0}")]
    Protocol(String),
}

impl Error {
    /// Returns whether and when to retry. This is the only place where that is decided.
    #[must_use]
    pub fn retry(&self) -> Retry {
        match self {
            Error::Transport(_) | Error::Loading(_) | Error::Timeout(_) | Error::Protocol(_) => {
                Retry::After(None)
            }
            Error::Busy { retry_after, .. } | Error::Unavailable { retry_after, .. } => {
                Retry::After(*retry_after)
            }
            Error::Overflow { .. } => Retry::Compact,
            Error::MissingModel { .. }
            | Error::NoModel(_)
            | Error::Slow(_)
            | Error::Refused(_)
            | Error::Exhausted(_)
            | Error::Settings(_) => Retry::Never,
        }
    }

    /// Returns whether the server is the problem. If so, the same request may succeed on another
    /// server.
    #[must_use]
    pub fn is_of_server(&self) -> bool {
        match self {
            Error::Transport(_)
            | Error::Busy { .. }
            | Error::Unavailable { .. }
            | Error::Loading(_)
            | Error::Timeout(_)
            | Error::Slow(_)
            | Error::MissingModel { .. }
            | Error::NoModel(_)
            | Error::Exhausted(_)
            | Error::Settings(_)
            | Error::Protocol(_) => true,
            Error::Overflow { .. } | Error::Refused(_) => false,
        }
    }
}
