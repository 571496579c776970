//! The records of a batch: attempts that started and attempts that ended, one JSON object per line.

use std::path::PathBuf;
use std::time::{SystemTime, UNIX_EPOCH};

use journal::{Diff, Ending, ModelTotals, Report, Totals, Versioned};
use serde::{Deserialize, Serialize};

/// The format version of both kinds of record.
pub(crate) const VERSION: u32 = 1;

/// An attempt that started. The record is written to disk before the worktree is created, so that
/// even a batch that is killed leaves a trace.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Started {
    /// Version of the format: 1.
    pub v: u32,
    /// The task.
    pub id: String,
    /// The 1-based attempt number, counted per task across all invocations.
    pub attempt: u32,
    /// [`Task::digest`](crate::Task::digest).
    pub digest: String,
    /// When the record was created, in milliseconds since the Unix epoch.
    pub time_ms: u64,
    /// The name of the worktree's folder in `worktrees/`; `None` if the worktree cannot be created,
    /// or if the attempt runs on a queue worker.
    pub worktree: Option<String>,
    /// The repository's git folder; `None` if the folder is not a repository, or if the attempt
    /// runs on a queue worker.
    pub git_dir: Option<PathBuf>,
    /// The commit that the attempt starts from.
    pub commit: Option<String>,
    /// Whether the worktree is kept after the attempt ends.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub kept: bool,
}

/// An attempt that ended.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Finished {
    /// Version of the format: 1.
    pub v: u32,
    /// The task.
    pub id: String,
    /// The 1-based attempt number, counted per task across all invocations.
    pub attempt: u32,
    /// [`Task::digest`](crate::Task::digest).
    pub digest: String,
    /// When the record was created, in milliseconds since the Unix epoch.
    pub time_ms: u64,
    /// How it ended.
    pub ending: Ending,
    /// Whether the attempt failed because of the infrastructure, not the agent. If so, the task
    /// will run again.
    pub infrastructure: bool,
    /// A human-readable sentence.
    pub message: String,
    /// The changes that the attempt made, even if it failed.
    pub diff: Diff,
    /// Tokens, turns, cost.
    pub totals: Totals,
    /// The totals for each model, if more than one was used.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub models: Vec<ModelTotals>,
    /// Wall-clock time in seconds, including the time to create the worktree.
    pub seconds: f64,
    /// The id of the attempt's session, if one was started.
    pub session: Option<String>,
}

impl Finished {
    /// Creates the result for an attempt that could not be made.
    #[must_use]
    pub fn refused(id: &str, digest: &str, attempt: u32, why: &str) -> Self {
        let Report { ending, message, diff, totals, models, .. } = Report::new(Ending::Refused, why);
        Self {
            v: VERSION,
            id: id.to_owned(),
            attempt,
            digest: digest.to_owned(),
            time_ms: now_ms(),
            infrastructure: ending.is_infrastructure(),
            ending,
            message,
            diff,
            totals,
            models,
            seconds: 0.0,
            session: None,
        }
    }
}

impl Versioned for Started {
    const VERSION: u32 = VERSION;

    fn version(&self) -> u32 {
        self.v
    }
}

impl Versioned for Finished {
    const VERSION: u32 = VERSION;

    fn version(&self) -> u32 {
        self.v
    }
}

pub(crate) fn now_ms() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |d| u64::try_from(d.as_millis()).unwrap_or(u64::MAX))
}
