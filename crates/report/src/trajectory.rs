//! Divides a session into steps that can be read one at a time: the start, each turn, and the end.

use journal::{Check, Ending, Event, Record, Report, Role};
use preview::{figures, sanitize};
use serde::Serialize;
use serde_json::{Map, Value};

use crate::Mask;

/// The maximum number of characters in a title.
const TITLE: usize = 120;

/// The start of a session, one of its turns, or its end.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Step {
    /// The turn; `None` for the start and the end.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub turn: Option<u32>,
    /// Milliseconds since the start of the session.
    pub at: u64,
    /// Number of prompt tokens in the request, if the server reported it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub prompt: Option<u64>,
    /// Number of tokens generated for the answer, if the server reported it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub generated: Option<u64>,
    /// What happened, in order.
    pub parts: Vec<Part>,
}

/// A part of a step.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Part {
    /// `task`, `prompt`, `thinking`, `text`, `answer`, `call`, `edit`, `result`, `refused`,
    /// `check`, `note`, `warning`, `end` or `diff`. `edit` is a call whose text is a diff.
    pub kind: &'static str,
    /// A one-line title.
    pub title: String,
    /// The details; may be empty.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub text: String,
    /// Whether the part succeeded; `None` if it has no outcome.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ok: Option<bool>,
    /// How long it took.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ms: Option<u64>,
}

impl Part {
    fn new(kind: &'static str, title: impl Into<String>, text: impl Into<String>) -> Self {
        Self { kind, title: title.into(), text: text.into(), ok: None, ms: None }
    }

    fn outcome(self, ok: bool, ms: u64) -> Self {
        Self { ok: Some(ok), ms: Some(ms), ..self }
    }
}

/// Converts the records of a session to steps. All text is masked and sanitized.
#[must_use]
pub fn steps(records: &[Record], mask: Mask<'_>) -> Vec<Step> {
    let mut steps = vec![Step::default()];
    let start = records.first().map_or(0, |record| record.time_ms);
    for record in records {
        let at = record.time_ms.saturating_sub(start);
        let turn = match &record.event {
            Event::Request { turn, .. } => Some(*turn),
            Event::Finished(_) => None,
            _ => steps.last().and_then(|step| step.turn),
        };
        let Some(last) = steps.last_mut() else { continue };
        let step = if turn == last.turn && !matches!(record.event, Event::Finished(_)) {
            last
        } else {
            steps.push(Step { turn, at, ..Step::default() });
            let Some(new) = steps.last_mut() else { continue };
            new
        };
        add(step, &record.event, mask);
    }
    for part in steps.iter_mut().flat_map(|step| &mut step.parts) {
        part.title = sanitize::short(&mask(&part.title), TITLE);
        part.text = sanitize::text(mask(part.text.trim_end()).trim_start_matches('\n')).into_owned();
    }
    for step in &mut steps {
        step.parts.retain(|part| part.kind != "text" || !part.text.trim().is_empty());
    }
    steps
}

