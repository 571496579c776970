//! How a command ends: its result, its exit code, and the tables of exit codes for `--help`.

use std::io;

use journal::{Budget, Ending};

/// The result of a command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Exit {
    /// The command succeeded.
    Success,
    /// The command ran, but its answer is no: nothing was found, or a check failed.
    Negative,
    /// A run ended.
    Run(Ending),
    /// The exit code of a sandboxed command or of a batch.
    Code(u8),
}

impl Exit {
    /// Returns the exit code of the process.
    pub(crate) fn code(&self) -> u8 {
        match self {
            Exit::Success => 0,
            Exit::Negative => 1,
            Exit::Run(ending) => ending.exit_code(),
            Exit::Code(code) => *code,
        }
    }
}

/// Why a command failed: the message, what to do about it, and the exit code.
#[derive(Debug)]
pub(crate) struct Failure {
    /// Determines the exit code: the command exits like a run with this ending.
    pub(crate) ending: Ending,
    /// The error and its sources.
    pub(crate) error: anyhow::Error,
    /// What to do about it, printed after the error.
    pub(crate) hints: Vec<String>,
}

/// The result of every command.
pub(crate) type Result<T = Exit, E = Failure> = std::result::Result<T, E>;

impl Failure {
    /// Creates a failure that was not caused by the model or its server, such as misuse, invalid
    /// settings or an unreadable file.
    pub(crate) fn refused(error: impl Into<anyhow::Error>) -> Self {
        Self { ending: Ending::Refused, error: error.into(), hints: Vec::new() }
    }

    /// Like [`Failure::refused`], but takes a message.
    pub(crate) fn misuse(message: impl std::fmt::Display) -> Self {
        Self::refused(anyhow::anyhow!("{message}"))
    }

    /// Creates a failure that was caused by the model or its server.
    pub(crate) fn unavailable(error: impl Into<anyhow::Error>) -> Self {
        Self { ending: Ending::Unavailable, error: error.into(), hints: Vec::new() }
    }

    /// Adds a hint.
    pub(crate) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hints.push(hint.into());
        self
    }

    /// Returns whether the failure was caused by a closed output pipe, which is not an error.
    pub(crate) fn is_broken_pipe(&self) -> bool {
        self.error
            .chain()
            .filter_map(|e| e.downcast_ref::<io::Error>())
            .any(|e| e.kind() == io::ErrorKind::BrokenPipe)
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Self::refused(error)
    }
}

impl From<anyhow::Error> for Failure {
    fn from(error: anyhow::Error) -> Self {
        Self::refused(error)
    }
}

impl From<journal::Error> for Failure {
    fn from(error: journal::Error) -> Self {
        let full = matches!(&error, journal::Error::Io { source, .. } if source.kind() == io::ErrorKind::StorageFull);
        let hint = "free space on that disk; then resume the run with `agent resume`, or run the batch again";
        Self { hints: full.then(|| hint.into()).into_iter().collect(), ..Self::refused(error) }
    }
}

impl From<replay::Error> for Failure {
    fn from(error: replay::Error) -> Self {
        let gone = matches!(error, replay::Error::NoRepository(_));
        let hint = "--recorded replays without the repository; --no-contents exports without it";
        Self { hints: gone.then(|| hint.into()).into_iter().collect(), ..Self::refused(error) }
    }
}

impl From<model_files::Error> for Failure {
    fn from(error: model_files::Error) -> Self {
        match error {
            model_files::Error::Unreachable { .. } => Self::unavailable(error)
                .hint("check the network; to use other addresses, set HF_ENDPOINT and PIP_INDEX_URL"),
            _ => Self::refused(error),
        }
    }
}

impl From<batch::Error> for Failure {
    fn from(error: batch::Error) -> Self {
        match error.is_temporary() {
            true => Self::unavailable(error),
            false => Self::refused(error),
        }
    }
}

impl From<queue::Error> for Failure {
    fn from(error: queue::Error) -> Self {
        match error.is_temporary() {
            true => Self::unavailable(error),
            false => Self::refused(error),
        }
    }
}

impl From<models::Error> for Failure {
    fn from(error: models::Error) -> Self {
        match error {
            models::Error::Settings(_) => Self::refused(error),
            _ => Self::unavailable(error),
        }
    }
}

