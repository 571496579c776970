//! Scripted model servers for tests: Ollama, DeepSeek, vLLM, llama-server and LM Studio. A test can
//! hold chunks back and release them on command.
//!
//! A [`Server`] listens on 127.0.0.1, refuses what the real server refuses
//! (docs/model-apis.md#ollama and docs/model-apis.md#openai-compatible-servers), and answers each
//! generation with the next [`Reply`] in its script. It records every request and the progress of
//! every reply, including whether and when the client disconnects. It never sleeps, except in the
//! `pause` and `filler_until` steps.
//!
//! ```
//! use fake_model::{Reply, Server};
//!
//! let server = Server::start();
//! server.enqueue(Reply::text(r#"{"tool": "read_file", "arguments": {"path": "a.rs"}}"#).gate("cut me").more("chatter"));
//! server.enqueue("All done.");
//! // A client of server.url() with model `deepseek-coder:6.7b` now receives the object, and nothing
//! // more until this call:
//! server.release("cut me");
//! assert!(server.chats().is_empty());
//! ```
//!
//! Four bytes of a prompt count as one token, including in the prefix cache.
//! [`ReplyRecord::cached_tokens`] is the number of prompt tokens that were not evaluated again.

mod encode;
mod generate;
mod http;
mod model;
mod ollama;
mod ollama_models;
mod openai;
mod play;
mod prompt;
mod record;
mod reply;
mod respond;
mod routes;
mod script;
mod server;
mod state;
mod tls;
mod tokens;

pub use model::{Loaded, ModelSpec, with_tag};
pub use record::{Outcome, ReplyRecord, Request};
pub use reply::{Call, End, Endless, Entry, Reply, Step};
pub use script::Script;
pub use server::Server;
pub use state::{Config, Personality};
pub use tls::{Certificate, TlsServer};
pub use tokens::{estimate, split};