fn add(step: &mut Step, event: &Event, mask: Mask<'_>) {
    let parts = &mut step.parts;
    match event {
        Event::Session { task, root, version, settings, .. } => {
            parts.push(Part::new("task", "task", task));
            let lines = settings.iter().map(|(name, value)| format!("{name} = {value}\n"));
            let text = format!("agent {version} in {root}\n{}", lines.collect::<String>());
            parts.push(Part::new("note", "settings", text));
        }
        Event::Model(model) => {
            let title = format!("model {} on {}", model.model, model.server);
            let window = model.window.map_or("unknown".into(), figures::thousands);
            let text = format!("window {window}, approach {}, chosen because: {}", model.approach, model.why);
            parts.push(Part::new("note", title, text));
        }
        Event::Sandbox { enforced: false, summary, .. } => {
            parts.push(Part::new("warning", "sandbox", summary));
        }
        // Show only the messages before the first turn: later ones repeat results and refusals.
        Event::Message { role, content, .. } if step.turn.is_none() => {
            let title = if *role == Role::System { "system prompt" } else { "first message" };
            parts.push(Part::new("prompt", title, content));
        }
        Event::UserMessage { text } => parts.push(Part::new("task", "message from the user", text)),
        Event::Thinking { text, .. } => append(parts, "thinking", text),
        Event::Text { text, .. } => append(parts, "text", text),
        Event::Call { tool, arguments, repairs, .. } => parts.push(call(tool, arguments, repairs, mask)),
        Event::Refused { tool, message, .. } => {
            let title = format!("{} refused", tool.as_deref().unwrap_or("answer"));
            parts.push(Part { ok: Some(false), ..Part::new("refused", title, message) });
        }
        Event::Output { content, thinking, counts, .. } => {
            (step.prompt, step.generated) = (counts.prompt_tokens, counts.generated_tokens);
            if !thinking.is_empty() {
                let place = parts.iter().position(|part| part.kind == "thinking");
                parts.retain(|part| part.kind != "thinking");
                let place = place.unwrap_or(0).min(parts.len());
                parts.insert(place, Part::new("thinking", "thinking", thinking));
            }
            // If the answer's calls or text are already shown, leave out the answer itself.
            let said = |part: &Part| match part.kind {
                "call" | "edit" => true,
                "text" => part.text.trim() == content.trim(),
                _ => false,
            };
            if !content.trim().is_empty() && !parts.iter().any(said) {
                parts.push(Part::new("answer", "complete answer", content));
            }
        }
        Event::ToolFinished { tool, status, text, changed, ms, .. } => {
            let title = match changed.as_slice() {
                [] => format!("{tool}: {status}"),
                files => format!("{tool}: {status}, changed {}", files.join(", ")),
            };
            parts.push(Part::new("result", title, text).outcome(status == "ok", *ms));
        }
        Event::Checked(Check { command, passed, text, ms, .. }) => {
            let title = format!("check {}: {command}", if *passed { "passed" } else { "failed" });
            parts.push(Part::new("check", title, text).outcome(*passed, *ms));
        }
        Event::AnswerLost { .. } => parts.push(Part::new("warning", "the answer was cut off", "")),
        Event::Retry { error, wait_ms, .. } => {
            let title = format!("request failed; retrying in {}", figures::duration(*wait_ms));
            parts.push(Part::new("warning", title, error));
        }
        Event::Overflow { .. } => {
            parts.push(Part::new("warning", "the request exceeded the context window", ""));
        }
        Event::Rewound { why, .. } => {
            parts.push(Part::new("note", format!("conversation rewound: {why}"), ""))
        }
        Event::TryEnded { number, of, ending, message, .. } => {
            let title = format!("try {number} of {of}: {}", ending.label());
            parts.push(Part::new("warning", title, message));
        }
        Event::Reverted { .. } => parts.push(Part::new("note", "changes reverted", "")),
        Event::Resumed { .. } => parts.push(Part::new("note", "resumed by another process", "")),
        Event::Guard { message } => parts.push(Part::new("warning", "guard", message)),
        Event::Warning { message } => parts.push(Part::new("warning", "warning", message)),
        Event::Finished(Report { ending, message, diff, .. }) => {
            let end = Part::new("end", ending.label(), message);
            parts.push(Part { ok: Some(*ending == Ending::Verified), ..end });
            if !diff.patch.is_empty() {
                let files = figures::plural(diff.files.len() as u64, "file");
                let title = format!("all changes: {files}, +{} -{}", diff.added, diff.removed);
                parts.push(Part::new("diff", title, &diff.patch));
            }
        }
        _ => {}
    }
}

/// Appends a streamed piece to the last part if that part has the same kind; otherwise starts a new
/// part.
fn append(parts: &mut Vec<Part>, kind: &'static str, text: &str) {
    match parts.last_mut().filter(|part| part.kind == kind) {
        Some(part) => part.text.push_str(text),
        None => parts.push(Part::new(kind, kind, text)),
    }
}

