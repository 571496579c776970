//! Learns what an endpoint supports from its answers and refusals, and adapts the rest of the
//! session's requests accordingly.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::wire::Reasoning;
use crate::failure::Failure;
use crate::memory::Kept;
use crate::roles::Roles;
use crate::shared::Reported;
use crate::{Identity, Message};

/// The field that constrains an answer to a schema.
pub(super) const RESPONSE_FORMAT: &str = "response_format";

/// Fields that may be dropped, and the words that refusals use for them
/// (docs/model-apis.md#openai-request-fields).
pub(super) const OPTIONAL: [(&str, &[&str]); 11] = [
    ("stream_options", &["stream_options", "stream options", "include_usage", "continuous_usage"]),
    ("reasoning_effort", &["reasoning_effort"]),
    ("thinking", &["thinking"]),
    ("chat_template_kwargs", &["chat_template_kwargs"]),
    ("cache_prompt", &["cache_prompt"]),
    ("return_progress", &["return_progress"]),
    ("timings_per_token", &["timings_per_token"]),
    (RESPONSE_FORMAT, &["response_format", "json_schema", "structured output", "grammar", "schema"]),
    ("logprobs", &["logprobs"]),
    ("seed", &["seed"]),
    ("temperature", &["temperature"]),
];

/// What is known about the endpoint so far.
#[derive(Debug, Clone, Default)]
pub(super) struct Learned {
    pub(super) dropped: BTreeSet<&'static str>,
    pub(super) completion_tokens: bool,
    pub(super) reasoning: Reasoning,
    pub(super) roles: Roles,
    /// Whether message content must be a list of parts.
    pub(super) content_parts: bool,
    /// Whether the server cannot stream.
    pub(super) whole: bool,
    /// The maximum number of tokens that the server allows in an answer.
    pub(super) cap: Option<u32>,
    pub(super) identity: Identity,
    /// The model's name in the answers, as of the last check.
    pub(super) answered: Option<String>,
    /// The model's file, as of the last check (llama-server).
    pub(super) file: Option<String>,
    /// What earlier runs have stored about this model.
    pub(super) kept_before: Kept,
    pub(super) reported: Reported,
}

/// What the server reports between turns.
#[derive(Default)]
pub(super) struct Current {
    pub(super) window: Option<u64>,
    pub(super) file: Option<String>,
}

impl Learned {
    /// Checks whether the model or its window has changed since the last check. Returns warnings.
    pub(super) fn check(
        &mut self,
        current: Current,
        answers: Option<String>,
        requested: Option<u64>,
    ) -> Vec<String> {
        let mut warnings = Vec::new();
        for (known, now) in [(&mut self.answered, answers), (&mut self.file, current.file)] {
            let Some(now) = now else { continue };
            let before = known.replace(now.clone()).filter(|before| *before != now);
            warnings.extend(before.map(|before| {
                format!("the server now answers with {now}, not {before}; its answers may differ from now on")
            }));
        }
        if let Some(window) = current.window {
            let window = requested.map_or(window, |requested| requested.min(window));
            let before = self.identity.window.replace(window);
            if before.is_some_and(|before| window < before) {
                warnings.push(format!("the server runs the model with a window of {window} tokens"));
            }
        }
        if self.identity.window.is_none() {
            warnings.push(String::from(
                "the server does not report its context window; set it with --num-ctx if the model forgets the task",
            ));
        }
        self.reported.new_ones(warnings)
    }

    /// Applies what an earlier run learned.
    pub(super) fn recall(&mut self, kept: &Kept) {
        self.kept_before = kept.clone();
        self.roles = kept.roles;
        self.content_parts = kept.content_parts;
        self.completion_tokens = kept.completion_tokens;
        let known = OPTIONAL.iter().map(|(field, _)| *field);
        self.dropped = known.filter(|field| kept.dropped.iter().any(|name| name == field)).collect();
    }

    /// Returns what to remember for later runs. A refused schema is not remembered, because the
    /// server may accept a different schema, or may have accepted this one and failed only while
    /// generating the answer.
    pub(super) fn kept(&self) -> Kept {
        let dropped = self.dropped.iter().filter(|field| **field != RESPONSE_FORMAT);
        Kept {
            roles: self.roles,
            content_parts: self.content_parts,
            completion_tokens: self.completion_tokens,
            dropped: dropped.map(|field| (*field).to_owned()).collect(),
        }
    }

    /// Adapts the rest of the session's requests to a refusal. Returns whether anything changed.
    pub(super) fn adapt(
        &mut self,
        failure: &Failure,
        sent: &[&'static str],
        messages: &[Arc<Message>],
        asked: u32,
    ) -> bool {
        if !self.completion_tokens && failure.names(&["max_completion_tokens"]) {
            self.completion_tokens = true;
            return true;
        }
        if failure.names(&["reasoning_content"]) {
            let next = match self.reasoning {
                Reasoning::Everywhere if failure.names(&["passed back"]) => Reasoning::Filled,
                Reasoning::Filled => Reasoning::Filled,
                _ if failure.names(&["passed back"]) => Reasoning::Everywhere,
                _ => Reasoning::Dropped,
            };
            return std::mem::replace(&mut self.reasoning, next) != next;
        }
        if !self.whole && failure.refuses_stream() {
            self.whole = true;
            return true;
        }
        if let Some(cap) = failure.cap(self.cap.unwrap_or(asked)).filter(|_| failure.room().is_none()) {
            self.cap = Some(cap);
            return true;
        }
        if !self.content_parts && wants_parts(failure) {
            self.content_parts = true;
            return true;
        }
        let named = |(field, words): &&(&'static str, &[&str])| sent.contains(field) && failure.names(words);
        let mut drop: Vec<&'static str> = OPTIONAL.iter().filter(named).map(|(field, _)| *field).collect();
        if drop.is_empty() && self.roles.learn(failure, messages) {
            return true;
        }
        if drop.is_empty() && failure.status() == Some(422) {
            drop = sent.to_vec(); // the refusal mentions no field, so send only the portable ones
        }
        let before = self.dropped.len();
        self.dropped.extend(drop);
        self.dropped.len() > before
    }
}

/// Returns whether a refusal says that message content must be a list.
fn wants_parts(failure: &Failure) -> bool {
    let Some(text) = failure.refusing() else { return false };
    let list = ["a list", "valid list", "an array", "list of parts", "array of"]
        .iter()
        .any(|word| text.contains(word));
    text.contains("content") && list && !text.contains("string or")
}
