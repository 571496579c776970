//! Scripted answers: a [`Reply`] is a list of [`Step`]s played in order, with options for its start
//! and end.
//!
//! A reply works in every dialect; the request decides whether it is sent as NDJSON, as server-sent
//! events, or as one object.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::record::Request;

/// One step of an answer. In JSON: `{"text": "…"}`, `{"gate": "name"}`, `{"tool_call": {…}}` and so
/// on.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Step {
    /// Visible text, in token-sized chunks.
    Text(String),
    /// Visible text in exactly these chunks.
    Chunks(Vec<String>),
    /// Reasoning in its own field, in token-sized chunks.
    Thinking(String),
    /// A native tool call.
    ToolCall(Call),
    /// Several tool calls in one chunk.
    ToolCalls(Vec<Call>),
    /// One JSON value as a separate line (NDJSON) or event (SSE).
    Json(Value),
    /// Raw body bytes in one chunk, with no framing except HTTP's.
    Raw(String),
    /// Raw body bytes that need not be UTF-8.
    RawBytes(Vec<u8>),
    /// An SSE comment line (`: text`). Nothing is sent in NDJSON, which has no comments.
    Comment(String),
    /// Wait for `Server::release(name)`.
    Gate(String),
    /// Record the time under this name.
    Mark(String),
    /// Pause. For benchmarks; tests use gates.
    PauseMs(u64),
    /// Send text chunks at regular intervals for some time. For benchmarks.
    Filler {
        /// The total time, in milliseconds.
        ms: u64,
        /// The time between two chunks, in milliseconds.
        every_ms: u64,
    },
    /// An error in the dialect's format inside the stream. Ends the reply without a done marker.
    ErrorLine(String),
    /// Send endlessly until the client disconnects.
    Endless(Endless),
}

/// Endless output.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Endless {
    /// Chunks of this text, such as whitespace or a repeated line.
    Chunks(String),
    /// One endless protocol line.
    Line,
}

/// A tool call.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Call {
    /// The function's name.
    pub name: String,
    /// Its arguments. For OpenAI, where arguments are text, a JSON string is sent unchanged, so
    /// that a test can send broken JSON.
    #[serde(default)]
    pub arguments: Value,
}

/// How the body ends.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum End {
    /// Normally: `done: true`, or a finish reason and `[DONE]`.
    #[default]
    Done,
    /// With a finish reason, but without `[DONE]` (SSE only).
    NoMarker,
    /// Normally at the HTTP level, but without `done: true` or a finish reason.
    Eof,
    /// The connection closes normally in the middle of the body, without the last HTTP chunk.
    Cut,
    /// The connection is reset (RST).
    Reset,
}

/// One scripted answer, built by a chain of method calls. By default, it is sent the way a correct
/// server would send it.
///
/// ```
/// use fake_model::Reply;
/// use serde_json::json;
/// let reply = Reply::text("Let me look.").tool_call("read_file", json!({"path": "a.rs"})).gate("after the call").more("never mind");
/// ```
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Reply {
    /// The steps, in order.
    pub steps: Vec<Step>,
    /// The HTTP status. If `status`, `body` or `error` is set, the steps are not played, and the
    /// server sends a single body with this status.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status: Option<u16>,
    /// The body of a reply without steps. A string is sent as plain text, and any other value as
    /// JSON.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub body: Option<Value>,
    /// Makes the body an error object in the dialect's format, with this text.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// Additional response headers.
    pub headers: BTreeMap<String, String>,
    /// Replaces the dialect's content type.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub content_type: Option<String>,
    /// Wait for this gate before the response headers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gate_before_headers: Option<String>,
    /// Send the response headers alone, then wait for this gate.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gate_after_headers: Option<String>,
    /// Split the body into pieces of this many bytes, even within characters. Each piece is an HTTP
    /// chunk.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub split_bytes: Option<usize>,
    /// Send everything in one write at the end, as a buffering proxy does.
    pub late_burst: bool,
    /// Send a comment before every event (SSE only).
    pub comments: bool,
    /// Send tool calls with the last chunk, as Ollama's native template path does
    /// (docs/model-apis.md#ollama-streaming).
    pub calls_in_final_chunk: bool,
    /// Send all tool calls of the reply in one chunk.
    pub calls_together: bool,
    /// Send the usage in a separate chunk with `choices: []`, even if the request does not ask for
    /// it (OpenAI).
    pub usage_chunk: bool,
    /// Replaces `done_reason` or `finish_reason`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub done_reason: Option<String>,
    /// A recorded body that replaces the steps, byte for byte.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub recorded: Option<Vec<u8>>,
    /// How the body ends.
    pub end: End,
    /// The bytes of a whole response, which replace everything else. The connection is then closed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub wire: Option<String>,
}