fn call(tool: &str, arguments: &Value, repairs: &[String], mask: Mask<'_>) -> Part {
    let mut arguments = arguments.clone();
    mask_strings(&mut arguments, mask);
    let Value::Object(map) = &arguments else { return Part::new("call", tool, arguments.to_string()) };
    let about = map.iter().find_map(|(_, value)| value.as_str()).unwrap_or_default();
    let about = about.lines().next().unwrap_or_default();
    let repaired = if repairs.is_empty() { "" } else { " (repaired)" };
    match diff(map) {
        Some((paths, text)) => Part::new("edit", format!("{tool} {paths}{repaired}"), text),
        None => Part::new("call", format!("{tool} {about}{repaired}"), listed(map)),
    }
}

fn mask_strings(value: &mut Value, mask: Mask<'_>) {
    match value {
        Value::String(text) => *text = mask(text).into_owned(),
        Value::Array(items) => items.iter_mut().for_each(|item| mask_strings(item, mask)),
        Value::Object(fields) => fields.values_mut().for_each(|field| mask_strings(field, mask)),
        _ => {}
    }
}

/// Lists the arguments, one per line. Multi-line text starts on a new line.
fn listed(map: &Map<String, Value>) -> String {
    let line = |(name, value): (&String, &Value)| match value {
        Value::String(text) if text.contains('\n') => format!("{name}:\n{}\n", text.trim_end()),
        Value::String(text) => format!("{name}: {text}\n"),
        other => format!("{name}: {other}\n"),
    };
    map.iter().map(line).collect()
}

/// Returns the paths and a diff if the arguments describe an edit: a `patch`, or `edits` with
/// `search` and `replace`.
fn diff(map: &Map<String, Value>) -> Option<(String, String)> {
    if let Some(patch) = map.get("patch").and_then(Value::as_str) {
        let path = map.get("path").and_then(Value::as_str).unwrap_or_default();
        return Some((path.to_owned(), patch.to_owned()));
    }
    let edits = map.get("edits")?.as_array()?;
    let (mut paths, mut text) = (Vec::new(), String::new());
    for edit in edits {
        let field = |name: &str| edit.get(name).and_then(Value::as_str);
        let path = field("path").or_else(|| map.get("path")?.as_str()).unwrap_or_default();
        if !paths.contains(&path) {
            paths.push(path);
        }
        text.push_str(&format!("@@ {path}\n"));
        changed_lines(field("search")?, field("replace")?, &mut text);
    }
    Some((paths.join(", "), text))
}

/// Appends the lines that differ and the unchanged lines around them.
fn changed_lines(old: &str, new: &str, out: &mut String) {
    let (old, new): (Vec<_>, Vec<_>) = (old.lines().collect(), new.lines().collect());
    let start = old.iter().zip(&new).take_while(|(a, b)| a == b).count();
    let (old_rest, new_rest) = (old.get(start..).unwrap_or_default(), new.get(start..).unwrap_or_default());
    let end = old_rest.iter().rev().zip(new_rest.iter().rev()).take_while(|(a, b)| a == b).count();
    let (removed, kept) = old_rest.split_at(old_rest.len() - end);
    let added = new_rest.get(..new_rest.len() - end).unwrap_or_default();
    let head = old.get(..start).unwrap_or_default();
    for (sign, lines) in [(' ', head), ('-', removed), ('+', added), (' ', kept)] {
        lines.iter().for_each(|line| out.extend([String::from(sign), (*line).to_owned(), "\n".into()]));
    }
}

#[cfg(test)]
mod tests {
    use std::borrow::Cow;

    use super::*;
    use serde_json::json;

