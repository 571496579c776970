//! What an Ollama server's refusals teach about a model, kept for the rest of the session.

use serde_json::Value;

use crate::Identity;
use crate::failure::Failure;

/// What answers taught about the model.
#[derive(Debug, Clone)]
pub(super) struct Learned {
    pub(super) num_ctx: Option<u64>,
    pub(super) halved: bool,
    pub(super) think: Option<Value>,
    pub(super) format: bool,
    pub(super) identity: Identity,
}

impl Learned {
    /// Gives up what the server says it cannot do, for the rest of the session (wire reference 5). Returns whether anything changed.
    pub(super) fn adapt(&mut self, failure: &Failure, constrained: bool) -> bool {
        if self.think.is_some()
            && failure.names(&["support thinking", "think value", "invalid think", ".think", "\"think\""])
        {
            self.think = None;
            self.identity.thinking = false;
            return true;
        }
        if constrained && self.format && failure.names(&["format", "schema", "grammar"]) {
            self.format = false;
            self.identity.constrains = false;
            return true;
        }
        // An explicit window is never lowered by the server: its load fails (wire reference 1.5).
        if let Some(num_ctx) = self.num_ctx
            && !self.halved
            && num_ctx >= 2 * 2048
            && failure.status() == Some(500)
            && failure.names(&["memory", "oom"])
        {
            self.halved = true;
            self.num_ctx = Some(num_ctx / 2);
            self.identity.window = self.num_ctx;
            return true;
        }
        false
    }
}