impl Reply {
    /// Creates an empty answer that ends normally.
    pub fn empty() -> Self {
        Self::default()
    }

    /// Creates a reply with visible text, in token-sized chunks.
    pub fn text(text: impl Into<String>) -> Self {
        Self::empty().more(text)
    }

    /// Creates a reply with visible text in exactly these chunks.
    pub fn chunks<S: Into<String>>(chunks: impl IntoIterator<Item = S>) -> Self {
        Self::empty().more_chunks(chunks)
    }

    /// Creates a reply with an HTTP status and a body. A string is sent as plain text, and any
    /// other value as JSON.
    pub fn status(status: u16, body: impl Into<Value>) -> Self {
        Self { status: Some(status), body: Some(body.into()), ..Self::default() }
    }

    /// Creates a reply with an HTTP status and an error object in the dialect's format.
    pub fn error(status: u16, text: impl Into<String>) -> Self {
        Self { status: Some(status), error: Some(text.into()), ..Self::default() }
    }

    /// Creates a redirect.
    pub fn redirect(status: u16, location: impl Into<String>) -> Self {
        Self::status(status, "").header("Location", location)
    }

    /// Creates a reply from the bytes of a whole response, including the head. The connection is
    /// then closed.
    pub fn wire(bytes: impl Into<String>) -> Self {
        Self { wire: Some(bytes.into()), ..Self::default() }
    }

    /// Creates a reply from a recorded streamed body, or part of one.
    pub fn recorded(body: impl Into<Vec<u8>>) -> Self {
        Self { recorded: Some(body.into()), ..Self::default() }
    }

    /// Creates a reply that is computed from the request.
    pub fn from_fn(reply: impl Fn(&Request) -> Reply + Send + Sync + 'static) -> Entry {
        Entry::Computed(Arc::new(reply))
    }

    fn step(mut self, step: Step) -> Self {
        self.steps.push(step);
        self
    }

    /// Adds visible text, in token-sized chunks.
    pub fn more(self, text: impl Into<String>) -> Self {
        self.step(Step::Text(text.into()))
    }

    /// Adds visible text in exactly these chunks.
    pub fn more_chunks<S: Into<String>>(self, chunks: impl IntoIterator<Item = S>) -> Self {
        self.step(Step::Chunks(chunks.into_iter().map(Into::into).collect()))
    }

    /// Adds reasoning in its own field.
    pub fn thinking(self, text: impl Into<String>) -> Self {
        self.step(Step::Thinking(text.into()))
    }

    /// Adds a native tool call.
    pub fn tool_call(self, name: impl Into<String>, arguments: Value) -> Self {
        self.step(Step::ToolCall(Call { name: name.into(), arguments }))
    }

    /// Adds one JSON value as a separate line or event.
    pub fn json(self, value: Value) -> Self {
        self.step(Step::Json(value))
    }

    /// Adds raw body bytes.
    pub fn raw(self, bytes: impl Into<Vec<u8>>) -> Self {
        self.step(Step::RawBytes(bytes.into()))
    }

    /// Adds one chunk of `length` bytes of visible text, resulting in one very long protocol line.
    pub fn big_line(self, length: usize) -> Self {
        self.step(Step::Chunks(vec!["x".repeat(length)]))
    }

    /// Waits for `Server::release(name)`, or until the client disconnects.
    pub fn gate(self, name: impl Into<String>) -> Self {
        self.step(Step::Gate(name.into()))
    }

    /// Waits at the `hold` gate.
    pub fn hold(self) -> Self {
        self.gate("hold")
    }

    /// Records when everything before this step has been written.
    pub fn mark(self, name: impl Into<String>) -> Self {
        self.step(Step::Mark(name.into()))
    }

    /// Sends nothing, not even headers, until the gate is released.
    pub fn delay_until_released(mut self, gate: impl Into<String>) -> Self {
        self.gate_before_headers = Some(gate.into());
        self
    }

