//! How the program ends: one enum, mapped to a number in one place, and the table of those numbers for `--help`.

use std::io;

use journal::{Budget, Ending};

/// What a command has come to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Exit {
    /// It did what was asked.
    Success,
    /// It worked, and the answer is no: nothing found, a check that fails.
    Negative,
    /// A run has ended.
    Run(Ending),
    /// A command that was run has ended, with this code.
    Command(u8),
    /// A batch has ended, with the code that its summary gives.
    Batch(u8),
}

impl Exit {
    /// The exit code of the process.
    pub(crate) fn code(&self) -> u8 {
        match self {
            Exit::Success => 0,
            Exit::Negative => 1,
            Exit::Run(ending) => ending.exit_code(),
            Exit::Command(code) | Exit::Batch(code) => *code,
        }
    }
}

/// Why a command could not be carried out: the sentence for people, what to do about it, and the exit code.
#[derive(Debug)]
pub(crate) struct Failure {
    /// The exit code's meaning, shared with the endings of a run.
    pub(crate) ending: Ending,
    /// What went wrong, outermost first.
    pub(crate) error: anyhow::Error,
    /// What to do next, printed after the error.
    pub(crate) hints: Vec<String>,
}

/// The result of every command.
pub(crate) type Result<T = Exit, E = Failure> = std::result::Result<T, E>;

impl Failure {
    /// Our own side refuses: misuse, bad settings, a file that cannot be read.
    pub(crate) fn refused(error: impl Into<anyhow::Error>) -> Self {
        Self { ending: Ending::Refused, error: error.into(), hints: Vec::new() }
    }

    /// A sentence as a refusal.
    pub(crate) fn misuse(message: impl std::fmt::Display) -> Self {
        Self::refused(anyhow::anyhow!("{message}"))
    }

    /// The model or its server failed.
    pub(crate) fn unavailable(error: impl Into<anyhow::Error>) -> Self {
        Self { ending: Ending::Unavailable, error: error.into(), hints: Vec::new() }
    }

    /// Adds what to do next.
    pub(crate) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hints.push(hint.into());
        self
    }

    /// Whether the reader of our output has simply gone away, which is no failure.
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
        let failure = Self::refused(error);
        if full {
            failure.hint("make room on that disk; a run that has begun then goes on with agent resume")
        } else {
            failure
        }
    }
}

impl From<replay::Error> for Failure {
    fn from(error: replay::Error) -> Self {
        let gone = matches!(error, replay::Error::NoRepository(_));
        let failure = Self::refused(error);
        if gone {
            failure.hint("--recorded replays without the repository, --no-contents exports without it")
        } else {
            failure
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

/// The table of exit codes, as `agent run --help` ends with.
pub(crate) fn table() -> String {
    let rows = [
        (Ending::Verified, "done, and the verification passed"),
        (Ending::Unverified, "not verified: no check to run, or it does not pass; or nothing was changed"),
        (Ending::Refused, "refused or misused: bad flags, settings or files, no sandbox"),
        (Ending::GaveUp, "gave up: the model was getting nowhere"),
        (Ending::Budget { budget: Budget::Turns }, "a budget was reached: turns, tokens, seconds or cost"),
        (Ending::Unavailable, "the model or its server is unavailable"),
        (Ending::Interrupted, "interrupted by Ctrl-C or a termination signal"),
    ];
    rows.iter().fold(String::from("Exit codes:\n"), |text, (ending, meaning)| {
        format!("{text}  {:>3}  {meaning}\n", ending.exit_code())
    })
}

/// What the same codes mean for a batch, as `agent batch --help` ends with.
pub(crate) fn batch_table() -> String {
    let rows = [
        (Ending::Verified, "all tasks are verified"),
        (Ending::Unverified, "a task is not verified"),
        (Ending::Refused, "refused or misused: bad flags, settings or task files"),
        (
            Ending::Unavailable,
            "a task has no result, because model, server or machine failed: run the batch again",
        ),
        (Ending::Interrupted, "interrupted: run the batch again to go on"),
    ];
    rows.iter()
        .fold(String::from("Exit codes, the first that fits from below:\n"), |text, (ending, meaning)| {
            format!("{text}  {:>3}  {meaning}\n", ending.exit_code())
        })
}

/// What the codes of `agent patch` mean.
pub(crate) fn patch_table() -> &'static str {
    "Exit codes:\n    0  applied (with --check or --preview: could be)\n    1  refused: it does not fit, and nothing was changed\n    \
     2  not a patch, misuse, or a failure of the system; nothing was changed\n"
}

/// What the codes of `agent parse` mean.
pub(crate) fn parse_table() -> &'static str {
    "Exit codes:\n    0  a run in this repository would carry out a call of it\n    1  it would not: there is no call, or each \
     is refused\n    2  misuse, or a failure of the system\n\nWith --chunks, 0 means that every line was a case.\n"
}

/// What the codes of `agent apply` and `agent undo` mean.
pub(crate) fn changes_table() -> &'static str {
    "Exit codes:\n    0  done, or nothing to do (with --check or --preview: could be done)\n    1  refused: files have been changed \
     since, all of them are named, and nothing was changed\n    2  misuse, a session that is still running, or a failure of the system\n"
}

/// What the codes of `agent replay` mean.
pub(crate) fn replay_table() -> &'static str {
    "Exit codes:\n    0  it went the same way\n    1  it went another way: the first difference is shown\n    2  misuse, a file that is no session, or a failure \
     of the system\n"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_broken_pipe_is_recognised_below_other_words() {
        let inner = anyhow::Error::from(io::Error::from(io::ErrorKind::BrokenPipe)).context("cannot print");
        assert!(Failure::from(inner).is_broken_pipe());
        assert!(!Failure::misuse("no such file").is_broken_pipe());
    }

    #[test]
    fn the_table_names_each_code_once() {
        let text = table();
        let codes: Vec<_> = text.lines().skip(1).filter_map(|l| l.split_whitespace().next()).collect();
        assert_eq!(codes, ["0", "1", "2", "3", "4", "5", "130"]);
    }
}
