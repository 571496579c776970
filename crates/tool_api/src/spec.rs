//! Describes a tool as data. The model is shown part of the description; the registry and the
//! planner use the rest.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::{Aliases, schema};

/// The effect that a call may have. Reads may run concurrently, even while the answer is still
/// streaming. Calls with any other effect run alone and in order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Effect {
    /// Only reads.
    Read,
    /// Changes files in the work tree.
    Write,
    /// Runs a command.
    Execute,
}

/// A tool's name, schema and capabilities.
#[derive(Debug, Clone)]
pub struct Spec {
    /// The name in `{"tool": NAME, …}`.
    pub name: String,
    /// One sentence for the model.
    pub description: String,
    /// The effect that a call may have.
    pub effect: Effect,
    /// The JSON Schema that arguments are validated against.
    pub schema: Value,
    /// The part of the schema that the model is shown.
    pub shown: Value,
    /// The names that other agents use for the tool and its arguments.
    pub aliases: &'static Aliases,
    /// Whether [`Tool::follow`](crate::Tool::follow) follows the text of a call while it is being
    /// written.
    pub follows: bool,
    /// Whether a call signals that the task is done.
    pub finishes: bool,
    /// Whether an interrupted call can be run again. If not, the model is told that the call was
    /// interrupted.
    pub repeatable: bool,
    /// For a tool that verifies the work tree, the argument that specifies another command to run
    /// instead of the verification. Files that a verification leaves behind (caches, reports) are
    /// not counted as changes.
    pub verifies_without: Option<&'static str>,
    /// The argument whose first line is used as the title in the heading of a call's result.
    pub titled_by: Option<&'static str>,
    /// The arguments that a call uses to write a whole file.
    pub whole_file: Option<WholeFile>,
    /// The argument that takes a patch as text.
    pub patch: Option<&'static str>,
}

/// The arguments of a call that writes a whole file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WholeFile {
    /// The argument with the file's path.
    pub path: &'static str,
    /// The argument with the file's content.
    pub content: &'static str,
}

impl Spec {
    /// Creates the spec of a tool with this schema and no optional capabilities.
    #[must_use]
    pub fn new(
        name: impl Into<String>,
        description: impl Into<String>,
        effect: Effect,
        schema: Value,
    ) -> Self {
        Self {
            name: name.into(),
            description: description.into(),
            effect,
            shown: schema::shown(&schema),
            schema,
            aliases: Aliases::NONE,
            follows: false,
            finishes: false,
            repeatable: false,
            verifies_without: None,
            titled_by: None,
            whole_file: None,
            patch: None,
        }
    }

    /// Creates the spec of a tool whose arguments are of this type. The type's schema comes from
    /// its fields and their doc comments.
    #[must_use]
    pub fn of<A: JsonSchema>(
        name: impl Into<String>,
        description: impl Into<String>,
        effect: Effect,
    ) -> Self {
        Self::new(name, description, effect, schema::of::<A>())
    }

    /// Creates the spec of a tool when only its name is known, for example from a session recorded
    /// by another version. Calls to the tool may have any effect.
    #[must_use]
    pub fn unknown(name: &str) -> Self {
        Self::new(name, "", Effect::Execute, json!({}))
    }

    /// Returns the shown schema as text for the prompt. Every byte costs prompt tokens on every
    /// task.
    #[must_use]
    pub fn shown_schema(&self) -> String {
        self.shown.to_string()
    }

    /// Whether a call with these arguments verifies the work tree.
    #[must_use]
    pub fn verifies(&self, arguments: &Value) -> bool {
        self.verifies_without.is_some_and(|argument| arguments[argument].is_null())
    }

    /// Returns the arguments of a call that writes this content to a file, or `None` if the tool
    /// cannot do that.
    #[must_use]
    pub fn write_file(&self, path: &str, content: &str) -> Option<Value> {
        let names = self.whole_file?;
        Some(json!({ names.path: path, names.content: content }))
    }

    /// Returns the path and the content of the whole file that a call with these arguments writes.
    #[must_use]
    pub fn written_file<'a>(&self, arguments: &'a Value) -> Option<(&'a str, &'a str)> {
        let names = self.whole_file?;
        arguments[names.path].as_str().zip(arguments[names.content].as_str())
    }
}