    /// Sends the headers immediately, and the body after the gate is released.
    pub fn after_headers_gate(mut self, gate: impl Into<String>) -> Self {
        self.gate_after_headers = Some(gate.into());
        self
    }

    /// Pauses. For benchmarks only.
    pub fn pause(self, time: Duration) -> Self {
        self.step(Step::PauseMs(millis(time)))
    }

    /// Sends chunks of text for the duration of `time`, pausing for `every` between them. For
    /// benchmarks only.
    pub fn filler_until(self, time: Duration, every: Duration) -> Self {
        self.step(Step::Filler { ms: millis(time), every_ms: millis(every).max(1) })
    }

    /// Adds an SSE comment line.
    pub fn comment(self, text: impl Into<String>) -> Self {
        self.step(Step::Comment(text.into()))
    }

    /// Sends a comment before every event (SSE only).
    pub fn comments(mut self) -> Self {
        self.comments = true;
        self
    }

    /// Sends an error in the dialect's format inside the stream, then ends without a done marker.
    pub fn then_error_line(self, text: impl Into<String>) -> Self {
        self.step(Step::ErrorLine(text.into()))
    }

    /// Sends whitespace until the client disconnects.
    pub fn endless_whitespace(self) -> Self {
        self.endless_repetition("\n")
    }

    /// Repeats the text until the client disconnects.
    pub fn endless_repetition(self, text: impl Into<String>) -> Self {
        self.step(Step::Endless(Endless::Chunks(text.into())))
    }

    /// Sends one endless protocol line until the client disconnects.
    pub fn endless_line(self) -> Self {
        self.step(Step::Endless(Endless::Line))
    }

    /// Splits the body into pieces of this many bytes (at least 1), even within a UTF-8 sequence.
    pub fn split_bytes(mut self, bytes: usize) -> Self {
        self.split_bytes = Some(bytes.max(1));
        self
    }

    /// Sends everything in one write at the end.
    pub fn late_burst(mut self) -> Self {
        self.late_burst = true;
        self
    }

    /// Sends tool calls only with the last chunk.
    pub fn tool_call_in_final_chunk(mut self) -> Self {
        self.calls_in_final_chunk = true;
        self
    }

    /// Sends all tool calls of the reply in one chunk.
    pub fn two_calls_in_one_chunk(mut self) -> Self {
        self.calls_together = true;
        self
    }

    /// Sends the usage in a separate chunk with `choices: []`.
    pub fn usage_chunk_empty_choices(mut self) -> Self {
        self.usage_chunk = true;
        self
    }

    /// Sets the reason for ending (`length`, `content_filter`, …).
    pub fn done_reason(mut self, reason: impl Into<String>) -> Self {
        self.done_reason = Some(reason.into());
        self
    }

    /// Ends normally at the HTTP level, but without `done: true` or a finish reason.
    pub fn eof_without_done(mut self) -> Self {
        self.end = End::Eof;
        self
    }

    /// Ends with a finish reason, but without `[DONE]`.
    pub fn without_done_marker(mut self) -> Self {
        self.end = End::NoMarker;
        self
    }

    /// Closes the connection in the middle of the body.
    pub fn cut(mut self) -> Self {
        self.end = End::Cut;
        self
    }

    /// Resets the connection after the last step.
    pub fn reset(mut self) -> Self {
        self.end = End::Reset;
        self
    }

    /// Adds a response header.
    pub fn header(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.headers.insert(name.into(), value.into());
        self
    }

    /// Replaces the dialect's content type.
    pub fn content_type(mut self, content_type: impl Into<String>) -> Self {
        self.content_type = Some(content_type.into());
        self
    }
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

/// An entry of the script: a reply, or a function that computes one from the request.
#[derive(Clone)]
pub enum Entry {
    /// This reply.
    Fixed(Box<Reply>),
    /// A reply computed from the request.
    Computed(Arc<dyn Fn(&Request) -> Reply + Send + Sync>),
}

impl Entry {
    pub(crate) fn reply(&self, request: &Request) -> Reply {
        match self {
            Self::Fixed(reply) => (**reply).clone(),
            Self::Computed(reply) => reply(request),
        }
    }
}

impl From<Reply> for Entry {
    fn from(reply: Reply) -> Self {
        Self::Fixed(Box::new(reply))
    }
}

impl From<&str> for Entry {
    fn from(text: &str) -> Self {
        Reply::text(text).into()
    }
}
