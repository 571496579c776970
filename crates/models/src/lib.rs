//! Access to models through a single trait, [`Model`], whether they are served by Ollama or an
//! OpenAI-compatible endpoint, or replayed from recorded sessions.
//!
//! A [`Model`] is opened once per session with frozen options (model, window, thinking), so that
//! the server neither reloads the model nor loses its prefix cache. Each turn sends one [`Request`]
//! and reads a stream of [`Delta`]s. Dropping the stream closes the connection, which stops the
//! generation. (A runtime task owns the connection, so on a single-threaded runtime, the connection
//! closes at the next `await`.)
//!
//! ```
//! use models::{Message, Model, Request, Role, collect, replay::Replay};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), models::Error> {
//! let model = Replay::from_jsonl(r#"{"content": "Hello."}"#, "recording")?;
//! let question = Message::new(Role::User, "Say hello.");
//! let request = Request { messages: vec![question.into()], max_tokens: 100, ..Request::default() };
//! let answer = collect(model.stream(&request).await?).await?;
//! assert_eq!(answer.text, "Hello.");
//! # Ok(())
//! # }
//! ```
//!
//! Decoding is a chain of pure steps: bytes → [`frames`] → `answer::Protocol` → [`Delta`]. Each
//! kind of server has its own implementation of `answer::Protocol`. [`choose`] opens the model that
//! `--model` specifies, and [`retry`] decides what to do after a failure. `docs/model-apis.md` in
//! the repository lists the facts about each server that this crate relies on, along with their
//! public sources.

pub mod choose;
pub mod download;
pub mod frames;
pub mod host;
pub mod image;
pub mod ollama;
pub mod openai;
pub mod price;
pub mod profile;
pub mod replay;
pub mod retry;

mod absent;
mod access;
mod answer;
mod doubt;
mod error;
mod failure;
mod http;
mod memory;
mod refusal;
mod roles;
mod shared;
mod size;
mod think;
mod tls;
pub use absent::Absent;
pub use access::{Access, Notices, Proxy};
pub use answer::{Answer, collect};
pub use error::{Error, Retry};
pub use http::{Secret, Timeouts, plain_client};
pub use image::Image;
pub use memory::Memory;
pub use price::Price;
pub use roles::Roles;
pub use think::Think;

use std::pin::Pin;
use std::sync::Arc;

use futures_util::Stream;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// The author of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// The fixed instructions at the start of a conversation.
    System,
    /// The task and tool results.
    User,
    /// The model. An assistant message holds exactly the bytes that the model generated, up to the
    /// point where the answer was cut off, if it was.
    Assistant,
}

/// A message in a conversation, in a server-independent form.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Message {
    /// Its author.
    pub role: Role,
    /// Its text. Never empty for user and system messages.
    pub content: String,
    /// The reasoning that came with an assistant message, for models that need it repeated in later
    /// requests ([`Identity::repeats_thinking`]).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub thinking: Option<String>,
    /// Images that accompany the text, for models that accept images ([`Identity::sees_images`]).
    /// Recordings omit the images.
    #[serde(skip)]
    pub images: Vec<Arc<Image>>,
}

impl Message {
    /// Creates a text-only message.
    pub fn new(role: Role, content: impl Into<String>) -> Self {
        Self { role, content: content.into(), thinking: None, images: Vec::new() }
    }
}

/// A request to an opened model. It holds only what can change within a session without reloading
/// the model or losing the prefix cache. If the last message is from the assistant and
/// [`Identity::branches`] is set, the answer picks up exactly where that message ends. Some servers
/// begin such an answer by repeating the message.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Request {
    /// The conversation. Each request repeats the messages of the previous one and appends to them.
    /// Messages are shared, so cloning a request copies no text.
    pub messages: Vec<Arc<Message>>,
    /// Sampling temperature; `None` keeps the server's default.
    pub temperature: Option<f32>,
    /// Sampling seed; `None` lets the server choose.
    pub seed: Option<u64>,
    /// Maximum number of tokens to generate, including thinking. Every request sets this limit.
    pub max_tokens: u32,
    /// How many alternatives to report per token ([`Delta::Doubt`]); 0 for none. Requires
    /// [`Identity::branches`].
    pub alternatives: u8,
    /// The JSON Schema that the answer as a whole must conform to. Models without
    /// [`Identity::can_constrain`] ignore it.
    pub constraint: Option<Arc<Value>>,
}

