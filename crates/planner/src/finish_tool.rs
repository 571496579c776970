//! The `finish` tool, which the model calls when it is done. The machine decides whether to accept
//! the call. Its arguments differ if the task is a question or if the user asks for a result that
//! conforms to a JSON Schema.

use std::sync::Arc;

use async_trait::async_trait;
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Value, json};
use tool_api::{Aliases, Effect, Outcome, Parsed, Spec, Take, Tool, ToolError, TypedTool};

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
        // Other agents define this argument as a command that shows the result to the user.
        ("command", Take::LeftOut),
    ],
    convert: None,
};

/// The aliases for a `finish` tool with a user-defined schema. Its arguments have no aliases.
const TOOL_ALIASES: &Aliases = &Aliases { arguments: &[], ..*ALIASES };
/// The aliases for a `finish` tool that takes an answer.
const ANSWER_ALIASES: &Aliases = &Aliases {
    arguments: &[(
        "result results message summary final_answer text output response content conclusion description",
        Take::As("answer"),
    )],
    ..*ALIASES
};

/// The field in an outcome's facts that holds the result passed to `finish`.
pub(crate) const RESULT: &str = "result";

/// Returns the `finish` tool. For a question, it takes the answer as text. With a schema, its
/// arguments are the result.
#[must_use]
pub fn finish_tool(question: bool, schema: Option<&Value>) -> Arc<dyn Tool> {
    match schema {
        Some(schema) => {
            let what =
                if question { "the answer to the question" } else { "the task is done; gives its result" };
            let spec = Spec::new("finish", what, Effect::Read, schema.clone());
            Arc::new(Give { spec: Spec { aliases: TOOL_ALIASES, finishes: true, ..spec } })
        }
        None if question => Answer.into_tool(),
        None => Finish.into_tool(),
    }
}

/// The `finish` tool whose arguments are the result.
struct Give {
    spec: Spec,
}

#[async_trait]
impl Tool for Give {
    fn spec(&self) -> &Spec {
        &self.spec
    }

    async fn call(&self, arguments: Value, _parsed: Parsed) -> Result<Outcome, ToolError> {
        Ok(Outcome { facts: json!({ RESULT: arguments }), ..Outcome::ok("") })
    }
}

/// The `finish` tool that takes the answer to a question.
struct Answer;

/// The arguments of `finish` for a question.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct AnswerArguments {
    /// the complete answer
    answer: String,
}

#[async_trait]
impl TypedTool for Answer {
    type Arguments = AnswerArguments;

    fn spec(&self) -> Spec {
        let spec = Spec::of::<AnswerArguments>("finish", "the answer to the question", Effect::Read);
        Spec { aliases: ANSWER_ALIASES, finishes: true, ..spec }
    }

    async fn call(&self, arguments: AnswerArguments) -> Result<Outcome, ToolError> {
        Ok(Outcome { facts: json!({ RESULT: arguments.answer }), ..Outcome::ok("") })
    }
}

/// The usual `finish` tool.
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
