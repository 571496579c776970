//! Ollama through its native API (wire reference 1): [`Server`] is a server's stock of models, [`Ollama`] one opened model.

mod learned;
mod open;
mod pull;
mod server;
mod wire;

pub use open::{Ollama, OllamaOptions, Prompt};
pub use pull::{Layer, PullProgress, PullStream};
pub use server::{LoadedModel, LocalModel, Server, Show, full_name};
pub(crate) use server::{is_cloud_host, is_cloud_name};
