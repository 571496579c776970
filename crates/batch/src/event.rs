//! What a batch tells while it runs. For display only: everything that matters is in the records.

use std::path::Path;

use crate::record::Finished;

/// Something happened.
#[derive(Debug)]
#[non_exhaustive]
pub enum Event<'a> {
    /// The batch begins.
    Plan {
        /// Tasks in the file.
        tasks: usize,
        /// Of those, done by an earlier invocation.
        done: usize,
    },
    /// A result is there, but the task has changed since: it is done again.
    Changed {
        /// The task.
        id: &'a str,
    },
    /// An attempt of an earlier invocation never ended (a kill, a crash): it is done again.
    CutOff {
        /// The task.
        id: &'a str,
        /// The attempt.
        attempt: u32,
    },
    /// An attempt begins; its worktree is ready.
    Started {
        /// The task.
        id: &'a str,
        /// The attempt.
        attempt: u32,
        /// Where it works.
        worktree: &'a Path,
    },
    /// Something a person should know, which stops nothing.
    Note {
        /// The task.
        id: &'a str,
        /// One sentence.
        message: String,
    },
    /// An attempt ended, and its record is on disk.
    Finished {
        /// The record.
        result: &'a Finished,
        /// Whether it will be tried again in this invocation.
        again: bool,
    },
}
