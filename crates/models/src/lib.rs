//! One trait over model servers: Ollama, OpenAI-compatible endpoints, and recorded sessions.
//!
//! A [`Model`] is opened once per session with options that stay frozen (model, window, think switch), so that a server neither
//! reloads the model nor loses its prefix cache. It is then fed one [`Request`] per turn and answers with a stream of [`Delta`]s.
//! Dropping the stream closes the connection: that is how a generation is cut. (The connection belongs to a task of the runtime: on a
//! single-threaded one it closes at the next `await`.)
//!
//! ```
//! use models::{Message, Model, Request, Role, collect, replay::Replay};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), models::Error> {
//! let model = Replay::from_jsonl(r#"{"content": "Hello."}"#, "recording")?;
//! let question = Message { role: Role::User, content: "Say hello.".into(), thinking: None };
//! let request = Request { messages: vec![question.into()], max_tokens: 100, ..Request::default() };
//! let answer = collect(model.stream(&request).await?).await?;
//! assert_eq!(answer.text, "Hello.");
//! # Ok(())
//! # }
//! ```
//!
//! Bytes become meaning in steps, each pure and tested by itself: [`lines`] → [`ndjson`] or [`sse`] → one server's protocol → [`Delta`].
//! [`choose`] opens what `--model` names, [`retry`] says what to do after a failure.

pub mod choose;
pub mod host;
pub mod lines;
pub mod ndjson;
pub mod ollama;
pub mod openai;
pub mod replay;
pub mod retry;
pub mod sse;

mod access;
mod answer;
mod doubt;
mod error;
mod failure;
mod frames;
mod http;
mod memory;
mod refusal;
mod roles;
mod shared;
mod size;
mod think;
mod tls;
pub use access::{Access, Notices, Proxy};
pub use answer::{Answer, collect};
pub use error::{Error, Retry};
pub use http::{Secret, Timeouts};
pub use memory::Memory;
pub use think::Think;

use std::pin::Pin;
use std::sync::Arc;

use futures_util::Stream;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// Who said a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// The fixed instructions at the head of a conversation.
    System,
    /// The task, and what tools answered.
    User,
    /// The model, exactly the bytes it emitted (up to a cut).
    Assistant,
}

/// One message of a conversation, in the form every server is given it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Message {
    /// Who said it.
    pub role: Role,
    /// What was said. Never empty for user and system.
    pub content: String,
    /// Reasoning that came with an assistant message, for models that need it back ([`Identity::repeats_thinking`]).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub thinking: Option<String>,
}

/// What may differ between the requests of a session without a reload or a lost prefix. When the last message is the assistant's and
/// [`Identity::branches`] is set, the answer continues from its last byte (some servers repeat the message first).
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Request {
    /// The conversation: the messages of the previous request, and new ones at the end. Messages are shared, so cloning a request
    /// copies no text.
    pub messages: Vec<Arc<Message>>,
    /// Sampling temperature; `None` leaves the server's default.
    pub temperature: Option<f32>,
    /// Sampling seed; `None` leaves it to the server.
    pub seed: Option<u64>,
    /// The most tokens to generate, thinking included. Always bounded.
    pub max_tokens: u32,
    /// A JSON Schema that constrains decoding, where the server can.
    pub format: Option<Value>,
    /// How many alternatives to report for each token ([`Delta::Doubt`]), where [`Identity::branches`]; 0 for none.
    pub alternatives: u8,
    /// Ends the answer before this text; `None` leaves it to the model.
    pub stop: Option<String>,
}

/// A piece of an answer, in order of arrival.
#[derive(Debug, Clone, PartialEq)]
pub enum Delta {
    /// Visible text.
    Text(String),
    /// Reasoning, from a field of its own.
    Thinking(String),
    /// A tool call in the server's own form, complete.
    ToolCall {
        /// The tool.
        name: String,
        /// Its arguments, decoded.
        arguments: Value,
    },
    /// What the model might have written in place of the next piece of text, with the logarithms of the probabilities.
    Doubt {
        /// The token that comes next.
        chosen: String,
        /// The others, the likeliest first.
        others: Vec<(String, f32)>,
    },
    /// Prompt evaluation under way: tokens done and in all (llama-server only).
    Progress {
        /// Prompt tokens evaluated or taken from the cache so far.
        processed: u64,
        /// Prompt tokens of the request.
        total: u64,
    },
    /// Counts so far, from servers that report them with every chunk; the last one before a cut is what is known of the turn.
    Usage(Usage),
    /// The proof of normal completion; nothing comes after it.
    End(End),
}

