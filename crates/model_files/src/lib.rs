//! Inspects, finds and downloads model files.
//!
//! - [`gguf`] reads and checks file headers.
//! - [`catalog`] lists the models that can be downloaded.
//! - [`Store`] holds the downloaded files, and [`OllamaStore`] finds Ollama's.
//! - [`pull()`] downloads a model from the catalog into the store.
//!
//! The crate does not read environment variables or print anything. The caller passes in the
//! folders.

pub mod catalog;
pub mod gguf;

mod ollama;
mod pull;
mod store;

pub use ollama::OllamaStore;
pub use pull::{Error, Progress, Sources, pull};
pub use store::{Cached, Store};
