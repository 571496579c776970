//! What a tool is: its schema, its effect, its outcome; and the registry that judges and dispatches calls.
//!
//! A tool is a type with an argument struct. The struct's JSON Schema (by `schemars`, from its doc comments) is what the model is
//! shown and what its calls are validated against, so the two cannot drift apart. A tool holds what it works on (a workspace, a
//! sandbox) from its construction; a call carries arguments only.

pub mod aliases;
pub mod control_tokens;
mod registry;
mod schema;

pub use aliases::{Aliases, Convert, Take};
pub use registry::{Accepted, Refusal, RefusalKind, Registry, Spec};

use async_trait::async_trait;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::{Map, Value};

/// What a call may do to the world. Reads may run beside each other and beside the stream; the others run alone and in order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Effect {
    /// Looks only.
    Read,
    /// Changes files of the work tree.
    Write,
    /// Runs a command.
    Execute,
}

/// How a call ended, as the model is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    /// It did what was asked.
    Ok,
    /// It ran and the answer is bad news (tests fail, a command exits non-zero).
    Failed,
    /// It was not carried out; the text says why and what would have been right.
    Refused,
}

/// The answer to one call.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Outcome {
    /// How it ended.
    pub status: Status,
    /// What the model reads.
    pub text: String,
    /// Paths that were written, created or deleted, relative to the repository, with `/`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub changed: Vec<String>,
    /// Facts for programs (test counts, exit codes); null where there are none.
    #[serde(default, skip_serializing_if = "Value::is_null")]
    pub facts: Value,
}

impl Outcome {
    /// A success with this text.
    pub fn ok(text: impl Into<String>) -> Self {
        Self { status: Status::Ok, text: text.into(), changed: Vec::new(), facts: Value::Null }
    }

    /// Something ran and failed.
    pub fn failed(text: impl Into<String>) -> Self {
        Self { status: Status::Failed, ..Self::ok(text) }
    }
}

/// The two kinds of tool error, and nothing in between.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ToolError {
    /// The model asked for something that cannot be; it reads this sentence and tries again.
    #[error("{0}")]
    Model(String),
    /// Our own side failed (a sandbox that does not start, a full disk); the run stops.
    #[error("{0}")]
    Run(String),
}

/// Follows one call while the texts in its arguments are being written.
pub trait Follow: Send {
    /// More of the text at `path` (`patch`, `edits/0/search`); `closed` when it is complete. `Err` is a sentence for the model: the call cannot
    /// succeed, whatever follows. It must be one that would be refused when whole. Nothing is fed after that.
    ///
    /// # Errors
    /// See above.
    fn text(&mut self, path: &str, text: &str, closed: bool) -> Result<(), String>;
}

/// A tool with typed arguments.
#[async_trait]
pub trait Tool: Send + Sync + 'static {
    /// The arguments; doc comments on its fields are what the model reads. Use `#[serde(deny_unknown_fields)]`.
    type Arguments: DeserializeOwned + JsonSchema + Send;
    /// The name in `{"tool": NAME, …}`.
    const NAME: &'static str;
    /// One sentence for the model.
    const DESCRIPTION: &'static str;
    /// What a call may do.
    const EFFECT: Effect;
    /// What other agents call the tool and its arguments.
    const ALIASES: &'static Aliases = Aliases::NONE;

    /// Judges one argument as soon as it is complete, while the rest is still being written. `Err` says what would have been right.
    /// Called with values that already fit the schema. Must be quick and must not change anything.
    fn check(&self, _name: &str, _value: &Value) -> Result<(), String> {
        Ok(())
    }

    /// What follows a call of this tool while its texts are being written, if it wants to; once for each call.
    fn follow(&self) -> Option<Box<dyn Follow>> {
        None
    }

    /// The call that a whole answer without one stands for: its arguments, or a sentence for the model on how to send the call that was
    /// meant. `None` for an answer that means nothing to the tool. The text comes without the model's reasoning.
    fn whole_answer(&self, _text: &str) -> Option<Result<Value, String>> {
        None
    }

    /// The call of another tool that a call of this one stands for, by that tool's name: a shell command that is nothing but a patch.
    /// `None` for a call of its own. The arguments have the tool's own names, and are not judged yet.
    ///
    /// # Errors
    /// A sentence for the model: the call means another tool, and cannot be one as it stands.
    fn instead(&self, _arguments: &Map<String, Value>) -> Result<Option<(&'static str, Value)>, String> {
        Ok(None)
    }

    /// Carries the call out.
    async fn call(&self, arguments: Self::Arguments) -> Result<Outcome, ToolError>;
}