    fn plain(text: &str) -> Cow<'_, str> {
        Cow::Borrowed(text)
    }

    fn told(events: Vec<Value>) -> Vec<Step> {
        let record = |(seq, mut event): (usize, Value)| {
            let at = seq as u64 * 1_000;
            event
                .as_object_mut()
                .unwrap()
                .extend(json!({"v": 1, "seq": seq, "time_ms": at}).as_object().unwrap().clone());
            serde_json::from_value::<Record>(event).unwrap()
        };
        steps(&events.into_iter().enumerate().map(record).collect::<Vec<_>>(), &plain)
    }

    fn request(turn: u32) -> Value {
        json!({"event": "request", "turn": turn, "attempt": 1, "messages": 2, "estimated_tokens": 1,
               "temperature": null, "seed": null, "max_tokens": 9})
    }

    fn output(turn: u32, content: &str) -> Value {
        json!({"event": "output", "turn": turn, "content": content, "ended_by": "stop",
               "counts": {"prompt_tokens": 7, "evaluated_tokens": null, "generated_tokens": 3,
                          "first_token_ms": null, "total_ms": 5}})
    }

    fn shape(steps: &[Step]) -> Vec<(Option<u32>, Vec<&str>)> {
        steps.iter().map(|s| (s.turn, s.parts.iter().map(|p| p.kind).collect())).collect()
    }

    #[test]
    fn a_recorded_session_has_a_step_for_the_start_each_turn_and_the_end() {
        let text = include_str!("../../../fixtures/sessions/by-tools.jsonl");
        let records: Vec<Record> = text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
        let steps = steps(&records, &plain);
        let turns: Vec<_> = steps.iter().map(|s| s.turn).collect();
        assert_eq!(turns.len(), 17);
        assert_eq!((turns[0], turns[1], turns[15], turns[16]), (None, Some(1), Some(15), None));
        let parts = |n: usize| steps[n].parts.iter().map(|p| p.kind).collect::<Vec<_>>();
        assert_eq!(parts(1), ["call", "result"]);
        assert_eq!(parts(2), ["refused", "answer"]);
        assert_eq!(parts(5), ["text"], "the text is the whole answer");
        assert_eq!(parts(10), ["edit", "result", "check"]);
        assert_eq!(parts(16), ["end", "diff"]);
        assert_eq!(steps[10].parts[0].title, "apply_patch add.sh");
        assert_eq!(steps[10].parts[0].text, "@@ add.sh\n-$1 - $2\n+$1 * $2");
    }

    #[test]
    fn pieces_of_thinking_and_text_are_joined() {
        let piece = |kind: &str, text: &str| json!({"event": kind, "turn": 1, "text": text});
        let steps = told(vec![
            request(1),
            piece("thinking", "a"),
            piece("thinking", "b"),
            piece("text", "c"),
            piece("text", "d"),
            output(1, "cd"),
        ]);
        assert_eq!(shape(&steps), [(None, vec![]), (Some(1), vec!["thinking", "text"])]);
        assert_eq!((steps[1].parts[0].text.as_str(), steps[1].parts[1].text.as_str()), ("ab", "cd"));
        assert_eq!((steps[1].prompt, steps[1].generated), (Some(7), Some(3)));
    }

    #[test]
    fn a_retried_request_stays_in_its_turn() {
        let retry = json!({"event": "retry", "turn": 1, "error": "busy", "wait_ms": 1_000});
        let steps = told(vec![request(1), retry, request(1), output(1, "x"), request(2)]);
        assert_eq!(shape(&steps), [(None, vec![]), (Some(1), vec!["warning", "answer"]), (Some(2), vec![])]);
    }

    #[test]
    fn text_is_masked_and_cannot_hide_or_reorder_anything() {
        let warning = json!({"event": "warning", "message": "a\u{1b}[31m \u{202e}key hunter2"});
        let event: Record = serde_json::from_value({
            let mut event = warning;
            event
                .as_object_mut()
                .unwrap()
                .extend(json!({"v": 1, "seq": 0, "time_ms": 0}).as_object().unwrap().clone());
            event
        })
        .unwrap();
        let steps = steps(&[event], &|text| Cow::Owned(text.replace("hunter2", "[secret]")));
        assert_eq!(steps[0].parts[0].text, "a␛[31m <U+202E>key [secret]");
    }

    #[test]
    fn only_lines_that_differ_are_marked() {
        let mut out = String::new();
        changed_lines("a\nb\nc", "a\nx\ny\nc", &mut out);
        assert_eq!(out, " a\n-b\n+x\n+y\n c\n");
        out.clear();
        changed_lines("a\na", "a", &mut out);
        assert_eq!(out, " a\n-a\n");
    }
}
