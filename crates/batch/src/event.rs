//! Events of a running batch, for display only. Everything important is in the records.

use std::time::Duration;

use crate::record::Finished;
use crate::settings::Change;

/// An event of a batch.
#[derive(Debug)]
pub enum Event<'a> {
    /// The batch starts.
    Plan {
        /// The number of selected tasks.
        tasks: usize,
        /// How many of the selected tasks keep an earlier result.
        done: usize,
        /// How many of the kept results are verified.
        verified: usize,
    },
    /// Settings have changed since these tasks' results were produced, but the results are kept.
    Kept {
        /// The changes.
        changes: &'a [Change],
        /// The tasks.
        tasks: &'a [&'a str],
    },
    /// The task has changed since its result was produced, so it runs again.
    Changed {
        /// The task.
        id: &'a str,
    },
    /// The agent finished the task unsuccessfully in an earlier invocation, so the task runs again.
    Failed {
        /// The task.
        id: &'a str,
    },
    /// An attempt from an earlier invocation was killed or crashed, so the task runs again.
    CutOff {
        /// The task.
        id: &'a str,
        /// The attempt.
        attempt: u32,
    },
    /// An attempt starts; its worktree is ready.
    Started {
        /// The task.
        id: &'a str,
        /// The attempt.
        attempt: u32,
    },
    /// Something the user should know; the batch continues.
    Note {
        /// The task; empty if the note is about the whole batch.
        id: &'a str,
        /// One sentence.
        message: String,
    },
    /// An attempt ended; its record is on disk.
    Finished {
        /// The record.
        result: &'a Finished,
        /// Whether this invocation will retry the task.
        again: bool,
    },
    /// Several attempts in a row failed because of the infrastructure. After this wait, one attempt
    /// starts as a probe to see whether the infrastructure is back.
    Waiting {
        /// How long the batch waits.
        wait: Duration,
    },
}
