//! Formats a batch event as a human-readable line. This module does no I/O.

use batch::{Change, Event};
use journal::Ending;
use preview::{Paint, Style};

use crate::figures::plural;
use crate::sanitize;

/// Maximum number of characters of a setting's value to show.
const VALUE: usize = 60;

/// Returns the line for an event.
pub(super) fn line(event: &Event<'_>, paint: Paint) -> String {
    match event {
        Event::Plan { tasks, done: 0, .. } => plural(*tasks as u64, "task"),
        Event::Plan { tasks, done, .. } => format!("{}, {done} already done", plural(*tasks as u64, "task")),
        Event::Kept { changes, tasks } => kept(changes, tasks.len()),
        Event::Changed { id } => {
            format!("{id}: the task has changed since it got its result; running it again")
        }
        Event::Failed { id } => format!("{id}: not verified so far; running it again"),
        Event::Waiting { wait } => format!(
            "the latest attempts failed because of the model, its server or this machine; next attempt in {} s",
            wait.as_secs()
        ),
        Event::CutOff { id, attempt } => format!("{id}: attempt {attempt} was interrupted; running it again"),
        Event::Started { id, attempt } => paint.paint(Style::Call, format_args!("→ {}", name(id, *attempt))),
        Event::Note { id: "", message } => sanitize::line(message).to_string(),
        Event::Note { id, message } => format!("{id}: {}", sanitize::line(message)),
        Event::Finished { result, again } => {
            let sign = match result.ending {
                Ending::Verified => paint.paint(Style::Good, "✓"),
                _ => paint.paint(Style::Bad, "✗"),
            };
            let again = if *again { "; retrying" } else { "" };
            let message = sanitize::short(&result.message, 120);
            let (label, seconds) = (result.ending.label(), result.seconds);
            format!("{sign} {}: {label}: {message} ({seconds:.1} s){again}", result.id)
        }
    }
}

/// Returns the task's id, followed by the attempt number unless this is the first attempt.
pub(super) fn name(id: &str, attempt: u32) -> String {
    if attempt == 1 { id.to_owned() } else { format!("{id} (attempt {attempt})") }
}

fn kept(changes: &[Change], tasks: usize) -> String {
    let value = |value: &Option<String>| {
        value.as_ref().map_or_else(|| "not set".into(), |value| sanitize::short(value, VALUE))
    };
    let changes = changes
        .iter()
        .map(|change| format!("{}: {} → {}", change.key, value(&change.old), value(&change.new)));
    let keep =
        if tasks == 1 { "keeps its result from a run with" } else { "keep their results from runs with" };
    format!(
        "{} {keep} different settings ({}); `--retry failed` reruns those that are not verified, and another \
         folder (`--out DIR`) reruns all tasks",
        plural(tasks as u64, "task"),
        changes.collect::<Vec<_>>().join(", ")
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changed_settings_are_named_with_both_values() {
        let change = |key: &str, old: Option<&str>, new: Option<&str>| Change {
            key: key.into(),
            old: old.map(Into::into),
            new: new.map(Into::into),
        };
        let changes = [change("model", Some("a"), Some("b\u{9b}31m")), change("verify", None, Some("make"))];
        let line = |tasks| line(&Event::Kept { changes: &changes, tasks }, Paint(false));
        insta::assert_snapshot!(line(&["one"]), @"1 task keeps its result from a run with different settings (model: a → b<U+009B>31m, verify: not set → make); `--retry failed` reruns those that are not verified, and another folder (`--out DIR`) reruns all tasks");
        assert!(line(&["one", "two"]).starts_with("2 tasks keep their results from runs with"));
    }

    #[test]
    fn the_number_of_an_attempt_after_the_first_is_shown() {
        let line = |attempt| line(&Event::Started { id: "one", attempt }, Paint(false));
        assert_eq!((line(1), line(2)), ("→ one".into(), "→ one (attempt 2)".into()));
    }
}
