//! Ollama through its native API (docs/model-apis.md#ollama): [`Server`] manages models, and
//! [`Ollama`] is an opened model.

mod learned;
mod open;
mod pull;
mod server;
mod wire;

pub use open::{Ollama, OllamaOptions};
pub use pull::{Layer, PullProgress, PullStream};
pub use server::{LoadedModel, LocalModel, Server, Show, full_name};
pub(crate) use server::{is_cloud_host, is_cloud_name};
