//! The events of a session: the vocabulary that the journal, `--json` and every view share.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::Ending;

/// The version of the format; it changes when a reader of old lines would misread new ones.
pub const VERSION: u32 = 1;

/// One line of a journal.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Record {
    /// Format version.
    pub v: u32,
    /// Position in the session, from 0, without gaps.
    pub seq: u64,
    /// Milliseconds since the Unix epoch.
    pub time_ms: u64,
    /// What happened.
    #[serde(flatten)]
    pub event: Event,
}

/// How changes are treated.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    /// In the repository itself.
    Run,
    /// In a copy; the repository stays as it is.
    DryRun,
}

/// How a dry run comes by the tree it works in.
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

/// Who said a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// The fixed instructions.
    System,
    /// The task, and what tools answered.
    User,
    /// The model.
    Assistant,
}

/// The model of a session, as found when it was opened.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ModelInfo {
    /// Kind of server (`ollama`, `deepseek`, `llama-server`, …).
    pub server: String,
    /// Its version, where told.
    pub server_version: Option<String>,
    /// The model's name.
    pub model: String,
    /// Context window in tokens, where known.
    pub window: Option<u64>,
    /// Whether thinking is on.
    pub thinking: bool,
    /// How the model works on the task: `tools` or `whole-file`. Old sessions call this field `dialect` and say `json` for `tools`.
    #[serde(alias = "dialect")]
    pub approach: String,
    /// Why this model: one line.
    pub why: String,
    /// Its family or architecture, where told.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub family: Option<String>,
    /// Billions of parameters, where told.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parameters_b: Option<f32>,
    /// Whether it runs on this machine or network.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub local: Option<bool>,
    /// Dollars per million tokens (prompt, cached prompt, generated), where known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub price: Option<(f64, f64, f64)>,
}

/// Counts of one request; null where the server did not tell.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Counts {
    /// Prompt tokens in all.
    pub prompt_tokens: Option<u64>,
    /// Prompt tokens that the server had to evaluate anew.
    pub evaluated_tokens: Option<u64>,
    /// Generated tokens, thinking included; counted by chunks where the stream was cut.
    pub generated_tokens: Option<u64>,
    /// Milliseconds from sending the request to the first token.
    pub first_token_ms: Option<u64>,
    /// Milliseconds from sending the request to its end.
    pub total_ms: u64,
}

/// A place in an answer where the model might have written something else.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Doubt {
    /// Bytes into the answer.
    pub at: u64,
    /// The token there.
    pub chosen: String,
    /// The other token.
    pub other: String,
    /// The logarithm of its probability.
    pub logprob: f32,
}

/// How an answer ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum EndedBy {
    /// The model was done.
    Stop,
    /// The token limit.
    Length,
    /// Our own cut.
    Cut,
}

/// Why a generation was cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum CutReason {
    /// A call was complete.
    Call,
    /// A call was refused while it was being written.
    Refused,
    /// The same text over and over.
    Repetition,
    /// Nothing but white space.
    Whitespace,
    /// Thinking without end.
    Thinking,
    /// The file being written is the one that is there.
    Unchanged,
    /// The line that was asked for is complete.
    Line,
    /// The run is over.
    Stopped,
}

/// The result of a verification.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Check {
    /// The command as a shell would be given it.
    pub command: String,
    /// Whether it passed.
    pub passed: bool,
    /// Counts and failures, as the model reads them.
    pub text: String,
    /// The same for programs.
    #[serde(default, skip_serializing_if = "Value::is_null")]
    pub facts: Value,
    /// How long it took.
    pub ms: u64,
}

/// What a run changed.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Diff {
    /// Files changed, created or deleted.
    pub files: Vec<String>,
    /// Lines added.
    pub added: u64,
    /// Lines removed.
    pub removed: u64,
    /// The patch itself, as `git apply` takes it.
    pub patch: String,
}

