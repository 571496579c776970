//! What the server is to answer: a [`Reply`] is a list of [`Step`]s played in order, and how it begins and ends.
//!
//! The same reply fits every dialect; the request decides whether it goes out as NDJSON, as server-sent events or as one object.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::record::Request;

/// One thing the server does while it answers. In JSON: `{"text": "…"}`, `{"gate": "name"}`, `{"tool_call": {…}}` and so on.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Step {
    /// Visible text, in chunks the size of tokens.
    Text(String),
    /// Visible text with these very chunk borders.
    Chunks(Vec<String>),
    /// Reasoning in its own field, in chunks the size of tokens.
    Thinking(String),
    /// A tool call in the server's own form.
    ToolCall(Call),
    /// Several tool calls in one chunk.
    ToolCalls(Vec<Call>),
    /// One JSON value as a line (NDJSON) or event (SSE) of its own.
    Json(Value),
    /// Body bytes as they are, one chunk, no framing added but HTTP's.
    Raw(String),
    /// Body bytes that are no UTF-8.
    RawBytes(Vec<u8>),
    /// An SSE comment line (`: text`); nothing on NDJSON, which has none.
    Comment(String),
    /// Stop until `Server::release(name)`.
    Gate(String),
    /// Note the time in the record, under this name.
    Mark(String),
    /// Stop for a time. For benchmarks; tests use gates.
    PauseMs(u64),
    /// Text chunks at an interval for a time. For benchmarks.
    Filler {
        /// How long in all, in milliseconds.
        ms: u64,
        /// Milliseconds between two chunks.
        every_ms: u64,
    },
    /// The server's own error inside the stream. Ends the reply without a done marker.
    ErrorLine(String),
    /// Goes on until the client closes.
    Endless(Endless),
}

/// What never ends.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Endless {
    /// Chunks of this text (whitespace, a line said over and over).
    Chunks(String),
    /// One line of the protocol that never comes to its newline.
    Line,
}

/// A tool call.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Call {
    /// The function's name.
    pub name: String,
    /// Its arguments. A JSON string is sent as it is where the dialect has arguments as text (OpenAI), to send broken JSON.
    #[serde(default)]
    pub arguments: Value,
}

/// How the body ends.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum End {
    /// As the dialect prescribes: `done: true`, or a finish reason and `[DONE]`.
    #[default]
    Done,
    /// With a finish reason, but without `[DONE]` (SSE only).
    NoMarker,
    /// HTTP ends in order, the dialect does not: no `done: true`, no finish reason.
    Eof,
    /// The connection is closed in order in the middle of the body: HTTP's own end is missing.
    Cut,
    /// The connection is reset (RST).
    Reset,
}

/// One scripted answer. Built by chaining; everything not said is as a well-behaved server does it.
///
/// ```
/// use fake_model::Reply;
/// use serde_json::json;
/// let reply = Reply::text("Let me look.").tool_call("read_file", json!({"path": "a.rs"})).gate("after the call").more("never mind");
/// ```
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Reply {
    /// What is sent, in order.
    pub steps: Vec<Step>,
    /// HTTP status; other than 200 (or with `body` set) the reply is `body` and nothing else.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status: Option<u16>,
    /// The body of such a reply: a JSON string is sent as plain text, everything else as JSON.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub body: Option<Value>,
    /// The body is the dialect's own error object with this text.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// Further response headers.
    pub headers: BTreeMap<String, String>,
    /// In place of the dialect's content type.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub content_type: Option<String>,
    /// Wait for this gate before the response headers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gate_before_headers: Option<String>,
    /// Send the response headers alone, then wait for this gate.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gate_after_headers: Option<String>,
    /// Cut the body into pieces of so many bytes, wherever that falls; each is an HTTP chunk of its own.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub split_bytes: Option<usize>,
    /// Keep everything back and send it in one write at the end, as a buffering proxy does.
    pub late_burst: bool,
    /// A comment before every event (SSE only).
    pub comments: bool,
    /// Tool calls come with the last chunk, as on Ollama's native-template path (wire reference 1.7).
    pub calls_in_final_chunk: bool,
    /// All tool calls of the reply in one chunk.
    pub calls_together: bool,
    /// Usage in a chunk of its own with `choices: []`, asked for or not (OpenAI).
    pub usage_chunk: bool,
    /// `done_reason` or `finish_reason` in place of the usual one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub done_reason: Option<String>,
    /// A recorded body in place of the steps, byte for byte.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub recorded: Option<Vec<u8>>,
    /// How the body ends.
    pub end: End,
    /// The bytes of the whole response in place of everything else; then the connection is closed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub wire: Option<String>,
}

