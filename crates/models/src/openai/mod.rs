//! OpenAI-compatible servers over SSE: DeepSeek's platform (wire reference 2), vLLM, llama-server, LM Studio and whatever else speaks it (3).

mod calls;
mod content;
mod detect;
mod learned;
mod open;
mod prices;
mod shape;
mod wire;

pub use detect::Kind;
pub use open::{OpenAi, OpenAiOptions, Opened};
pub use prices::{PRICES_AS_OF, price};
