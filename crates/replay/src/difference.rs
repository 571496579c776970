//! The first difference between a replay and its record.

use std::collections::HashSet;

use journal::{Event, Role, Step};
use serde::Serialize;

/// A kind of difference.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// A request differs.
    Asked,
    /// The replay interpreted a recorded answer differently, or needs something that was not
    /// recorded, such as another answer.
    Answered,
    /// A tool's result differs.
    Tool,
    /// A command's result differs.
    Command,
    /// A file differs at the end.
    Tree,
    /// The run ended earlier, later, or differently.
    Ended,
}

impl Kind {
    /// Returns a short description of the kind.
    #[must_use]
    pub fn describe(self) -> &'static str {
        match self {
            Kind::Asked => "the request differs",
            Kind::Answered => "the answer was interpreted differently",
            Kind::Tool => "a tool's result differs",
            Kind::Command => "a command's result differs",
            Kind::Tree => "the tree differs",
            Kind::Ended => "the run ended differently",
        }
    }
}

/// A difference between a replay and its record.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Difference {
    /// Its kind.
    pub kind: Kind,
    /// The turn, or 0 before the first request.
    pub turn: u32,
    /// The number of the recorded event, or null at the end of the record.
    pub event: Option<u64>,
    /// What differs, in a few words.
    pub what: String,
    /// The recorded text.
    pub recorded: String,
    /// The replayed text.
    pub now: String,
}

impl Difference {
    /// Returns the difference between a recorded and a replayed step. `before` holds the earlier
    /// steps, which are identical in both runs. `commands` holds the names of the tools that run
    /// commands.
    pub(crate) fn between(
        wanted: Option<&Step>,
        now: Option<&Step>,
        before: &[Step],
        commands: &HashSet<String>,
    ) -> Self {
        let recorded = wanted.map(|s| Described::of(&s.event, before, commands));
        let replayed = now.map(|s| Described::of(&s.event, before, commands));
        let nothing = || Described { kind: Kind::Ended, what: "nothing more".into(), text: String::new() };
        let (recorded, replayed) = (recorded.unwrap_or_else(nothing), replayed.unwrap_or_else(nothing));
        let turn = wanted.or(now).map_or(0, |s| s.turn);
        let event = wanted.map(|s| s.seq);
        // Use the kind of the replayed step, unless one of the two runs has ended.
        let kind = if recorded.kind == Kind::Ended { Kind::Ended } else { replayed.kind };
        let what = match recorded.what == replayed.what {
            true => recorded.what,
            false => format!("recorded: {}; replayed: {}", recorded.what, replayed.what),
        };
        Self { kind, turn, event, what, recorded: recorded.text, now: replayed.text }
    }

    /// Returns the difference for a replay that needs something that is not in the record.
    pub(crate) fn beyond(wanted: Option<&Step>, turn: u32, now: &str, commands: &HashSet<String>) -> Self {
        let recorded = wanted.map(|s| Described::of(&s.event, &[], commands));
        let what = match &recorded {
            Some(recorded) => format!("recorded: {}; replayed: {now}", recorded.what),
            None => format!("replayed: {now}"),
        };
        let recorded = recorded.map(|r| r.text).unwrap_or_default();
        Self { kind: Kind::Answered, turn, event: wanted.map(|s| s.seq), what, recorded, now: String::new() }
    }

    /// Returns the difference for a file that does not match its recorded final state.
    pub fn in_tree(turn: u32, path: &str, recorded: String, now: String) -> Self {
        Self { kind: Kind::Tree, turn, event: None, what: path.to_owned(), recorded, now }
    }
}

/// The description of an event.
struct Described {
    kind: Kind,
    what: String,
    text: String,
}

impl Described {
    fn of(event: &Event, before: &[Step], commands: &HashSet<String>) -> Self {
        let (kind, what, text) = match event {
            Event::Message { role, content, images } => {
                let earlier = before
                    .iter()
                    .filter(|s| matches!(s.event, Event::Message { .. } | Event::Output { .. }))
                    .count();
                let what = match role {
                    Role::System => "the system prompt",
                    Role::User => "the message",
                    Role::Assistant => "the start of an answer",
                };
                let images: String = images.iter().map(|name| format!("\nimage {name}\n")).collect();
                (Kind::Asked, format!("{what} ({})", earlier + 1), format!("{content}{images}"))
            }
            Event::Rewound { keep, why } => {
                (Kind::Asked, "a rewind of the conversation".into(), format!("to {keep} messages: {why}\n"))
            }
            Event::Request { attempt, messages, temperature, seed, max_tokens, .. } => {
                let temperature = temperature.map_or("none".into(), |t| t.to_string());
                let seed = seed.map_or("none".into(), |s| s.to_string());
                let text = format!(
                    "attempt {attempt}\nmessages {messages}\ntemperature {temperature}\nseed {seed}\nmax_tokens {max_tokens}\n"
                );
                (Kind::Asked, "the request".into(), text)
            }
            Event::Call { call, tool, arguments, span, repairs, .. } => {
                let arguments = serde_json::to_string_pretty(arguments).unwrap_or_default();
                let text = format!(
                    "{tool} {arguments}\nat bytes {} to {}\nrepairs: {}\n",
                    span.0,
                    span.1,
                    repairs.join(", ")
                );
                (Kind::Answered, format!("call {call}"), text)
            }
            Event::Refused { message, .. } => (Kind::Answered, "a refusal".into(), format!("{message}\n")),
            Event::Cut { why, .. } => {
                let why = serde_json::to_value(why)
                    .ok()
                    .and_then(|v| v.as_str().map(str::to_owned))
                    .unwrap_or_default();
                (Kind::Answered, "a cut".into(), format!("{why}\n"))
            }
            Event::Output { content, thinking, ended_by, .. } => {
                let text = format!("{thinking}{content}\nended by {ended_by:?}\n");
                (Kind::Answered, "the answer as interpreted".into(), text)
            }
            Event::ToolFinished { tool, status, text, changed, .. } => {
                let kind = if commands.contains(tool) { Kind::Command } else { Kind::Tool };
                let mut text = format!("{status}\n{text}\n");
                if !changed.is_empty() {
                    text = format!("{text}changed {}\n", changed.join(", "));
                }
                (kind, format!("the result of {tool}"), text)
            }
            Event::Checked(check) => {
                let how = if check.passed { "passed" } else { "failed" };
                let text = format!("{}: {how}\n{}\n", check.command, check.text);
                (Kind::Command, "the verification".into(), text)
            }
            Event::ModelChanged { new_try, model, .. } => {
                let how = if *new_try { "in a new try" } else { "in the same conversation" };
                (Kind::Asked, "a model change".into(), format!("to {}, {how}\n", model.model))
            }
            Event::Finished(report) => {
                (Kind::Ended, "the end".into(), format!("{}: {}\n", report.ending.label(), report.message))
            }
            other => (Kind::Ended, "another event".into(), format!("{other:?}")),
        };
        Self { kind, what, text }
    }
}
