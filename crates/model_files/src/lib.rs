//! Model files on this machine: what they are, where they are, and how to get them.
//!
//! - [`gguf`] reads and checks the header of a file.
//! - [`Store`] holds the files that were pulled, and [`OllamaStore`] finds those that Ollama has.
//!
//! The crate reads no environment and prints nothing: the caller says where the folders are.

pub mod gguf;

mod ollama;
mod store;

pub use ollama::OllamaStore;
pub use store::{Cached, Store};
