//! The events of a session: the format that the journal, `--json` and every view share.

use jiff::civil::Date;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::Ending;

/// The version of the format. Incremented whenever an old reader would misread new lines.
pub const VERSION: u32 = 1;

/// One line of a journal.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Record {
    /// Format version.
    pub v: u32,
    /// Zero-based position in the session, without gaps.
    pub seq: u64,
    /// Milliseconds since the Unix epoch.
    pub time_ms: u64,
    /// What happened.
    #[serde(flatten)]
    pub event: Event,
}

/// Where a run makes its changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    /// In the repository itself.
    Run,
    /// In a copy or overlay; the repository stays unchanged.
    DryRun,
    /// Nowhere: the run answers a question.
    Ask,
}

/// How a dry run creates the tree that it works in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum TreeWay {
    /// Overlayfs: nothing is copied.
    Overlay,
    /// A copy that shares blocks with the original.
    Reflinks,
    /// A plain copy.
    Copy,
}

/// Returns the tools from other programs, as listed in the session's prompt.
#[must_use]
pub fn external_tools(records: &[Record]) -> &[ExternalTool] {
    let tools = records.iter().rev().find_map(|record| match &record.event {
        Event::ExternalTools { tools } => Some(tools.as_slice()),
        _ => None,
    });
    tools.unwrap_or_default()
}

/// The author of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// The fixed instructions.
    System,
    /// The task, tool results and later messages from the user.
    User,
    /// The model.
    Assistant,
}

/// A tool provided by another program, as shown in the session's prompt.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ExternalTool {
    /// The name of the server.
    pub server: String,
    /// The server's own name for the tool.
    pub tool: String,
    /// A digest of the server's definition of the tool.
    pub digest: String,
    /// What the model is told about the tool.
    pub description: String,
    /// The JSON Schema of its arguments.
    pub schema: Value,
    /// Whether the user declared the tool read-only. Otherwise, a call may have any effect.
    pub reads: bool,
}

/// The properties of a session's model, recorded when the model was opened.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ModelInfo {
    /// The kind of server (`ollama`, `deepseek`, `llama-server`, …).
    pub server: String,
    /// The server's version, if reported.
    pub server_version: Option<String>,
    /// The model's name.
    pub model: String,
    /// Context window in tokens, if known.
    pub window: Option<u64>,
    /// Whether thinking is enabled.
    pub thinking: bool,
    /// Whether tool calls are constrained to the tools' schemas.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub constrained: bool,
    /// How the model works on the task: `tools` or `whole-file`. In old sessions, this field is
    /// called `dialect`, and `json` means `tools`.
    #[serde(alias = "dialect")]
    pub approach: String,
    /// Why this model was chosen, in one line.
    pub why: String,
    /// The model's family or architecture, if reported.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub family: Option<String>,
    /// Number of parameters, in billions, if reported.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parameters_b: Option<f32>,
    /// Whether the model runs on this machine or the local network.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub local: Option<bool>,
    /// Dollars per million tokens (prompt, cached prompt, generated), if known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub price: Option<(f64, f64, f64)>,
    /// The price multiplier at peak times (see [`Event::Request`]), if there are any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub peak_factor: Option<f64>,
    /// The date of the price (`YYYY-MM-DD`), if known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>")]
    pub prices_of: Option<Date>,
    /// The edit format that suits the model, if its profile specifies one. A setting overrides it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub edit_format: Option<String>,
    /// The setting that specifies the model; absent if the model is the session's first choice.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub role: Option<ModelRole>,
}

/// A setting that specifies a model other than the session's first choice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ModelRole {
    /// The `escalate` setting, whose model makes the final try.
    Escalate,
    /// The `fallback` setting, whose model replaces one that is unavailable.
    Fallback,
}

/// The token counts and times of one request. A value is null if the server did not report it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Counts {
    /// Total prompt tokens.
    pub prompt_tokens: Option<u64>,
    /// Prompt tokens that did not come from the server's cache.
    pub evaluated_tokens: Option<u64>,
    /// Generated tokens, including thinking. If the stream was cut off before the server reported
    /// them, this is the number of chunks.
    pub generated_tokens: Option<u64>,
    /// Milliseconds from sending the request to the first token.
    pub first_token_ms: Option<u64>,
    /// Milliseconds from sending the request to the end of the answer.
    pub total_ms: u64,
}

/// A position where the model almost chose another token.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Doubt {
    /// Byte offset in the answer.
    pub at: u64,
    /// The chosen token.
    pub chosen: String,
    /// The alternative token.
    pub other: String,
    /// The log probability of the alternative.
    pub logprob: f32,
}

/// Why an answer ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum EndedBy {
    /// The model ended the answer.
    Stop,
    /// The answer reached the token limit.
    Length,
    /// The agent cut the answer short.
    Cut,
}

