//! Parses tasks that are not SWE-bench or SWE-agent instances, and the optional keys that every
//! kind of task may have.

use std::path::{Path, PathBuf};

use serde_json::Value;

use super::Reader;
use super::entry::Entry;
use crate::clones::is_url;
use crate::task::{Task, TaskLimits};

pub(super) const KEYS: &[&str] = &[
    "id",
    "repo",
    "base_commit",
    "task",
    "setup",
    "verify",
    "protected",
    "limits",
    "attempts",
    "model",
    "tags",
];
/// The highest value allowed for `attempts`, the same as for the `--attempts` flag.
const MAX_ATTEMPTS: u32 = 20;
pub(super) const LIMITS: &[&str] = &["max_turns", "max_tokens", "max_seconds", "max_cost"];

impl Reader<'_> {
    pub(super) fn native(&mut self, entry: &Entry) -> Option<Task> {
        let before = self.problems.len();
        self.unknown_keys(entry);
        let id = match (self.string(entry, "id"), &entry.body) {
            (None, Some(_)) => entry.file.file_stem().map(|stem| stem.to_string_lossy().into_owned()),
            (None, None) => self.missing(entry, "id"),
            (id, _) => id,
        };
        let repo = self.string(entry, "repo").or_else(|| self.missing(entry, "repo"));
        let text = match &entry.body {
            None => self.string(entry, "task").or_else(|| self.missing(entry, "task")),
            Some(body) if body.is_empty() => {
                self.problem(&entry.file, entry.line, "no task below the front matter");
                None
            }
            Some(body) => Some(body.clone()),
        };
        let task = self.optional(entry);
        if self.problems.len() > before {
            return None; // all problems of the task have been reported
        }
        let named_repo = repo?;
        let repo = if is_url(&named_repo) {
            PathBuf::from(&named_repo)
        } else {
            entry.file.parent().unwrap_or(Path::new("/")).join(&named_repo)
        };
        Some(Task { id: id?, repo, named_repo, text: text?, ..task })
    }

    /// Returns a task with just the keys that all formats share.
    pub(super) fn optional(&mut self, entry: &Entry) -> Task {
        Task {
            base_commit: self.commit(entry),
            setup: self.string(entry, "setup"),
            verify: self.string(entry, "verify"),
            protected: self.patterns(entry, "protected"),
            limits: self.limits(entry),
            attempts: self.attempts(entry),
            model: self.string(entry, "model"),
            tags: self.strings(entry, "tags"),
            ..Task::default()
        }
    }

    fn patterns(&mut self, entry: &Entry, key: &str) -> Vec<String> {
        let patterns = self.strings(entry, key);
        let line = entry.field(key).map_or(entry.line, |field| field.line);
        for pattern in &patterns {
            if let Err(why) = workspace::Protected::new(std::slice::from_ref(pattern)) {
                self.problem(&entry.file, line, format!("{key}: {why}"));
            }
        }
        patterns
    }

    fn attempts(&mut self, entry: &Entry) -> Option<u32> {
        let field = entry.field("attempts")?;
        let count = field.value.as_u64().and_then(|count| u32::try_from(count).ok());
        let valid = count.filter(|count| (1..=MAX_ATTEMPTS).contains(count));
        if valid.is_none() {
            let message =
                format!("\"attempts\" must be a whole number from 1 to {MAX_ATTEMPTS}, not {}", field.value);
            self.problem(&entry.file, field.line, message);
        }
        valid
    }

    fn unknown_keys(&mut self, entry: &Entry) {
        for field in &entry.fields {
            let message = if entry.body.is_some() && field.key == "task" {
                "the task of a Markdown file is the text below the front matter, not a key".to_owned()
            } else if !KEYS.contains(&field.key.as_str()) {
                unknown(&field.key, KEYS)
            } else {
                continue;
            };
            self.problem(&entry.file, field.line, message);
        }
    }

    fn missing(&mut self, entry: &Entry, key: &str) -> Option<String> {
        // An invalid value has already been reported.
        if entry.field(key).is_none() {
            self.problem(&entry.file, entry.line, format!("{key:?} is missing"));
        }
        None
    }

    /// Returns the value of a key that must be a non-blank string.
    pub(super) fn string(&mut self, entry: &Entry, key: &str) -> Option<String> {
        let field = entry.field(key)?;
        let message = match &field.value {
            Value::String(text) if text.trim().is_empty() => format!("{key:?} is empty"),
            Value::String(text) if text.contains('\0') => format!("{key:?} contains a NUL character"),
            Value::String(text) => return Some(text.clone()),
            other => format!("{key:?} must be a string, not {}; put it in quotes", kind(other)),
        };
        self.problem(&entry.file, field.line, message);
        None
    }

    /// Returns the value of a key that must be a list of non-blank strings.
    pub(super) fn strings(&mut self, entry: &Entry, key: &str) -> Vec<String> {
        let Some(field) = entry.field(key) else { return Vec::new() };
        let text = |value: &Value| value.as_str().filter(|text| !text.trim().is_empty()).map(str::to_owned);
        let texts: Option<Vec<String>> =
            field.value.as_array().and_then(|values| values.iter().map(text).collect());
        texts.unwrap_or_else(|| {
            self.problem(&entry.file, field.line, format!("{key:?} must be a list of strings"));
            Vec::new()
        })
    }

    /// Returns the base commit, a revision that git cannot mistake for an option.
    pub(super) fn commit(&mut self, entry: &Entry) -> Option<String> {
        let commit = self.string(entry, "base_commit")?;
        if !commit.starts_with('-') && !commit.contains(|c: char| c.is_whitespace() || c.is_control()) {
            return Some(commit);
        }
        let line = entry.field("base_commit").map_or(entry.line, |field| field.line);
        self.problem(&entry.file, line, format!("{commit:?} is not a valid commit"));
        None
    }

    pub(super) fn limits(&mut self, entry: &Entry) -> TaskLimits {
        let mut limits = TaskLimits::default();
        let Some(field) = entry.field("limits") else { return limits };
        let Value::Object(given) = &field.value else {
            let message = format!("\"limits\" must be an object with {}", LIMITS.join(", "));
            self.problem(&entry.file, field.line, message);
            return limits;
        };
        for (key, value) in given.iter().filter(|(_, value)| !value.is_null()) {
            let (count, cost) = (value.as_u64().filter(|n| *n > 0), value.as_f64().filter(|n| *n > 0.0));
            match key.as_str() {
                "max_turns" => limits.max_turns = count.and_then(|n| u32::try_from(n).ok()),
                "max_tokens" => limits.max_tokens = count,
                "max_seconds" => limits.max_seconds = count,
                "max_cost" => limits.max_cost = cost,
                _ => self.problem(&entry.file, field.line, format!("limits: {}", unknown(key, LIMITS))),
            }
            let (valid, expected) = match key.as_str() {
                "max_turns" => (limits.max_turns.is_some(), "a whole number above 0"),
                "max_cost" => (cost.is_some(), "dollars above 0"),
                _ => (count.is_some() || !LIMITS.contains(&key.as_str()), "a whole number above 0"),
            };
            if !valid {
                let message = format!("limits: {key:?} must be {expected}, not {value}");
                self.problem(&entry.file, field.line, message);
            }
        }
        limits
    }
}

fn unknown(key: &str, known: &[&str]) -> String {
    match nearest(key, known, 1 + key.chars().count() / 5) {
        Some(near) => format!("unknown key {key:?}; did you mean {near:?}?"),
        None => format!("unknown key {key:?}; valid keys are {}", known.join(", ")),
    }
}

/// Returns the known key closest to a misspelled one, if it is at most `edits` edits away.
pub(super) fn nearest<'k>(key: &str, known: &[&'k str], edits: usize) -> Option<&'k str> {
    let near = known.iter().map(|name| (strsim::osa_distance(key, name), *name));
    near.filter(|(distance, _)| *distance <= edits)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, name)| name)
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "nothing",
        Value::Bool(_) => "true or false",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}