impl Reply {
    /// A reply without anything in it: an empty answer, normally ended.
    pub fn empty() -> Self {
        Self::default()
    }

    /// Visible text, in chunks the size of tokens.
    pub fn text(text: impl Into<String>) -> Self {
        Self::empty().more(text)
    }

    /// Visible text with these very chunk borders.
    pub fn chunks<S: Into<String>>(chunks: impl IntoIterator<Item = S>) -> Self {
        Self::empty().more_chunks(chunks)
    }

    /// An HTTP status with a body: a JSON string goes out as plain text, everything else as JSON.
    pub fn status(status: u16, body: impl Into<Value>) -> Self {
        Self { status: Some(status), body: Some(body.into()), ..Self::default() }
    }

    /// An HTTP status with the dialect's own error object around `text`.
    pub fn error(status: u16, text: impl Into<String>) -> Self {
        Self { status: Some(status), error: Some(text.into()), ..Self::default() }
    }

    /// A redirect.
    pub fn redirect(status: u16, location: impl Into<String>) -> Self {
        Self::status(status, "").header("Location", location)
    }

    /// The bytes of a whole response, HTTP head and all; then the connection is closed.
    pub fn wire(bytes: impl Into<String>) -> Self {
        Self { wire: Some(bytes.into()), ..Self::default() }
    }

    /// A streamed body byte for byte, or a part of it.
    pub fn recorded(body: impl Into<Vec<u8>>) -> Self {
        Self { recorded: Some(body.into()), ..Self::default() }
    }

    /// A reply worked out from the request.
    pub fn from_fn(reply: impl Fn(&Request) -> Reply + Send + Sync + 'static) -> Entry {
        Entry::Computed(Arc::new(reply))
    }

    fn step(mut self, step: Step) -> Self {
        self.steps.push(step);
        self
    }

    /// More visible text.
    pub fn more(self, text: impl Into<String>) -> Self {
        self.step(Step::Text(text.into()))
    }

    /// More visible text with these very chunk borders.
    pub fn more_chunks<S: Into<String>>(self, chunks: impl IntoIterator<Item = S>) -> Self {
        self.step(Step::Chunks(chunks.into_iter().map(Into::into).collect()))
    }

    /// Reasoning in its own field.
    pub fn thinking(self, text: impl Into<String>) -> Self {
        self.step(Step::Thinking(text.into()))
    }

    /// A tool call in the server's own form.
    pub fn tool_call(self, name: impl Into<String>, arguments: Value) -> Self {
        self.step(Step::ToolCall(Call { name: name.into(), arguments }))
    }

    /// One JSON value as a line or event of its own.
    pub fn json(self, value: Value) -> Self {
        self.step(Step::Json(value))
    }

    /// Body bytes as they are.
    pub fn raw(self, bytes: impl Into<Vec<u8>>) -> Self {
        self.step(Step::RawBytes(bytes.into()))
    }

    /// One visible-text chunk of `length` bytes: a line of that length on the wire.
    pub fn big_line(self, length: usize) -> Self {
        self.step(Step::Chunks(vec!["x".repeat(length)]))
    }

    /// Stops until `Server::release(name)`, or until the client closes.
    pub fn gate(self, name: impl Into<String>) -> Self {
        self.step(Step::Gate(name.into()))
    }

    /// Stops at the gate called `hold`.
    pub fn hold(self) -> Self {
        self.gate("hold")
    }