/// Why the agent cut a generation short.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum CutReason {
    /// A call was complete.
    Call,
    /// A call was refused while it was being streamed.
    Refused,
    /// The model repeated the same text.
    Repetition,
    /// The model wrote endless whitespace.
    Whitespace,
    /// The model was writing an unchanged file.
    Unchanged,
    /// The requested line was complete.
    Line,
    /// The run was stopped.
    Stopped,
}

/// The result of a verification.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Check {
    /// The command, as typed in a shell.
    pub command: String,
    /// Whether it passed.
    pub passed: bool,
    /// The counts and failures that the command reported, as the model sees them.
    pub text: String,
    /// The same counts and failures, as data.
    #[serde(default, skip_serializing_if = "Value::is_null")]
    pub facts: Value,
    /// The duration in milliseconds.
    pub ms: u64,
}

/// The changes of a run.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Diff {
    /// Files changed, created or deleted.
    pub files: Vec<String>,
    /// Lines added.
    pub added: u64,
    /// Lines removed.
    pub removed: u64,
    /// The patch, in the format of `git apply`.
    pub patch: String,
}

/// The totals of a session.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Totals {
    /// Answered requests.
    pub turns: u32,
    /// Prompt tokens, as counted by the server or estimated. Includes requests whose answer was cut
    /// off.
    pub prompt_tokens: u64,
    /// Prompt tokens that did not come from the server's cache. Absent unless the server reported
    /// the number for every request.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub evaluated_tokens: Option<u64>,
    /// Generated tokens.
    pub generated_tokens: u64,
    /// Estimated number of tokens saved by cutting refused calls short, based on the length of
    /// similar calls.
    pub saved_tokens: u64,
    /// Bytes of text saved by cutting refused calls short, estimated like `saved_tokens`.
    #[serde(default)]
    pub saved_bytes: u64,
    /// Dollars, if prices are known.
    pub cost: Option<f64>,
    /// The date of the prices (`YYYY-MM-DD`); the oldest date if there are several.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>")]
    pub prices_of: Option<Date>,
    /// Wall-clock milliseconds.
    pub ms: u64,
}

/// Formats an amount in dollars, with the date of the prices used to compute it.
#[must_use]
pub fn dollars(amount: f64, prices_of: Option<Date>) -> String {
    let of = prices_of.map_or_else(String::new, |date| format!(" (prices as of {date})"));
    format!("${amount:.4}{of}")
}

/// The usage of one model in a session that used several models.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ModelTotals {
    /// The kind of server.
    pub server: String,
    /// The model's name.
    pub model: String,
    /// The setting that specifies the model; absent if the model is the session's first choice.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub role: Option<ModelRole>,
    /// Answered requests.
    pub turns: u32,
    /// Prompt tokens, as in [`Totals`].
    pub prompt_tokens: u64,
    /// Generated tokens.
    pub generated_tokens: u64,
    /// Dollars, if the model's prices are known.
    pub cost: Option<f64>,
}

/// The outcome of a run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Report {
    /// How the run ended.
    pub ending: Ending,
    /// A one-sentence, human-readable message.
    pub message: String,
    /// What the run changed, computed from the tree.
    pub diff: Diff,
    /// The totals of the session.
    pub totals: Totals,
    /// The usage of each model, in the order of first use. Absent if only one model was used.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub models: Vec<ModelTotals>,
    /// What the model passed to `finish`: the answer to a question as text, or an object that
    /// conforms to the `--output-schema` schema. Absent if neither was requested or provided.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub result: Option<Value>,
}

impl Report {
    /// Creates a report for a run that changed nothing and sent no requests.
    pub fn new(ending: Ending, message: impl Into<String>) -> Self {
        let (diff, totals) = (Diff::default(), Totals::default());
        Self { ending, message: message.into(), diff, totals, models: Vec::new(), result: None }
    }
}

