//! What a batch writes down: an attempt that begins, and an attempt that ended. One JSON object a line.

use std::path::PathBuf;
use std::time::{SystemTime, UNIX_EPOCH};

use journal::{Diff, Ending, Totals};
use serde::{Deserialize, Serialize};

/// Version of both records.
pub(crate) const VERSION: u32 = 1;

/// An attempt begins. On disk before its worktree is made, so that a killed batch leaves a trace.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Started {
    /// Version of the format: 1.
    pub v: u32,
    /// The task.
    pub id: String,
    /// Counted from 1 for each task, over all invocations.
    pub attempt: u32,
    /// [`Task::digest`](crate::Task::digest).
    pub digest: String,
    /// Milliseconds since the Unix epoch.
    pub time_ms: u64,
    /// The name of its folder in `worktrees/`; `None` when it cannot be made.
    pub worktree: Option<String>,
    /// Whether that folder is meant to stay.
    pub keep: bool,
    /// The repository's git folder; `None` for a folder that is no repository.
    pub git_dir: Option<PathBuf>,
    /// The commit that it starts from.
    pub commit: Option<String>,
}

/// An attempt ended.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Finished {
    /// Version of the format: 1.
    pub v: u32,
    /// The task.
    pub id: String,
    /// Counted from 1 for each task, over all invocations.
    pub attempt: u32,
    /// [`Task::digest`](crate::Task::digest).
    pub digest: String,
    /// Milliseconds since the Unix epoch.
    pub time_ms: u64,
    /// How it ended.
    pub ending: Ending,
    /// Whether the infrastructure failed rather than the agent: the task is tried again.
    pub infrastructure: bool,
    /// One sentence for people.
    pub message: String,
    /// What was changed, also by an attempt that failed.
    pub diff: Diff,
    /// Tokens, turns, cost.
    pub totals: Totals,
    /// By the wall clock, worktree included.
    pub seconds: f64,
    /// The session that tells everything, where one was begun.
    pub session: Option<String>,
}

/// Both kinds, as far as reading needs to know.
pub(crate) trait Versioned {
    fn version(&self) -> u32;
}

impl Versioned for Started {
    fn version(&self) -> u32 {
        self.v
    }
}

impl Versioned for Finished {
    fn version(&self) -> u32 {
        self.v
    }
}

pub(crate) fn now_ms() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |d| u64::try_from(d.as_millis()).unwrap_or(u64::MAX))
}