/// Sums over a session.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Totals {
    /// Requests answered.
    pub turns: u32,
    /// Prompt tokens sent, as counted by the server or estimated.
    pub prompt_tokens: u64,
    /// Of those, evaluated anew; absent where the server did not tell for every request.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub evaluated_tokens: Option<u64>,
    /// Tokens generated.
    pub generated_tokens: u64,
    /// Tokens that were not generated thanks to cuts of doomed calls: an estimate, from the length of like calls.
    pub saved_tokens: u64,
    /// The same in bytes of the model's text.
    #[serde(default)]
    pub saved_bytes: u64,
    /// Dollars, where prices are known.
    pub cost: Option<f64>,
    /// Wall-clock milliseconds.
    pub ms: u64,
}

/// What happened.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum Event {
    /// The first event: who works on what.
    Session {
        /// The session's id.
        id: String,
        /// The agent's version.
        version: String,
        /// The task.
        task: String,
        /// The repository.
        root: String,
        /// In the repository or in a copy.
        mode: Mode,
        /// Settings that are not as by default, without secrets: by these the run is taken up again.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        settings: Vec<(String, String)>,
    },
    /// A dry run's tree is about to be made.
    Tree {
        /// How.
        way: TreeWay,
        /// Files that are copied.
        #[serde(default, skip_serializing_if = "is_zero")]
        files: u64,
        /// Bytes in them; they take room only where blocks are not shared.
        #[serde(default, skip_serializing_if = "is_zero")]
        bytes: u64,
        /// Why it is no overlay.
        #[serde(default, skip_serializing_if = "String::is_empty")]
        why: String,
    },
    /// The sandbox was tried out: what commands are held by from here on.
    Sandbox {
        /// They are confined.
        enforced: bool,
        /// How, and what is not stopped, in a line.
        summary: String,
        /// The same in sentences.
        lines: Vec<String>,
    },
    /// The model was opened.
    Model(ModelInfo),
    /// What the run was begun with, for the planner that takes it up again.
    Begun {
        /// The planner's own.
        plan: Value,
    },
    /// A request did not fit the window.
    Overflow {
        /// The turn.
        turn: u32,
        /// The window, where the server told.
        window: Option<u64>,
    },
    /// The server runs the model with another window than was thought.
    Window {
        /// The turn after which it was seen.
        turn: u32,
        /// Tokens.
        tokens: u64,
    },
    /// The run was taken up again, by another process. What stands above it and led to nothing was dropped.
    Resumed {
        /// The agent's version.
        version: String,
        /// Files that somebody else has changed meanwhile.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        changed: Vec<String>,
    },
    /// A message joined the conversation. Assistant messages join by `Output`.
    Message {
        /// Who says it.
        role: Role,
        /// What.
        content: String,
    },
    /// The conversation was cut back to its first messages, to begin afresh or to fit the window.
    Rewound {
        /// How many of its messages stay.
        keep: u32,
        /// Why.
        why: String,
    },
    /// A request is about to be sent: all messages so far.
    Request {
        /// The turn, from 1.
        turn: u32,
        /// 1, or more after a retry.
        attempt: u32,
        /// Messages in it.
        messages: u32,
        /// Estimated prompt tokens.
        estimated_tokens: u64,
        /// Sampling temperature, where set.
        temperature: Option<f32>,
        /// Sampling seed, where set.
        seed: Option<u64>,
        /// The most it may generate.
        max_tokens: u32,
    },
    /// A request failed and is sent again.
    Retry {
        /// The turn.
        turn: u32,
        /// What failed.
        error: String,
        /// The pause before the next attempt.
        wait_ms: u64,
    },
    /// Reasoning, as it arrives.
    Thinking {
        /// The turn.
        turn: u32,
        /// A piece of it.
        text: String,
    },
    /// Text outside of calls, as it arrives.
    Text {
        /// The turn.
        turn: u32,
        /// A piece of it.
        text: String,
    },
    /// The model began to write a call.
    CallOpened {
        /// The turn.
        turn: u32,
        /// The call's number in the turn, from 0.
        call: u32,
        /// The tool.
        tool: String,
    },
    /// A call is complete and valid; it is carried out next.
    Call {
        /// The turn.
        turn: u32,
        /// The call's number in the turn.
        call: u32,
        /// The tool.
        tool: String,
        /// Its arguments, as they will be run.
        arguments: Value,
        /// Byte offsets in the answer.
        span: (u64, u64),
        /// What had to be repaired to read it.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        repairs: Vec<String>,
    },
    /// A call, or an answer without one, was refused.
    Refused {
        /// The turn.
        turn: u32,
        /// The tool, where known.
        tool: Option<String>,
        /// Whether it was refused while it was still being written.
        early: bool,
        /// What the model is told.
        message: String,
        /// Tokens not generated, estimated.
        saved_tokens: u64,
    },
    /// The generation was cut by closing the stream.
    Cut {
        /// The turn.
        turn: u32,
        /// Why.
        why: CutReason,
        /// Bytes of the answer up to the cut.
        at: u64,
    },
    /// The answer, which joins the conversation as the assistant's message.
    Output {
        /// The turn.
        turn: u32,
        /// Exactly the bytes emitted, up to the cut.
        content: String,
        /// Its reasoning.
        #[serde(default, skip_serializing_if = "String::is_empty")]
        thinking: String,
        /// How it ended.
        ended_by: EndedBy,
        /// Where the fenced block begins that was taken for the file.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        block: Option<u64>,
        /// Where the model might have written something else, where that was asked for.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        doubts: Vec<Doubt>,
        /// Counts.
        counts: Counts,
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
    /// A tool has run.
    ToolFinished {
        /// The turn.
        turn: u32,
        /// The call's number in the turn.
        call: u32,
        /// The tool.
        tool: String,
        /// `ok`, `failed` or `refused`.
        status: String,
        /// What the model reads.
        text: String,
        /// Files changed.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        changed: Vec<String>,
        /// Facts for programs.
        #[serde(default, skip_serializing_if = "Value::is_null")]
        facts: Value,
        /// How long it took.
        ms: u64,
    },
    /// The command that runs, of a tool or of a verification, has changed files.
    CommandChanged {
        /// The record of the tree's history that tells which and how.
        record: u64,
    },
    /// A verification is about to run.
    CheckStarted {
        /// The command.
        command: String,
    },
    /// A verification has run.
    Checked(Check),
    /// A guard spoke up (equal calls, no progress, an answer without a call).
    Guard {
        /// What it says.
        message: String,
    },
    /// Something a person should know; the run goes on.
    Warning {
        /// What.
        message: String,
    },
    /// The last event.
    Finished {
        /// How it ended.
        ending: Ending,
        /// One sentence for people.
        message: String,
        /// What was changed, taken from the tree.
        diff: Diff,
        /// Sums.
        totals: Totals,
    },
}

