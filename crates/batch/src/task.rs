//! A task as a task file describes it, whatever its format.

use std::path::PathBuf;

use planner::Limits;
use serde::Serialize;
use sha2::{Digest as _, Sha256};

/// The longest id: it becomes a file name, which may have 255 bytes, and an attempt's number may follow.
pub(crate) const MAX_ID_BYTES: usize = 128;

/// One task.
#[derive(Debug, Clone, PartialEq)]
pub struct Task {
    /// Unique in its file, and safe as a file name.
    pub id: String,
    /// The repository, absolute.
    pub repo: PathBuf,
    /// The repository as the task file names it: what [`Task::digest`] covers, so that a moved folder leaves results valid.
    pub named_repo: String,
    /// The commit to begin with; `HEAD` when there is none.
    pub base_commit: Option<String>,
    /// What the agent is told.
    pub text: String,
    /// The command that decides whether it is done.
    pub verify: Option<String>,
    /// Limits that differ from those of the batch.
    pub limits: TaskLimits,
    /// The model, where it differs from that of the batch.
    pub model: Option<String>,
}

/// Limits of one task; `None` leaves those of the batch.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub struct TaskLimits {
    /// Requests answered by the model.
    pub max_turns: Option<u32>,
    /// Prompt and generated tokens.
    pub max_tokens: Option<u64>,
    /// Seconds by the wall clock.
    pub max_seconds: Option<u64>,
    /// Dollars.
    pub max_cost: Option<f64>,
}

impl TaskLimits {
    /// The limits of a run: these, and where there are none, those of the batch.
    #[must_use]
    pub fn over(&self, batch: Limits) -> Limits {
        Limits {
            turns: self.max_turns.unwrap_or(batch.turns),
            tokens: self.max_tokens.or(batch.tokens),
            seconds: self.max_seconds.or(batch.seconds),
            cost: self.max_cost.or(batch.cost),
        }
    }
}

impl Task {
    /// SHA-256 of everything that describes the task, in hex. A result counts only for the task as it was.
    #[must_use]
    pub fn digest(&self) -> String {
        let described = serde_json::json!({
            "id": self.id, "repo": self.named_repo, "base_commit": self.base_commit, "task": self.text,
            "verify": self.verify, "limits": self.limits, "model": self.model,
        });
        Sha256::digest(described.to_string()).iter().map(|byte| format!("{byte:02x}")).collect()
    }
}

/// Why an id cannot name a file, if so.
pub(crate) fn unsafe_id(id: &str) -> Option<String> {
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    let why = if id.is_empty() {
        "is empty".to_owned()
    } else if id.len() > MAX_ID_BYTES {
        format!("is longer than {MAX_ID_BYTES} bytes")
    } else if let Some(c) = id.chars().find(|c| !allowed(*c)) {
        format!("contains {c:?}")
    } else if id.starts_with(['.', '-']) || id.ends_with('.') {
        "begins with a dot or a dash, or ends with a dot".to_owned()
    } else {
        return None;
    };
    Some(format!("the id {id:?} {why}; ids become file names: letters, digits, `.`, `_` and `-`"))
}
