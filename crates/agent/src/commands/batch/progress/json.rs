//! Batch events as machine-readable JSON lines. `docs/batch.md` documents the format.

use std::path::Path;

use batch::{Event, Summary};
use serde_json::{Value, json};

use crate::console;
use crate::sanitize;

/// Prints objects, one per line. The batch continues even if nothing reads standard output.
pub(super) fn print(objects: impl IntoIterator<Item = Value>) {
    for object in objects {
        let _ = console::print(escaped(&object.to_string()) + "\n");
    }
}

/// Returns the objects for an event. An event about several tasks that keep their results becomes
/// one object per task.
pub(super) fn events(event: &Event<'_>) -> Vec<Value> {
    let rerun = |id: &str, why: &str| vec![json!({"event": "rerun", "id": id, "why": why})];
    match event {
        Event::Plan { tasks, done, verified } => {
            vec![json!({"event": "plan", "tasks": tasks, "done": done, "verified": verified})]
        }
        Event::Kept { changes, tasks } => {
            tasks.iter().map(|id| json!({"event": "kept", "id": id, "changes": changes})).collect()
        }
        Event::Changed { id } => rerun(id, "changed"),
        Event::Failed { id } => rerun(id, "not_verified"),
        Event::CutOff { id, .. } => rerun(id, "interrupted"),
        Event::Started { id, attempt } => vec![json!({"event": "started", "id": id, "attempt": attempt})],
        Event::Note { id, message } => {
            let id = (!id.is_empty()).then_some(id);
            vec![json!({"event": "note", "id": id, "message": message})]
        }
        Event::Waiting { wait } => vec![json!({"event": "waiting", "seconds": wait.as_secs()})],
        Event::Finished { result, again } => {
            let mut object = json!({"event": "finished", "again": again, "result": result});
            // The patch contains the real values of secrets.
            if let Some(diff) = object.pointer_mut("/result/diff").and_then(Value::as_object_mut) {
                diff.remove("patch");
            }
            vec![object]
        }
    }
}

/// Returns the object for a message about the whole batch.
pub(super) fn note(message: &str) -> Value {
    json!({"event": "note", "id": null, "message": message})
}

/// Returns the last object of a batch.
pub(super) fn summary(summary: &Summary, out: &Path) -> Value {
    let code = summary.exit_code();
    json!({"event": "summary", "out": out, "exit_code": code, "summary": summary})
}

/// Escapes characters that could harm a terminal but that JSON does not escape, such as U+009B.
/// Outside of strings, JSON contains only harmless characters.
fn escaped(json: &str) -> String {
    let mut out = String::with_capacity(json.len());
    for c in json.chars() {
        let mut buffer = [0; 4];
        let text: &str = c.encode_utf8(&mut buffer);
        if sanitize::line(text) == text {
            out.push(c);
        } else {
            c.encode_utf16(&mut [0; 2]).iter().for_each(|unit| out.push_str(&format!("\\u{unit:04x}")));
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn characters_that_could_harm_a_terminal_are_escaped_and_none_is_lost() {
        let evil = "\u{1b}[2J\n\u{7f}\u{9b}31m\u{202e}txet\u{e0041} π €";
        let object = note(evil);
        let line = escaped(&object.to_string());
        assert_eq!(sanitize::line(&line), line);
        assert!(line.contains(r"\u009b31m\u202etxet\udb40\udc41 π €"), "{line}");
        assert_eq!(serde_json::from_str::<Value>(&line).unwrap(), object);
    }
}
