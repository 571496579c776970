//! Learns what a model supports from an Ollama server's answers and refusals, and adapts the rest
//! of the session's requests accordingly.

use serde_json::Value;

use super::server::LoadedModel;
use crate::failure::Failure;
use crate::roles::Roles;
use crate::shared::Reported;
use crate::{Identity, Request};

/// What is known about the model so far.
#[derive(Debug, Clone, Default)]
pub(super) struct Learned {
    pub(super) num_ctx: Option<u64>,
    pub(super) halved: bool,
    pub(super) think: Option<Value>,
    /// Whether the user asked for thinking.
    pub(super) asked_to_think: bool,
    pub(super) roles: Roles,
    /// Warnings for the next `verify` to return.
    pub(super) news: Vec<String>,
    pub(super) identity: Identity,
    /// The digest of the loaded model, as of the last check.
    pub(super) digest: Option<String>,
    pub(super) reported: Reported,
}

impl Learned {
    /// Checks whether the loaded model has changed since the last check, and whether its window is
    /// the requested one. Returns warnings.
    pub(super) fn check(&mut self, loaded: &LoadedModel) -> Vec<String> {
        let mut warnings = Vec::new();
        if let Some(digest) = &loaded.digest {
            let before = self.digest.replace(digest.clone());
            if let Some(before) = before.filter(|before| before != digest) {
                warnings.push(format!(
                    "{} was replaced on the server during the run ({} is now {}); its answers may differ from now on",
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
                        "the server runs the model with a window of {real} tokens, not the {asked} requested; the conversation is compacted when it no longer fits"
                    ));
                }
            }
            (None, _) => warnings.push(String::from(
                "the server is too old to report its window; the requested one is assumed",
            )),
            _ => {}
        }
        if loaded.size_vram > 0 && loaded.size_vram < loaded.size {
            let percent = 100 - loaded.size_vram.saturating_mul(100) / loaded.size;
            warnings.push(format!("{percent} % of the model runs on the CPU, which is slow; a smaller window or model would fit the GPU"));
        }
        warnings
    }

    /// Returns the schema to send with a request, unless the server cannot constrain answers.
    pub(super) fn format<'r>(&self, request: &'r Request) -> Option<&'r Value> {
        request.constraint.as_deref().filter(|_| self.identity.can_constrain)
    }

    /// Adapts the rest of the session's requests to a failure: drops the feature that the server
    /// refused, or halves the window if the server is short of memory. Returns whether anything
    /// changed.
    pub(super) fn adapt(&mut self, failure: &Failure, request: &Request) -> bool {
        if self.think.is_some()
            && failure.names(&["support thinking", "think value", "invalid think", ".think", "\"think\""])
        {
            self.think = None;
            self.identity.thinking = false;
            if self.asked_to_think {
                self.news.push(format!(
                    "{} does not support thinking; the run continues without it",
                    self.identity.model
                ));
            }
            return true;
        }
        if self.format(request).is_some() && failure.names(&["format", "grammar", "schema"]) {
            self.identity.can_constrain = false;
            return true;
        }
        if self.roles.learn(failure, &request.messages) {
            return true;
        }
        // The server never lowers an explicit window; instead, it fails to load the model
        // (docs/model-apis.md#ollama-options).
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

/// Truncates the digest to as many digits as Ollama shows.
fn short(digest: &str) -> String {
    digest.trim_start_matches("sha256:").chars().take(12).collect()
}
