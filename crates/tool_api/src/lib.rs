//! Defines tools (their schemas, effects and outcomes) and the registry that validates and
//! dispatches calls.
//!
//! The [`Tool`] trait is object-safe, so tools can be added at run time and wrapped: masking and
//! replay are implemented as tools that wrap other tools. Most tools implement [`TypedTool`]: their
//! arguments are a Rust type, and the JSON Schema is derived from that type. A tool holds the
//! workspace or the sandbox that it works on; a call carries only arguments.
//!
//! Everything that the planner needs to know about a tool is a field of its [`Spec`]. The planner
//! never compares tool names.

pub mod aliases;
mod incoming;
mod registry;
mod schema;
mod spec;
mod typed;

use std::any::Any;
use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

pub use aliases::{Aliases, Convert, Take};
pub use incoming::{Accepted, Incoming, Refusal, RefusalKind};
pub use registry::{RegisterError, Registry};
pub use spec::{Effect, Spec, WholeFile};
pub use typed::TypedTool;

/// The field in an outcome's facts that repeats the inspection findings from its text.
const INSPECTION: &str = "inspection";

/// How a call ended. The model is told this.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    /// The call did what was asked.
    Ok,
    /// The call ran, but its result is negative (tests fail, a command exits with a nonzero code).
    Failed,
    /// The call was not carried out. The text says why, and what would have been right.
    Refused,
}

/// The answer to one call.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Outcome {
    /// How the call ended.
    pub status: Status,
    /// What the model reads.
    pub text: String,
    /// Paths that were written, created or deleted, relative to the repository, with `/`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub changed: Vec<String>,
    /// Facts for programs (test counts, exit codes); null if there are none.
    #[serde(default, skip_serializing_if = "Value::is_null")]
    pub facts: Value,
}

impl Outcome {
    /// Creates a successful outcome with this text.
    pub fn ok(text: impl Into<String>) -> Self {
        Self { status: Status::Ok, text: text.into(), changed: Vec::new(), facts: Value::Null }
    }

    /// Appends the findings of an inspection of the changes, such as errors reported by a language
    /// server. A replay takes the findings from the record (see [`Self::inspection`]), because they
    /// depend on programs outside the agent.
    #[must_use]
    pub fn with_inspection(mut self, text: &str) -> Self {
        self.text = format!("{}\n{text}", self.text);
        self.facts[INSPECTION] = text.into();
        self
    }

    /// Returns the findings of an inspection of the changes, if there are any.
    #[must_use]
    pub fn inspection(&self) -> Option<&str> {
        self.facts[INSPECTION].as_str()
    }

    /// Creates a failed outcome with this text: the call ran, but its result is negative.
    pub fn failed(text: impl Into<String>) -> Self {
        Self { status: Status::Failed, ..Self::ok(text) }
    }
}

/// The two kinds of tool error.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ToolError {
    /// The model asked for something that cannot be done. It reads this sentence and tries again.
    #[error("{0}")]
    Model(String),
    /// The agent itself failed (for example, the sandbox did not start or the disk was full). The
    /// run stops.
    #[error("{0}")]
    Run(String),
}

/// Information about a call besides its arguments: whether the agent itself makes the call, and a
/// value that the tool parsed while validating the call. The value is kept so that the tool does
/// not have to parse it again.
#[derive(Clone, Default)]
pub struct Parsed {
    value: Option<Arc<dyn Any + Send + Sync>>,
    own: bool,
}

impl Parsed {
    /// Keeps a value, replacing any earlier one.
    pub fn keep<T: Send + Sync + 'static>(&mut self, value: Arc<T>) {
        self.value = Some(value);
    }

    /// Returns the kept value, if it has this type.
    #[must_use]
    pub fn get<T: Send + Sync + 'static>(&self) -> Option<Arc<T>> {
        self.value.clone()?.downcast().ok()
    }

    /// Marks a call as one that the agent makes itself, so that no model reads its result.
    #[must_use]
    pub fn own() -> Self {
        Self { own: true, ..Self::default() }
    }

    /// Whether the agent makes the call itself.
    #[must_use]
    pub fn is_own(&self) -> bool {
        self.own
    }
}

impl fmt::Debug for Parsed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Parsed").field("kept", &self.value.is_some()).field("own", &self.own).finish()
    }
}

/// Follows a call while the text in its arguments is being written.
pub trait Follow: Send {
    /// Receives more of the text at `path` (`patch`, `edits/0/search`). `closed` means that the
    /// text is complete. Not called again after an error.
    ///
    /// # Errors
    /// Fails, with a sentence for the model, if the call cannot succeed, no matter what follows.
    /// The tool must then also refuse the complete call.
    fn text(&mut self, path: &str, text: &str, closed: bool) -> Result<(), String>;
}

/// A tool. Every error of type `String` is a sentence that tells the model how to correct the call.
#[async_trait]
pub trait Tool: Send + Sync {
    /// Returns the tool's name, schema and capabilities.
    fn spec(&self) -> &Spec;

    /// Validates one argument as soon as it is complete, while the rest of the call is still being
    /// written, and again when the call is complete. Receives only values that conform to the
    /// schema. Must be quick and must not change anything.
    ///
    /// # Errors
    /// Fails if the call cannot be carried out with this value.
    fn judge_field(&self, _name: &str, _value: &Value, _parsed: &mut Parsed) -> Result<(), String> {
        Ok(())
    }

    /// Validates a complete call whose arguments conform to the schema.
    ///
    /// # Errors
    /// Fails if the call cannot be carried out.
    fn judge(&self, _arguments: &Value, _parsed: &mut Parsed) -> Result<(), String> {
        Ok(())
    }

    /// Returns an object that follows a call while its text is being written. Called once for each
    /// call that is opened. Only a tool with [`Spec::follows`] receives text.
    fn follow(&self) -> Option<Box<dyn Follow>> {
        None
    }

    /// If an answer contains no call, interprets the answer itself as a call to this tool. Returns
    /// the arguments of the call, or an error that tells the model how to send it properly. Returns
    /// `None` if the answer means nothing to the tool. The text does not include the model's
    /// reasoning.
    fn whole_answer(&self, _text: &str, _parsed: &mut Parsed) -> Option<Result<Value, String>> {
        None
    }

    /// Returns the patch if the call does nothing but apply one, for example if it runs
    /// `apply_patch` in a shell. The patch then goes to the tool that has [`Spec::patch`], and this
    /// tool is not called. The argument names are those in this tool's schema, but the values have
    /// not been checked yet.
    ///
    /// # Errors
    /// Fails if the call tries to apply a patch but does not contain a usable one.
    fn patch_instead(&self, _arguments: &Map<String, Value>) -> Result<Option<String>, String> {
        Ok(None)
    }

    /// Carries out a call. `parsed` holds the value that the tool kept while validating these
    /// arguments, if any.
    ///
    /// # Errors
    /// See [`ToolError`].
    async fn call(&self, arguments: Value, parsed: Parsed) -> Result<Outcome, ToolError>;
}
