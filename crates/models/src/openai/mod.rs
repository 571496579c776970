//! OpenAI-compatible servers: DeepSeek's platform, vLLM, llama-server, LM Studio and others
//! (docs/model-apis.md#openai-compatible-servers).

mod calls;
mod content;
mod detect;
mod learned;
mod open;
mod shape;
mod wire;

pub use detect::Kind;
pub use open::{OpenAi, OpenAiOptions, Opened};