/// An event of a session.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum Event {
    /// The first event: the task and the repository.
    Session {
        /// The session's id.
        id: String,
        /// The first session in a chain of forks. The conversation uses that session's placeholders
        /// for secrets.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        forked_from: Option<String>,
        /// The agent's version.
        version: String,
        /// The task.
        task: String,
        /// The repository.
        root: String,
        /// Whether the run changes the repository or a copy.
        mode: Mode,
        /// Settings that differ from the defaults, without secrets. A resumed run uses them.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        settings: Vec<(String, String)>,
        /// Patterns that match the files to be restored to their original state before every
        /// command.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        protected: Vec<String>,
        /// The JSON Schema of the result that the model must return.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        output_schema: Option<Value>,
        /// The images of the task: the names of files in the session's `images` folder. Each name
        /// is the image's SHA-256 digest followed by an extension.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        images: Vec<String>,
    },
    /// The tree of a dry run is about to be created.
    Tree {
        /// How the tree is created.
        way: TreeWay,
        /// Number of files to copy.
        #[serde(default, skip_serializing_if = "is_zero")]
        files: u64,
        /// Total size of these files, in bytes. The copies use disk space only if they do not share
        /// blocks with the originals.
        #[serde(default, skip_serializing_if = "is_zero")]
        bytes: u64,
        /// Why the tree is not an overlay.
        #[serde(default, skip_serializing_if = "String::is_empty")]
        why: String,
    },
    /// The sandbox was probed. From here on, commands are confined as this event describes.
    Sandbox {
        /// Whether commands are confined.
        enforced: bool,
        /// How commands are confined, and what the sandbox does not prevent, in one line.
        summary: String,
        /// The same information in full sentences.
        lines: Vec<String>,
    },
    /// The tools from other programs that are listed in the prompt. They stay the same for the
    /// whole session, even if it is resumed or replayed.
    ExternalTools {
        /// The tools, in the order they appear in the prompt.
        tools: Vec<ExternalTool>,
    },
    /// The model was opened, either at the start of the run or to replace the previous model when
    /// the run was resumed.
    Model(ModelInfo),
    /// The run started with this plan, which is also used to resume it.
    #[serde(rename = "begun")]
    RunStarted {
        /// The plan, in the planner's own format.
        plan: Value,
    },
    /// The run continues with another model.
    ModelChanged {
        /// The turn.
        turn: u32,
        /// Why.
        why: String,
        /// Whether the model starts a new try, which resets the limits. Otherwise, it continues the
        /// conversation.
        new_try: bool,
        /// The model's properties when it was opened.
        model: ModelInfo,
        /// The plan to continue with, like that of [`Event::RunStarted`].
        plan: Value,
    },
    /// A request exceeded the context window.
    Overflow {
        /// The turn.
        turn: u32,
        /// The window, if the server reported it.
        window: Option<u64>,
    },
    /// The model's context window differs from the assumed one.
    Window {
        /// The turn after which the difference was detected.
        turn: u32,
        /// The window in tokens.
        tokens: u64,
    },
    /// Another process resumed the run. The incomplete work before this event no longer counts.
    Resumed {
        /// The agent's version.
        version: String,
        /// Files that the session changed and that somebody else has modified since.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        changed: Vec<String>,
        /// The user's message to the resumed session. [`Event::UserMessage`] follows when the
        /// message is added to the conversation.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        message: Option<String>,
    },
    /// A message from the user, sent during or after the run. The conversation continues with it,
    /// and the limits are reset.
    UserMessage {
        /// The message.
        text: String,
    },
    /// A message was added to the conversation. Answers are added by `Output`.
    Message {
        /// Its author.
        role: Role,
        /// Its text.
        content: String,
        /// Its images, as in `session`.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        images: Vec<String>,
    },
    /// The conversation was cut back to its first messages, for a fresh start or to fit the window.
    Rewound {
        /// The number of messages kept.
        keep: u32,
        /// Why.
        why: String,
    },
    /// A try at the task ended without a passing verification. [`Event::Reverted`] follows unless
    /// the changes of the try are kept.
    TryEnded {
        /// Its last turn.
        turn: u32,
        /// Its 1-based number.
        number: u32,
        /// How many tries the run may make.
        of: u32,
        /// How the run would have ended if this had been its only try.
        ending: Ending,
        /// Why.
        message: String,
        /// The number of failing tests, if the verification reports it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        failing: Option<u64>,
        /// The number of lines added and removed.
        lines: u64,
    },
    /// Changes were reverted. Between tries, the changes of the previous try are reverted. At the
    /// end, the best try is restored by reverting the record that reverted it, along with all later
    /// records. When a run is stopped, a candidate that has not been verified yet is reverted, and
    /// so is a try that is not known to be better than the best earlier one. A resumed run undoes
    /// this revert.
    Reverted {
        /// The turn.
        turn: u32,
        /// The first of the reverted records in the tree's history.
        from: u64,
        /// The revert's own record in the history, if it changed anything.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        record: Option<u64>,
    },
    /// A request with all messages so far is about to be sent.
    Request {
        /// The 1-based turn number.
        turn: u32,
        /// The 1-based attempt number.
        attempt: u32,
        /// The number of messages.
        messages: u32,
        /// Estimated prompt tokens.
        estimated_tokens: u64,
        /// Sampling temperature, if set.
        temperature: Option<f32>,
        /// Sampling seed, if set.
        seed: Option<u64>,
        /// Maximum number of tokens to generate.
        max_tokens: u32,
        /// Whether the request is sent while peak prices apply.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        peak: bool,
    },
    /// A request failed and will be retried.
    Retry {
        /// The turn.
        turn: u32,
        /// The error.
        error: String,
        /// The delay before the next attempt, in milliseconds.
        wait_ms: u64,
        /// Whether the server responded that there were too many requests.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        busy: bool,
    },
    /// Reasoning, as it arrives.
    Thinking {
        /// The turn.
        turn: u32,
        /// The next piece of the reasoning.
        text: String,
    },
    /// Text outside of calls, as it arrives.
    Text {
        /// The turn.
        turn: u32,
        /// The next piece of the text.
        text: String,
    },
    /// The model started writing a call.
    CallOpened {
        /// The turn.
        turn: u32,
        /// The call's zero-based number in the turn.
        call: u32,
        /// The tool.
        tool: String,
    },
    /// A call is complete and valid, and will run next.
    Call {
        /// The turn.
        turn: u32,
        /// The call's number in the turn.
        call: u32,
        /// The tool.
        tool: String,
        /// Its arguments, as the tool receives them.
        arguments: Value,
        /// Its byte range in the answer.
        span: (u64, u64),
        /// The repairs that were needed to parse it.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        repairs: Vec<String>,
    },
    /// A call was refused, or an answer that contained no call was.
    Refused {
        /// The turn.
        turn: u32,
        /// The tool, if known.
        tool: Option<String>,
        /// Whether it was refused while the model was still writing it.
        early: bool,
        /// The message for the model.
        message: String,
        /// The estimated number of tokens saved.
        saved_tokens: u64,
    },
    /// The generation was cut short by closing the stream.
    Cut {
        /// The turn.
        turn: u32,
        /// Why.
        why: CutReason,
        /// The length of the answer up to the cut, in bytes.
        at: u64,
    },
    /// The answer, which is added to the conversation.
    Output {
        /// The turn.
        turn: u32,
        /// The exact bytes generated, up to the cut.
        content: String,
        /// Its reasoning.
        #[serde(default, skip_serializing_if = "String::is_empty")]
        thinking: String,
        /// How it ended.
        ended_by: EndedBy,
        /// Positions where the model almost chose another token, if the request asked for
        /// alternatives.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        doubts: Vec<Doubt>,
        /// Counts.
        counts: Counts,
    },
    /// An answer was interrupted or stopped. It is not part of the conversation, but its tokens
    /// were still used.
    AnswerLost {
        /// The turn.
        turn: u32,
        /// Counts.
        counts: Counts,
        /// Whether the counts are estimated because the server did not report them.
        estimated: bool,
    },
    /// A tool is about to run.
    ToolStarted {
        /// The turn.
        turn: u32,
        /// The call's number in the turn.
        call: u32,
        /// The tool.
        tool: String,
        /// `read`, `write` or `execute`.
        effect: String,
    },
    /// A tool finished.
    ToolFinished {
        /// The turn.
        turn: u32,
        /// The call's number in the turn.
        call: u32,
        /// The tool.
        tool: String,
        /// `ok`, `failed` or `refused`.
        status: String,
        /// The text for the model.
        text: String,
        /// Files changed.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        changed: Vec<String>,
        /// Machine-readable facts.
        #[serde(default, skip_serializing_if = "Value::is_null")]
        facts: Value,
        /// The duration in milliseconds.
        ms: u64,
    },
    /// The command run by the current tool or verification has changed files.
    CommandChanged {
        /// The record in the tree's history that lists these files.
        record: u64,
    },
    /// The verification is about to run.
    CheckStarted {
        /// The command.
        command: String,
    },
    /// The verification finished.
    Checked(Check),
    /// The agent intervened: the model repeated a call, or the agent itself wrote to a file.
    Guard {
        /// Its message.
        message: String,
    },
    /// A human-readable warning. The run continues.
    Warning {
        /// Its text.
        message: String,
    },
    /// The last event.
    Finished(Report),
}

impl Event {
    /// Whether the event must be on disk, and not just in the kernel's buffers, before the run
    /// continues.
    #[must_use]
    pub fn precedes_effect(&self) -> bool {
        match self {
            Event::Session { .. }
            | Event::RunStarted { .. }
            | Event::ModelChanged { .. }
            | Event::Resumed { .. }
            | Event::UserMessage { .. }
            | Event::CheckStarted { .. }
            | Event::TryEnded { .. }
            | Event::Finished(_) => true,
            Event::ToolStarted { effect, .. } => effect != "read",
            _ => false,
        }
    }
}

fn is_zero(n: &u64) -> bool {
    *n == 0
}

/// Returns the JSON Schema of a [`Record`], as committed in `events.schema.json`.
#[must_use]
pub fn schema() -> Value {
    schemars::schema_for!(Record).to_value()
}
