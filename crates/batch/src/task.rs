//! A task, independent of the format of its file.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use sha2::{Digest as _, Sha256};

/// The maximum length of an id in bytes. An id with an attempt number appended must fit in a
/// 255-byte file name.
pub(crate) const MAX_ID_BYTES: usize = 128;

/// One task.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Task {
    /// Unique within its file, and safe to use as a file name.
    pub id: String,
    /// The repository: the absolute path of a folder or bundle file, or a URL to clone.
    pub repo: PathBuf,
    /// The repository as written in the task file. [`Task::digest`] covers this field instead of
    /// `repo`, so results stay valid when a folder moves.
    pub named_repo: String,
    /// The commit to start from; `None` for `HEAD`.
    pub base_commit: Option<String>,
    /// The instructions for the agent.
    pub text: String,
    /// The command that verifies the result.
    pub verify: Option<String>,
    /// Limits that override the batch's.
    pub limits: TaskLimits,
    /// The model to use instead of the batch's.
    pub model: Option<String>,
    /// The maximum number of tries in one session; overrides the batch's.
    pub attempts: Option<u32>,
    /// The command that prepares a worktree before the agent starts.
    pub setup: Option<String>,
    /// Patterns of files that the agent must not change. The original files are restored before
    /// every command.
    pub protected: Vec<String>,
    /// Words to select tasks by. Not part of [`Task::digest`], because they do not change the task.
    pub tags: Vec<String>,
}

/// The limits on one task. For a limit that is `None`, the batch's per-task limit applies.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct TaskLimits {
    /// Requests answered by the model.
    pub max_turns: Option<u32>,
    /// Prompt and generated tokens.
    pub max_tokens: Option<u64>,
    /// Wall-clock seconds.
    pub max_seconds: Option<u64>,
    /// Dollars.
    pub max_cost: Option<f64>,
}

impl Task {
    /// Returns the repository as written in the task, without credentials.
    #[must_use]
    pub fn shown_repo(&self) -> String {
        crate::clones::shown(&self.named_repo)
    }

    /// Whether the task itself overrides the setting with this key.
    pub(crate) fn sets(&self, key: &str) -> bool {
        match key {
            "model" => self.model.is_some(),
            "verify" => self.verify.is_some(),
            "attempts" => self.attempts.is_some(),
            "max_turns" => self.limits.max_turns.is_some(),
            "max_tokens" => self.limits.max_tokens.is_some(),
            "max_seconds" => self.limits.max_seconds.is_some(),
            "max_cost" => self.limits.max_cost.is_some(),
            _ => false,
        }
    }

    /// Returns the SHA-256 of everything that describes the task, in hex. A result is valid only
    /// for a task with the same digest.
    #[must_use]
    pub fn digest(&self) -> String {
        let mut described = serde_json::json!({
            "id": self.id, "repo": self.named_repo, "base_commit": self.base_commit, "task": self.text,
            "verify": self.verify, "limits": self.limits, "model": self.model,
        });
        // These keys were added later. A task without them has the same digest as before they
        // existed, so its older results stay valid.
        let added = [
            ("attempts", self.attempts.map(Value::from)),
            ("setup", self.setup.clone().map(Value::from)),
            ("protected", (!self.protected.is_empty()).then(|| self.protected.clone().into())),
        ];
        for (key, value) in added {
            if let Some(value) = value {
                described[key] = value;
            }
        }
        Sha256::digest(described.to_string()).iter().map(|byte| format!("{byte:02x}")).collect()
    }
}

/// Returns why an id is not safe to use as a file name, or `None` if it is.
pub(crate) fn unsafe_id(id: &str) -> Option<String> {
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    let why = if id.is_empty() {
        "is empty".to_owned()
    } else if id.len() > MAX_ID_BYTES {
        format!("is longer than {MAX_ID_BYTES} bytes")
    } else if let Some(c) = id.chars().find(|c| !allowed(*c)) {
        format!("contains {c:?}")
    } else if id.starts_with(['.', '-']) || id.ends_with('.') {
        "starts with a dot or a dash, or ends with a dot".to_owned()
    } else {
        return None;
    };
    Some(format!(
        "the id {id:?} {why}; ids become file names and may contain letters, digits, `.`, `_` and `-`"
    ))
}
