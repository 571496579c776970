//! Tools whose arguments are a Rust type.

use std::sync::Arc;

use async_trait::async_trait;
use schemars::JsonSchema;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use crate::{Outcome, Parsed, Spec, Tool, ToolError};

/// A tool whose arguments are a Rust type. [`TypedTool::into_tool`] turns it into a [`Tool`].
///
/// The model is shown the type's JSON Schema, and calls are validated against that schema, so the
/// description and the validation cannot drift apart.
#[async_trait]
pub trait TypedTool: Send + Sync + 'static {
    /// The type of the arguments. The model reads the doc comments of the fields. Use
    /// `#[serde(deny_unknown_fields)]`.
    type Arguments: DeserializeOwned + JsonSchema + Send;

    /// Returns the tool's spec. Start from [`Spec::of`] with [`TypedTool::Arguments`].
    fn spec(&self) -> Spec;

    /// See [`Tool::judge_field`].
    ///
    /// # Errors
    /// Fails with a sentence for the model.
    fn judge_field(&self, _name: &str, _value: &Value) -> Result<(), String> {
        Ok(())
    }

    /// See [`Tool::patch_instead`].
    ///
    /// # Errors
    /// Fails with a sentence for the model.
    fn patch_instead(&self, _arguments: &Map<String, Value>) -> Result<Option<String>, String> {
        Ok(None)
    }

    /// Carries out a call.
    ///
    /// # Errors
    /// See [`ToolError`].
    async fn call(&self, arguments: Self::Arguments) -> Result<Outcome, ToolError>;

    /// Converts the tool into one that can be registered.
    fn into_tool(self) -> Arc<dyn Tool>
    where
        Self: Sized,
    {
        Arc::new(Typed { spec: self.spec(), tool: self })
    }
}

struct Typed<T> {
    spec: Spec,
    tool: T,
}

impl<T: TypedTool> Typed<T> {
    fn read(&self, arguments: Value) -> Result<T::Arguments, String> {
        serde_json::from_value(arguments)
            .map_err(|e| format!("the arguments of {} do not fit: {e}", self.spec.name))
    }
}

#[async_trait]
impl<T: TypedTool> Tool for Typed<T> {
    fn spec(&self) -> &Spec {
        &self.spec
    }

    fn judge_field(&self, name: &str, value: &Value, _parsed: &mut Parsed) -> Result<(), String> {
        self.tool.judge_field(name, value)
    }

    fn judge(&self, arguments: &Value, _parsed: &mut Parsed) -> Result<(), String> {
        self.read(arguments.clone()).map(|_| ())
    }

    fn patch_instead(&self, arguments: &Map<String, Value>) -> Result<Option<String>, String> {
        self.tool.patch_instead(arguments)
    }

    async fn call(&self, arguments: Value, _parsed: Parsed) -> Result<Outcome, ToolError> {
        let arguments = self.read(arguments).map_err(ToolError::Model)?;
        self.tool.call(arguments).await
    }
}
