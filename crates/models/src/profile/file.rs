//! Parses one profile file.

use std::sync::Arc;

use serde::Deserialize;
use toml::{Spanned, Value};

use super::{About, names};
use crate::Think;

/// The edit formats that a model can be told to use.
pub const EDIT_FORMATS: [&str; 5] = ["edits", "unified", "envelope", "search-replace", "whole-file"];

/// The kinds of servers, as in [`crate::Identity::server`].
pub(crate) const SERVERS: [&str; 7] =
    ["ollama", "embedded", "deepseek", "llama-server", "vllm", "lm-studio", "openai"];

/// A profile file.
#[derive(Debug, Clone, PartialEq)]
pub struct File {
    /// The file's name, as shown in messages.
    pub(super) source: Arc<str>,
    /// The words in each name; empty for the name `*`.
    names: Vec<Vec<String>>,
    pub(super) values: Values,
}

/// The values in a file. If several entries for a setting apply, the last one wins.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Values {
    /// Whether to ask the model for whole files instead of tool calls.
    pub(super) approach: Vec<Entry<bool>>,
    pub(super) edit_format: Vec<Entry<String>>,
    pub(super) temperature: Vec<Entry<f32>>,
    pub(super) think: Vec<Entry<Think>>,
    pub(super) window: Vec<Entry<u64>>,
    /// Whether to constrain tool calls, if the server can.
    pub(super) constrain: Vec<Entry<bool>>,
}

/// A value, its reason, and the conditions under which it applies.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Entry<T> {
    pub(super) value: T,
    pub(super) reason: String,
    above_b: Option<f32>,
    up_to_b: Option<f32>,
    server: Option<String>,
    thinking: Option<bool>,
}

impl<T> Entry<T> {
    /// Returns whether the entry applies to a model, given whether the model thinks. An entry that
    /// depends on the size never applies to a model of unknown size.
    pub(super) fn applies(&self, about: About<'_>, thinking: bool) -> bool {
        let size = about.parameters_b;
        self.above_b.is_none_or(|least| size.is_some_and(|size| size > least))
            && self.up_to_b.is_none_or(|most| size.is_some_and(|size| size <= most))
            && self.server.as_ref().is_none_or(|server| server == about.server)
            && self.thinking.is_none_or(|wanted| wanted == thinking)
    }
}

/// The contents of a file, before they are checked.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawFile {
    names: Option<Spanned<Vec<String>>>,
    #[serde(default)]
    approach: Vec<RawEntry>,
    #[serde(default)]
    edit_format: Vec<RawEntry>,
    #[serde(default)]
    temperature: Vec<RawEntry>,
    #[serde(default)]
    think: Vec<RawEntry>,
    #[serde(default)]
    window: Vec<RawEntry>,
    #[serde(default)]
    constrain: Vec<RawEntry>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawEntry {
    value: Spanned<Value>,
    above_b: Option<Spanned<Value>>,
    up_to_b: Option<Spanned<Value>>,
    server: Option<Spanned<Value>>,
    thinking: Option<Spanned<bool>>,
    measured: Option<String>,
    guess: Option<Spanned<String>>,
}

impl File {
    /// Parses a file. `source` is the file's name, as shown in messages.
    ///
    /// # Errors
    /// Returns a message that includes the source, the line, the key and the valid values.
    pub fn parse(source: &str, text: &str) -> Result<Self, String> {
        let reader = Reader { source, text };
        let raw: RawFile = toml::from_str(text)
            .map_err(|e| reader.at(e.span().map_or(0, |span| span.start), e.message()))?;
        let Some(names) = raw.names.filter(|names| !names.get_ref().is_empty()) else {
            return Err(reader.at(0, "names is missing; list the models, as in names = [\"qwen3-coder\"]"));
        };
        let at = names.span().start;
        let names = names.into_inner().iter().map(|name| reader.name(at, name)).collect::<Result<_, _>>()?;
        let values = Values {
            approach: reader.entries("approach", raw.approach, "one of tools, whole-file", approach)?,
            edit_format: reader.entries(
                "edit_format",
                raw.edit_format,
                &format!("one of {}", EDIT_FORMATS.join(", ")),
                |value| word(value, &EDIT_FORMATS),
            )?,
            temperature: reader.entries("temperature", raw.temperature, "a number from 0 to 2", |value| {
                number(value).filter(|number| (0.0..=2.0).contains(number)).map(|number| number as f32)
            })?,
            think: reader.entries(
                "think",
                raw.think,
                "one of auto, on, off, low, medium, high, max",
                |value| value.as_str()?.parse().ok(),
            )?,
            window: reader.entries("window", raw.window, "an integer from 256 to 16777216", |value| {
                u64::try_from(value.as_integer()?).ok().filter(|tokens| (256..=1 << 24).contains(tokens))
            })?,
            constrain: reader.entries("constrain", raw.constrain, "one of on, off", constrain)?,
        };
        Ok(Self { source: source.into(), names, values })
    }