    /// Notes in the record when everything before it was written.
    pub fn mark(self, name: impl Into<String>) -> Self {
        self.step(Step::Mark(name.into()))
    }

    /// No byte at all, headers included, before the gate is released.
    pub fn delay_until_released(mut self, gate: impl Into<String>) -> Self {
        self.gate_before_headers = Some(gate.into());
        self
    }

    /// Headers at once, the body not before the gate is released.
    pub fn after_headers_gate(mut self, gate: impl Into<String>) -> Self {
        self.gate_after_headers = Some(gate.into());
        self
    }

    /// Stops for a time; for benchmarks only.
    pub fn pause(self, time: Duration) -> Self {
        self.step(Step::PauseMs(millis(time)))
    }

    /// Goes on talking for `time`, a chunk at each interval; for benchmarks only.
    pub fn filler_until(self, time: Duration, every: Duration) -> Self {
        self.step(Step::Filler { ms: millis(time), every_ms: millis(every).max(1) })
    }

    /// An SSE comment line.
    pub fn comment(self, text: impl Into<String>) -> Self {
        self.step(Step::Comment(text.into()))
    }

    /// A comment before every event (SSE).
    pub fn comments(mut self) -> Self {
        self.comments = true;
        self
    }

    /// The server's own error in the middle of the stream, then EOF without a done marker.
    pub fn then_error_line(self, text: impl Into<String>) -> Self {
        self.step(Step::ErrorLine(text.into()))
    }

    /// Whitespace until the client closes.
    pub fn endless_whitespace(self) -> Self {
        self.endless_repetition("\n")
    }

    /// The same text until the client closes.
    pub fn endless_repetition(self, text: impl Into<String>) -> Self {
        self.step(Step::Endless(Endless::Chunks(text.into())))
    }

    /// A protocol line without an end, until the client closes.
    pub fn endless_line(self) -> Self {
        self.step(Step::Endless(Endless::Line))
    }

    /// Pieces of so many bytes (at least 1), borders anywhere, also inside a UTF-8 sequence.
    pub fn split_bytes(mut self, bytes: usize) -> Self {
        self.split_bytes = Some(bytes.max(1));
        self
    }

    /// Everything in one write at the end.
    pub fn late_burst(mut self) -> Self {
        self.late_burst = true;
        self
    }

    /// Tool calls only with the last chunk.
    pub fn tool_call_in_final_chunk(mut self) -> Self {
        self.calls_in_final_chunk = true;
        self
    }

    /// All tool calls of the reply in one chunk.
    pub fn two_calls_in_one_chunk(mut self) -> Self {
        self.calls_together = true;
        self
    }

    /// Usage in a chunk of its own with `choices: []`.
    pub fn usage_chunk_empty_choices(mut self) -> Self {
        self.usage_chunk = true;
        self
    }

    /// Another reason for the end (`length`, `content_filter`, …).
    pub fn done_reason(mut self, reason: impl Into<String>) -> Self {
        self.done_reason = Some(reason.into());
        self
    }

    /// HTTP ends in order, but no `done: true` and no finish reason came.
    pub fn eof_without_done(mut self) -> Self {
        self.end = End::Eof;
        self
    }

    /// A finish reason, but no `[DONE]`.
    pub fn without_done_marker(mut self) -> Self {
        self.end = End::NoMarker;
        self
    }

    /// The connection closes in the middle of the body.
    pub fn cut(mut self) -> Self {
        self.end = End::Cut;
        self
    }

    /// The connection is reset after the last step.
    pub fn reset(mut self) -> Self {
        self.end = End::Reset;
        self
    }

    /// A further response header.
    pub fn header(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.headers.insert(name.into(), value.into());
        self
    }

    /// Another content type than the dialect's.
    pub fn content_type(mut self, content_type: impl Into<String>) -> Self {
        self.content_type = Some(content_type.into());
        self
    }
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

/// An entry of the script: a reply, or a function that makes one of the request.
#[derive(Clone)]
pub enum Entry {
    /// This reply.
    Fixed(Box<Reply>),
    /// What the function makes of the request.
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
