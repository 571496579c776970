//! What an Ollama server's refusals teach about a model, kept for the rest of the session.

use std::sync::Arc;

use serde_json::Value;

use super::server::LoadedModel;
use crate::failure::Failure;
use crate::roles::Roles;
use crate::shared::Said;
use crate::{Identity, Message};

/// What answers taught about the model.
#[derive(Debug, Clone)]
pub(super) struct Learned {
    pub(super) num_ctx: Option<u64>,
    pub(super) halved: bool,
    pub(super) think: Option<Value>,
    /// Whether it was the user who wanted thoughts.
    pub(super) asked_to_think: bool,
    pub(super) format: bool,
    pub(super) roles: Roles,
    /// Sentences for the next time that warnings are asked for.
    pub(super) news: Vec<String>,
    pub(super) identity: Identity,
    /// What was loaded when it was last looked at.
    pub(super) digest: Option<String>,
    pub(super) said: Said,
}

impl Learned {
    /// Compares what is loaded with what is to be; says what is worth a warning.
    pub(super) fn look_at(&mut self, loaded: &LoadedModel) -> Vec<String> {
        let mut warnings = Vec::new();
        if let Some(digest) = &loaded.digest {
            let before = self.digest.replace(digest.clone());
            if let Some(before) = before.filter(|before| before != digest) {
                warnings.push(format!(
                    "{} was replaced on the server during the run ({} is now {}): its answers may differ from here on",
                    loaded.name,
                    short(&before),
                    short(digest)
                ));
            }
        }
        match (loaded.context_length, self.num_ctx) {
            (Some(real), Some(asked)) => {
                self.identity.window = Some(real.min(asked));
                if real < asked {
                    warnings.push(format!(
                        "the server runs the model with a window of {real} tokens, not the {asked} asked for; what does not fit is refused, and the conversation then made shorter"
                    ));
                }
            }
            (None, _) => warnings
                .push(String::from("the server is too old to tell its window; the one asked for is assumed")),
            _ => {}
        }
        if loaded.size_vram > 0 && loaded.size_vram < loaded.size {
            let percent = 100 - loaded.size_vram.saturating_mul(100) / loaded.size;
            warnings.push(format!("{percent} % of the model runs on the CPU and is slow; a smaller window or model would fit the GPU"));
        }
        warnings
    }

    /// Gives up what the server says it cannot do, for the rest of the session (wire reference 5). Returns whether anything changed.
    pub(super) fn adapt(&mut self, failure: &Failure, constrained: bool, messages: &[Arc<Message>]) -> bool {
        if self.think.is_some()
            && failure.names(&["support thinking", "think value", "invalid think", ".think", "\"think\""])
        {
            self.think = None;
            self.identity.thinking = false;
            if self.asked_to_think {
                self.news
                    .push(format!("{} has no thinking; the run goes on without it", self.identity.model));
            }
            return true;
        }
        if constrained && self.format && failure.names(&["format", "schema", "grammar"]) {
            self.format = false;
            self.identity.constrains = false;
            return true;
        }
        if self.roles.learn(failure, messages) {
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

/// As many digits as Ollama shows.
fn short(digest: &str) -> String {
    digest.trim_start_matches("sha256:").chars().take(12).collect()
}