    /// Returns the length of the longest name in this file that the model's name contains, or
    /// `None` if it contains none of them.
    pub(super) fn matches(&self, model: &[String]) -> Option<usize> {
        let length = |name: &Vec<String>| name.iter().map(String::len).sum::<usize>() + name.len();
        self.names.iter().filter(|name| names::contains(model, name)).map(length).max()
    }
}

/// Checks and converts raw values. Its errors include the line number.
struct Reader<'a> {
    source: &'a str,
    text: &'a str,
}

impl Reader<'_> {
    fn at(&self, offset: usize, message: impl AsRef<str>) -> String {
        let line = 1 + self.text.bytes().take(offset).filter(|b| *b == b'\n').count();
        // The parser's messages may span several lines.
        format!("{}:{line}: {}", self.source, message.as_ref().trim_end().replace('\n', "; "))
    }

    fn name(&self, at: usize, name: &str) -> Result<Vec<String>, String> {
        let words = names::words(name);
        if words.is_empty() || (name != "*" && name.contains('*')) {
            let message = format!(
                "names contains {name:?}, which is not the name of a model; write a family such as \"qwen3-coder\", or \"*\" for every model"
            );
            return Err(self.at(at, message));
        }
        Ok(if name == "*" { Vec::new() } else { words })
    }

    fn entries<T>(
        &self,
        key: &str,
        entries: Vec<RawEntry>,
        expected: &str,
        value: impl Fn(&Value) -> Option<T>,
    ) -> Result<Vec<Entry<T>>, String> {
        entries.into_iter().map(|entry| self.entry(key, entry, expected, &value)).collect()
    }

    fn entry<T>(
        &self,
        key: &str,
        raw: RawEntry,
        expected: &str,
        value: impl Fn(&Value) -> Option<T>,
    ) -> Result<Entry<T>, String> {
        let size = |raw: Option<&Spanned<Value>>, name: &str| {
            self.part(key, name, raw, "a parameter count in billions", |value| {
                number(value).map(|billions| billions as f32).filter(|billions| *billions > 0.0)
            })
        };
        if let Some(thinking) = raw.thinking.as_ref().filter(|_| key != "temperature") {
            let message = format!("{key} cannot depend on thinking; remove the line");
            return Err(self.at(thinking.span().start, message));
        }
        let reason = match (&raw.measured, &raw.guess) {
            (Some(_), Some(guess)) => {
                let message = format!("{key} is both measured and a guess; remove one of the lines");
                return Err(self.at(guess.span().start, message));
            }
            (Some(measured), None) => format!("measured: {}", one_line(measured)),
            (None, Some(guess)) => format!("a guess: {}", one_line(guess.get_ref())),
            (None, None) => String::new(),
        };
        let Some(given) = value(raw.value.get_ref()) else {
            return Err(self.invalid(key, "value", &raw.value, expected));
        };
        Ok(Entry {
            value: given,
            reason,
            above_b: size(raw.above_b.as_ref(), "above_b")?,
            up_to_b: size(raw.up_to_b.as_ref(), "up_to_b")?,
            server: self.part(
                key,
                "server",
                raw.server.as_ref(),
                &format!("one of {}", SERVERS.join(", ")),
                |value| word(value, &SERVERS),
            )?,
            thinking: raw.thinking.map(Spanned::into_inner),
        })
    }

    /// Reads an optional part of an entry.
    fn part<T>(
        &self,
        key: &str,
        name: &str,
        raw: Option<&Spanned<Value>>,
        expected: &str,
        value: impl Fn(&Value) -> Option<T>,
    ) -> Result<Option<T>, String> {
        let read =
            |raw: &Spanned<Value>| value(raw.get_ref()).ok_or_else(|| self.invalid(key, name, raw, expected));
        raw.map(read).transpose()
    }

    fn invalid(&self, key: &str, name: &str, raw: &Spanned<Value>, expected: &str) -> String {
        let message = format!("{name} of {key} must be {expected}, not {}", raw.get_ref());
        self.at(raw.span().start, message)
    }
}

fn approach(value: &Value) -> Option<bool> {
    match value.as_str()? {
        "tools" => Some(false),
        "whole-file" => Some(true),
        _ => None,
    }
}

fn constrain(value: &Value) -> Option<bool> {
    match value.as_str()? {
        "on" => Some(true),
        "off" => Some(false),
        _ => None,
    }
}

fn word(value: &Value, known: &[&str]) -> Option<String> {
    value.as_str().filter(|word| known.contains(word)).map(str::to_owned)
}

fn number(value: &Value) -> Option<f64> {
    value.as_float().or_else(|| value.as_integer().map(|n| n as f64)).filter(|n| n.is_finite())
}

/// Joins the text into one line, without a final period.
fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ").trim_end_matches('.').to_owned()
}
