//! What an endpoint's refusals and answers teach about it, kept for the rest of the session.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::wire::Reasoning;
use crate::failure::Failure;
use crate::memory::Kept;
use crate::roles::Roles;
use crate::shared::Said;
use crate::{Identity, Message};

/// Fields that a server may do without, and the words by which a refusal names them (wire reference 3.1).
pub(super) const OPTIONAL: [(&str, &[&str]); 11] = [
    ("stream_options", &["stream_options", "stream options", "include_usage", "continuous_usage"]),
    ("response_format", &["response_format", "json_schema", "json_object", "json schema", "grammar"]),
    ("reasoning_effort", &["reasoning_effort"]),
    ("thinking", &["thinking"]),
    ("chat_template_kwargs", &["chat_template_kwargs"]),
    ("cache_prompt", &["cache_prompt"]),
    ("return_progress", &["return_progress"]),
    ("timings_per_token", &["timings_per_token"]),
    ("logprobs", &["logprobs"]),
    ("seed", &["seed"]),
    ("temperature", &["temperature"]),
];

/// What answers taught about the endpoint.
#[derive(Debug, Clone)]
pub(super) struct Learned {
    pub(super) dropped: BTreeSet<&'static str>,
    pub(super) completion_tokens: bool,
    pub(super) reasoning: Reasoning,
    pub(super) roles: Roles,
    /// Whether a message's content has to be a list of parts.
    pub(super) content_parts: bool,
    /// Whether the server cannot stream.
    pub(super) whole: bool,
    /// The most tokens that the server allows an answer.
    pub(super) cap: Option<u32>,
    pub(super) identity: Identity,
    /// What answered when it was last looked at: by the name in its answers, and on llama-server by its file.
    pub(super) answered: Option<String>,
    pub(super) file: Option<String>,
    /// What is in the memory already.
    pub(super) kept_before: Kept,
    pub(super) said: Said,
}

/// What the server tells of itself between two turns.
#[derive(Default)]
pub(super) struct Now {
    pub(super) window: Option<u64>,
    pub(super) file: Option<String>,
}

impl Learned {
    /// Compares what answers with what answered before; says what is worth a warning.
    pub(super) fn look_at(&mut self, now: Now, answers: Option<String>, wanted: Option<u64>) -> Vec<String> {
        let mut warnings = Vec::new();
        for (known, now) in [(&mut self.answered, answers), (&mut self.file, now.file)] {
            let Some(now) = now else { continue };
            let before = known.replace(now.clone()).filter(|before| *before != now);
            warnings.extend(before.map(|before| {
                format!("the server answers with {now} now, before it was {before}: its answers may differ from here on")
            }));
        }
        if let Some(window) = now.window {
            let window = wanted.map_or(window, |wanted| wanted.min(window));
            let before = self.identity.window.replace(window);
            if before.is_some_and(|before| window < before) {
                warnings.push(format!("the server runs the model with a window of {window} tokens"));
            }
        }
        if self.identity.window.is_none() {
            warnings.push(String::from(
                "the server does not tell its context window; set it if answers forget the task",
            ));
        }
        self.said.news(warnings)
    }

    /// Takes over what an earlier run learned.
    pub(super) fn recall(&mut self, kept: &Kept) {
        self.kept_before = kept.clone();
        self.roles = kept.roles;
        self.content_parts = kept.content_parts;
        self.completion_tokens = kept.completion_tokens;
        let known = OPTIONAL.iter().map(|(field, _)| *field);
        self.dropped = known.filter(|field| kept.dropped.iter().any(|name| name == field)).collect();
        self.identity.constrains &= !self.dropped.contains("response_format");
    }

    /// What a later run may take over.
    pub(super) fn kept(&self) -> Kept {
        Kept {
            roles: self.roles,
            content_parts: self.content_parts,
            completion_tokens: self.completion_tokens,
            dropped: self.dropped.iter().map(|field| (*field).to_owned()).collect(),
        }
    }

    /// Gives up what the server says it cannot do, for the rest of the session. Returns whether anything changed.
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
            drop = sent.to_vec(); // it does not say which: only the portable fields are left
        }
        if drop.contains(&"response_format") {
            self.identity.constrains = false;
        }
        let before = self.dropped.len();
        self.dropped.extend(drop);
        self.dropped.len() > before
    }
}

/// Whether a refusal says that a message's content has to be a list.
fn wants_parts(failure: &Failure) -> bool {
    let Some(text) = failure.refusing() else { return false };
    let list = ["a list", "valid list", "an array", "list of parts", "array of"]
        .iter()
        .any(|word| text.contains(word));
    text.contains("content") && list && !text.contains("string or")
}