/// One piece of a streamed answer.
#[derive(Debug, Clone, PartialEq)]
pub enum Delta {
    /// Visible text.
    Text(String),
    /// Reasoning that the server sends in a separate field.
    Thinking(String),
    /// A complete native tool call.
    ToolCall {
        /// The tool.
        name: String,
        /// Its arguments, decoded.
        arguments: Value,
    },
    /// Tokens that the model could have written in place of the next one, with their log
    /// probabilities.
    Doubt {
        /// The token that comes next.
        chosen: String,
        /// The alternatives, likeliest first.
        others: Vec<(String, f32)>,
    },
    /// Progress of prompt evaluation (llama-server and the embedded engine only).
    Progress {
        /// Number of prompt tokens evaluated or read from the cache so far.
        processed: u64,
        /// Total number of prompt tokens.
        total: u64,
    },
    /// Token counts so far, from servers that report them with every chunk. If the answer is cut
    /// short, the last counts before the cut are the only ones known for the turn.
    Usage(Usage),
    /// Generation ended normally. No more deltas follow.
    End(End),
}

/// Why a generation ended, if it did not fail and the agent did not cut it short.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EndReason {
    /// The model finished its answer.
    Stop,
    /// The answer reached `max_tokens` or filled the context window, so it is truncated.
    Length,
}

/// The normal end of a stream.
#[derive(Debug, Clone, PartialEq)]
pub struct End {
    /// Why the generation ended.
    pub reason: EndReason,
    /// The counts reported by the server.
    pub usage: Usage,
}

/// Counts for one request, as reported by the server. A count is `None` if the server does not
/// report it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Usage {
    /// Total number of prompt tokens.
    pub prompt_tokens: Option<u64>,
    /// Prompt tokens read from the prefix cache.
    pub cached_tokens: Option<u64>,
    /// Generated tokens, including thinking.
    pub generated_tokens: Option<u64>,
    /// Milliseconds spent on prompt evaluation.
    pub prompt_ms: Option<f64>,
    /// Milliseconds spent on generation.
    pub generation_ms: Option<f64>,
    /// Milliseconds spent loading the model for this request.
    pub load_ms: Option<f64>,
}

/// What is known about an opened model.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Identity {
    /// The kind of server: `ollama`, `deepseek`, `openai`, `llama-server`, `vllm`, `lm-studio`,
    /// `embedded` or `replay`.
    pub server: String,
    /// The server's version, if it reports one.
    pub server_version: Option<String>,
    /// The model's name as the server knows it.
    pub model: String,
    /// The model's family or architecture (`qwen2`, `deepseek2`), if the server reports it.
    pub family: Option<String>,
    /// Number of parameters, in billions, as reported by the server or parsed from the model's
    /// name.
    pub parameters_b: Option<f32>,
    /// The context window in effect, in tokens; `None` if the server does not report it.
    pub window: Option<u64>,
    /// Whether the server runs on this machine or on the local network. If so, tokens cost time,
    /// not money.
    pub local: bool,
    /// Whether the model is better at writing whole files than at calling tools ([`profile`]).
    pub prefers_whole_files: bool,
    /// The edit format that works best with the model ([`profile`]).
    pub edit_format: Option<String>,
    /// The sampling temperature that works best with the model ([`profile`]).
    pub temperature: f32,
    /// Whether thinking is enabled for this session.
    pub thinking: bool,
    /// Whether each request must include the reasoning of earlier answers
    /// (docs/model-apis.md#deepseek-reasoning).
    pub repeats_thinking: bool,
    /// Whether the server honors [`Request::alternatives`] and can continue a partial answer.
    pub branches: bool,
    /// Whether the server honors [`Request::constraint`].
    pub can_constrain: bool,
    /// Whether the model's calls should be constrained to the tools' schemas ([`profile`]).
    pub constrained: bool,
    /// Whether the model accepts images; `None` if unknown.
    pub sees_images: Option<bool>,
    /// How many requests the server handles concurrently, if it reports that.
    pub slots: Option<u16>,
    /// The price of tokens, if known.
    pub price: Option<Price>,
}

/// The deltas of one answer. Dropping the stream closes the connection, which stops the generation.
pub type DeltaStream = Pin<Box<dyn Stream<Item = Result<Delta, Error>> + Send>>;

/// An opened model: one server, one model, one frozen set of options.
#[async_trait::async_trait]
pub trait Model: Send + Sync {
    /// Returns the model's properties, as of when it was opened or last [verified](Model::verify).
    fn identity(&self) -> Identity;
    /// Sends one request. Returns once the response headers have arrived; the deltas follow.
    async fn stream(&self, request: &Request) -> Result<DeltaStream, Error>;
    /// Checks, after an answer, that the server is still running the same model with the requested
    /// window, and updates [`Model::identity`]. Sends at most a few quick requests. Returns each
    /// warning only once.
    async fn verify(&self) -> Vec<String> {
        Vec::new()
    }
    /// Describes the window, for display before the first request is sent. Returns `None` if there
    /// is nothing to add to [`Identity::window`]. Does not load the model.
    ///
    /// # Errors
    /// If the first request would fail for a reason that is already known.
    async fn outlook(&self) -> Result<Option<String>, Error> {
        Ok(None)
    }
}
