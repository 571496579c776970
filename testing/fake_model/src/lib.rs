//! Scripted model servers for tests: Ollama, DeepSeek, vLLM, llama-server and LM Studio, with chunks released on command.
//!
//! A [`Server`] listens on 127.0.0.1, refuses what the real one refuses (wire reference 1 to 3), and answers each generation with the
//! next [`Reply`] of its script. It records what it was asked and how each reply went, down to the moment a client closed. It never
//! sleeps, except where a reply says `pause` or `filler_until`.
//!
//! ```
//! use fake_model::{Reply, Server};
//!
//! let server = Server::start();
//! server.enqueue(Reply::text(r#"{"tool": "read_file", "arguments": {"path": "a.rs"}}"#).gate("cut me").more("chatter"));
//! server.enqueue("All done.");
//! // A client of server.url() with model `deepseek-coder:6.7b` now sees the object, and then nothing until
//! server.release("cut me");
//! assert!(server.chats().is_empty());
//! ```
//!
//! Tokens are four bytes each, and the prefix cache works on that: [`ReplyRecord::cached_tokens`] says how much of a prompt the server did
//! not have to evaluate again.

mod encode;
mod generate;
mod http;
mod model;
mod ollama;
mod ollama_models;
mod openai;
mod play;
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