/// Why a generation ended by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EndReason {
    /// The model was done.
    Stop,
    /// `max_tokens` or the window was reached: the answer is cut off.
    Length,
}

/// The normal end of a stream.
#[derive(Debug, Clone, PartialEq)]
pub struct End {
    /// Why it ended.
    pub reason: EndReason,
    /// The server's own counts.
    pub usage: Usage,
}

/// Counts of one request as the server reported them; `None` where it did not.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Usage {
    /// Prompt tokens in all.
    pub prompt_tokens: Option<u64>,
    /// Prompt tokens taken from the prefix cache.
    pub cached_tokens: Option<u64>,
    /// Generated tokens, thinking included.
    pub generated_tokens: Option<u64>,
    /// Milliseconds of prompt evaluation.
    pub prompt_ms: Option<f64>,
    /// Milliseconds of generation.
    pub generation_ms: Option<f64>,
    /// Milliseconds of loading the model for this request.
    pub load_ms: Option<f64>,
}

/// What is known of an opened model.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Identity {
    /// `ollama`, `deepseek`, `openai`, `llama-server`, `vllm`, `lm-studio`, `replay`.
    pub server: String,
    /// The server's version where it tells.
    pub server_version: Option<String>,
    /// The model's name as the server knows it.
    pub model: String,
    /// The model's family or architecture (`qwen2`, `deepseek2`), where told.
    pub family: Option<String>,
    /// Billions of parameters, where told or readable from the name.
    pub parameters_b: Option<f32>,
    /// The context window in force, in tokens; `None` where the server does not tell.
    pub window: Option<u64>,
    /// Whether the server runs on this machine or network, so that each token costs time and not money.
    pub local: bool,
    /// Whether the model does better when it is asked for a whole file than when it has to call tools.
    pub prefers_whole_files: bool,
    /// Whether thinking is on for this session.
    pub thinking: bool,
    /// Whether each request has to repeat the reasoning of earlier answers. DeepSeek's API requires it.
    pub repeats_thinking: bool,
    /// Whether `Request::format` is honoured.
    pub constrains: bool,
    /// Whether `Request::alternatives` is honoured and an answer can be continued from a place in its middle.
    pub branches: bool,
    /// Dollars per million tokens: (prompt, cached prompt, generated), where known.
    pub price: Option<(f64, f64, f64)>,
}

impl Identity {
    /// What a request with these counts costs, in dollars; `None` where the price or the counts are unknown. Prompt tokens not known to be
    /// cached are paid in full.
    #[must_use]
    pub fn cost(&self, usage: &Usage) -> Option<f64> {
        let (prompt, cached, generated) = self.price?;
        let all = usage.prompt_tokens?;
        let from_cache = usage.cached_tokens.unwrap_or(0).min(all);
        let dollars = |tokens: u64, price: f64| tokens as f64 * price / 1e6;
        Some(
            dollars(all - from_cache, prompt)
                + dollars(from_cache, cached)
                + dollars(usage.generated_tokens.unwrap_or(0), generated),
        )
    }
}

/// The deltas of one answer. Dropping it closes the connection and so ends the generation.
pub type DeltaStream = Pin<Box<dyn Stream<Item = Result<Delta, Error>> + Send>>;

/// An opened model: one server, one model, one frozen set of options.
#[async_trait::async_trait]
pub trait Model: Send + Sync {
    /// What was found out when it was opened (and by `verify`).
    fn identity(&self) -> Identity;
    /// Sends one request. Returns when the response headers are there; the deltas follow.
    async fn stream(&self, request: &Request) -> Result<DeltaStream, Error>;
    /// Checks, after an answer, that what was opened is still what answers: the same model, with the window that was asked for (what it
    /// finds is in [`Model::identity`] then). At most one quick request. Returns sentences worth a warning, each only once.
    async fn verify(&self) -> Vec<String> {
        Vec::new()
    }
    /// What can be said of the window before the first request, where it is not simply [`Identity::window`]. Loads nothing.
    ///
    /// # Errors
    /// What would keep a first request from being answered, where that can be told already.
    async fn outlook(&self) -> Result<Option<String>, Error> {
        Ok(None)
    }
}
