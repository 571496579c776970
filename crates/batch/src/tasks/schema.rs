//! The JSON Schema of a task in our own formats, for editors.

#![expect(dead_code, reason = "the types only describe a task; `fields` reads it, with better messages")]

use std::collections::BTreeMap;
use std::num::{NonZeroU32, NonZeroU64};

use schemars::{JsonSchema, schema_for};
use serde_json::Value;

/// Returns the JSON Schema of one task, as committed in `tasks.schema.json`.
#[must_use]
pub fn schema() -> Value {
    schema_for!(TaskObject).to_value()
}

/// A task for `agent batch`: a line of a JSON Lines file, an item of a YAML list, a `[[tasks]]`
/// table of a TOML file, or the front matter of a Markdown file. In Markdown, the text below the
/// front matter is the task.
#[derive(JsonSchema)]
#[schemars(rename = "Task", deny_unknown_fields)]
struct TaskObject {
    /// Unique in the file. In Markdown, the default is the file name.
    #[schemars(length(max = 128), regex(pattern = r"^[A-Za-z0-9_]([A-Za-z0-9._-]*[A-Za-z0-9_-])?$"))]
    id: Option<String>,
    /// The repository: a folder or bundle file, relative to the task file, or a URL to clone.
    repo: String,
    /// The commit to start from.
    #[schemars(extend("default" = "HEAD"))]
    base_commit: Option<String>,
    /// What to do.
    task: Option<String>,
    /// The command that prepares a worktree before the agent starts.
    setup: Option<String>,
    /// The command that decides whether the task is done.
    verify: Option<String>,
    /// Patterns of files that the agent must not change.
    protected: Option<Vec<String>>,
    /// Limits for this task.
    limits: Option<Limits>,
    /// The maximum number of tries in one session.
    #[schemars(range(min = 1, max = 20))]
    attempts: Option<u32>,
    /// The model for this task.
    model: Option<String>,
    /// Words to select tasks by.
    tags: Option<Vec<String>>,
    /// Repeats the task for each item of this list. An item is a set of variables. `{{name}}` in
    /// any of the task's strings is replaced with the value of the `name` variable.
    #[schemars(length(min = 1))]
    r#for: Option<Vec<BTreeMap<String, Variable>>>,
}

#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
struct Limits {
    /// Requests answered by the model.
    max_turns: Option<NonZeroU32>,
    /// Prompt and generated tokens.
    max_tokens: Option<NonZeroU64>,
    /// Wall-clock seconds.
    max_seconds: Option<NonZeroU64>,
    /// Dollars.
    #[schemars(extend("exclusiveMinimum" = 0))]
    max_cost: Option<f64>,
}

#[derive(JsonSchema)]
#[schemars(untagged)]
enum Variable {
    Text(String),
    Number(f64),
}

#[cfg(test)]
mod tests {
    use super::super::{fields, template};
    use super::*;

    #[test]
    fn the_schema_has_the_keys_that_are_read() {
        let schema = schema();
        let keys = |at: &str| -> Vec<String> {
            schema.pointer(at).unwrap().as_object().unwrap().keys().cloned().collect()
        };
        assert_eq!(keys("/properties"), [fields::KEYS, &[template::KEY]].concat());
        assert_eq!(keys("/$defs/Limits/properties"), fields::LIMITS);
    }

    #[test]
    fn the_committed_schema_is_current() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tasks.schema.json");
        let committed: Value = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
        assert_eq!(
            committed,
            schema(),
            "stale: cargo run -p batch --example tasks_schema > crates/batch/tasks.schema.json"
        );
    }
}