impl Event {
    /// Whether the event must be on disk, not just with the kernel, before what it announces happens.
    #[must_use]
    pub fn precedes_effect(&self) -> bool {
        match self {
            Event::Session { .. }
            | Event::Begun { .. }
            | Event::Resumed { .. }
            | Event::CheckStarted { .. }
            | Event::Finished { .. } => true,
            Event::ToolStarted { effect, .. } => effect != "read",
            Event::Tree { .. }
            | Event::Sandbox { .. }
            | Event::Model(_)
            | Event::Overflow { .. }
            | Event::Window { .. }
            | Event::Message { .. }
            | Event::Rewound { .. }
            | Event::Request { .. }
            | Event::Retry { .. }
            | Event::Thinking { .. }
            | Event::Text { .. }
            | Event::CallOpened { .. }
            | Event::Call { .. }
            | Event::Refused { .. }
            | Event::Cut { .. }
            | Event::Output { .. }
            | Event::ToolFinished { .. }
            | Event::CommandChanged { .. }
            | Event::Checked(_)
            | Event::Guard { .. }
            | Event::Warning { .. } => false,
        }
    }
}

fn is_zero(n: &u64) -> bool {
    *n == 0
}

/// The JSON Schema of a [`Record`], as committed in `events.schema.json`.
#[must_use]
pub fn schema() -> Value {
    schemars::schema_for!(Record).to_value()
}
