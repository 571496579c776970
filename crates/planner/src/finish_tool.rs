//! `finish`: how the model says that it is done. The machine decides whether that is accepted.

use async_trait::async_trait;
use schemars::JsonSchema;
use serde::Deserialize;
use tool_api::{Effect, Outcome, Tool, ToolError};

/// The `finish` tool.
pub struct Finish;

/// Arguments of `finish`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Arguments {
    /// one sentence on what was done
    pub summary: Option<String>,
}

#[async_trait]
impl Tool for Finish {
    type Arguments = Arguments;
    const NAME: &'static str = "finish";
    const DESCRIPTION: &'static str = "the task is done";
    const EFFECT: Effect = Effect::Read;

    async fn call(&self, arguments: Arguments) -> Result<Outcome, ToolError> {
        Ok(Outcome::ok(arguments.summary.unwrap_or_default()))
    }
}