/// Returns the exit codes of `agent run` and `agent resume`.
pub(crate) fn table() -> String {
    let rows = [
        (Ending::Verified, "done, and the verification passed"),
        (Ending::Unverified, "not verified: the check failed, there is no check, or nothing was changed"),
        (Ending::Refused, "refused: invalid flags, settings or files, or no sandbox"),
        (Ending::GaveUp, "gave up: the model made no progress"),
        (Ending::Budget { budget: Budget::Turns }, "reached a budget: turns, tokens, seconds or cost"),
        (Ending::Unavailable, "the model or its server is unavailable"),
        (Ending::Interrupted, "interrupted by Ctrl-C or a termination signal"),
    ];
    listed("Exit codes:\n", &rows)
}

/// Returns the exit codes of `agent ask`.
pub(crate) fn ask_table() -> String {
    let rows = [
        (Ending::Answered, "answered"),
        (Ending::Refused, "refused: invalid flags, settings or files"),
        (Ending::GaveUp, "gave up: the model made no progress"),
        (Ending::Budget { budget: Budget::Turns }, "reached a budget: turns, tokens, seconds or cost"),
        (Ending::Unavailable, "the model or its server is unavailable"),
        (Ending::Interrupted, "interrupted by Ctrl-C or a termination signal"),
    ];
    listed("Exit codes:\n", &rows)
}

/// Returns the exit codes of `agent batch`.
pub(crate) fn batch_table() -> String {
    let no_result =
        "a task has no result because the model, its server or the machine failed: run the batch again";
    let rows = [
        (Ending::Verified, "all tasks are verified"),
        (Ending::Unverified, "a task is not verified"),
        (Ending::Refused, "refused: invalid flags, settings or task files"),
        (Ending::Unavailable, no_result),
        (Ending::Budget { budget: Budget::Time }, "paused by --deadline, --batch-tokens or --batch-cost"),
        (Ending::Interrupted, "interrupted: run the batch again to resume"),
    ];
    listed("Exit codes (if several apply, the last one listed):\n", &rows)
}

/// Returns the exit codes of `agent worker`.
pub(crate) fn worker_table() -> &'static str {
    "Exit codes:\n    0  stopped by a signal; unfinished tasks went back to the queue\n    2  misuse, or the queue or the folder \
     cannot be used\n    5  the folder is in use by another process, or its disk is full: start the worker again\n"
}

fn listed(heading: &str, rows: &[(Ending, &str)]) -> String {
    let line = |(ending, meaning): &(Ending, &str)| format!("  {:>3}  {meaning}\n", ending.exit_code());
    heading.to_owned() + &rows.iter().map(line).collect::<String>()
}

/// Returns the exit codes of `agent patch`.
pub(crate) fn patch_table() -> &'static str {
    "Exit codes:\n    0  applied (with --check or --preview: can be applied)\n    1  cannot be applied; nothing was changed\n    \
     2  not a patch, misuse, or a system error; nothing was changed\n"
}

/// Returns the exit codes of `agent parse`.
pub(crate) fn parse_table() -> &'static str {
    "Exit codes:\n    0  a run in this repository would run at least one call\n    1  it would run none: there is no call, or every \
     call is refused\n    2  misuse, or a system error\n\nWith --chunks, 0 means that every line was valid input.\n"
}

/// Returns the exit codes of `agent apply` and `agent undo`.
pub(crate) fn changes_table() -> &'static str {
    "Exit codes:\n    0  done, or nothing to do (with --check or --preview: can be done)\n    1  refused: the listed files have \
     changed in the meantime; nothing was written\n    2  misuse, a session that is still running, or a system error\n"
}

/// Returns the exit codes of `agent replay`.
pub(crate) fn replay_table() -> &'static str {
    "Exit codes:\n    0  no difference\n    1  a difference was found and shown\n    2  misuse, a file that is not a session, or a system error\n"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_broken_pipe_is_detected_among_the_sources_of_an_error() {
        let inner = anyhow::Error::from(io::Error::from(io::ErrorKind::BrokenPipe)).context("cannot print");
        assert!(Failure::from(inner).is_broken_pipe());
        assert!(!Failure::misuse("no such file").is_broken_pipe());
    }

    #[test]
    fn the_table_lists_each_code_once() {
        let text = table();
        let codes: Vec<_> = text.lines().skip(1).filter_map(|l| l.split_whitespace().next()).collect();
        assert_eq!(codes, ["0", "1", "2", "3", "4", "5", "130"]);
    }
}
