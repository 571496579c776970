//! The `finish` tool, which the model calls when it is done. The machine decides whether to accept
//! the call.

use async_trait::async_trait;
use schemars::JsonSchema;
use serde::Deserialize;
use tool_api::{Aliases, Effect, Outcome, Spec, Take, ToolError, TypedTool};

const ALIASES: &Aliases = &Aliases {
    tools: "attempt_completion task_complete task_completed complete_task mark_complete finish_task \
        task_done submit_answer final_answer",
    words: "complete completed finished done submit exit stop terminate",
    arguments: &[
        (
            "result results message answer final_answer text output response content conclusion \
                description outputs",
            Take::As("summary"),
        ),
        (
            "status success task_completed completed done final",
            Take::Only(
                "true success successful succeeded complete completed done finished ok",
                "finish means that the task is done; if it is not, continue",
            ),
        ),
        // Other agents define this argument as a command that shows the result to a person.
        ("command", Take::LeftOut),
    ],
    convert: None,
};

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
impl TypedTool for Finish {
    type Arguments = Arguments;

    fn spec(&self) -> Spec {
        let spec = Spec::of::<Arguments>("finish", "the task is done", Effect::Read);
        Spec { aliases: ALIASES, finishes: true, ..spec }
    }

    async fn call(&self, arguments: Arguments) -> Result<Outcome, ToolError> {
        Ok(Outcome::ok(arguments.summary.unwrap_or_default()))
    }
}
