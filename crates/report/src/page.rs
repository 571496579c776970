//! The HTML page: a single file that loads nothing else. The data is JSON in elements that are not
//! executed, and a Content-Security-Policy allows only the page's own script and style.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use batch::{Folder, Row, State};
use journal::{Ending, Event, Record, Report};
use preview::sanitize;
use serde::Serialize;
use serde_json::json;
use sha2::{Digest as _, Sha256};

use crate::pack::pack;
use crate::trajectory::{Step, steps};
use crate::{Mask, outcome};

const TEMPLATE: &str = include_str!("viewer.html");
const STYLE: &str = include_str!("viewer.css");
const SCRIPT: &str = include_str!("viewer.js");

/// The maximum total length, in characters, of all trajectories on a page. With this limit, a
/// report on 1,000 tasks stays under 20 MB.
const TRAJECTORIES: usize = 17_000_000;
/// Each trajectory may have at least this many characters, so that the trajectories of large
/// batches stay readable. Their total length may then exceed [`TRAJECTORIES`].
const SMALLEST_SHARE: usize = 6_000;
/// The maximum length of a message in the table, in characters.
const MESSAGE: usize = 500;

/// A task in the page's data.
#[derive(Serialize)]
struct Task {
    id: String,
    ending: String,
    tone: &'static str,
    flaky: bool,
    turns: u32,
    tokens: u64,
    seconds: f64,
    cost: Option<f64>,
    added: u64,
    removed: u64,
    message: String,
    attempts: Vec<Attempt>,
}

/// A finished attempt.
#[derive(Serialize)]
struct Attempt {
    number: u32,
    ending: &'static str,
    tone: &'static str,
    /// The index of the trajectory on the page.
    trajectory: Option<usize>,
    /// Why the attempt has no trajectory; empty if it has one.
    note: String,
}

/// Returns the page for a batch. `session` returns the steps of a session, or the reason why they
/// cannot be shown.
pub fn batch_page(
    title: &str,
    folder: &Folder,
    mask: Mask<'_>,
    session: &mut dyn FnMut(&str) -> Result<Vec<Step>, String>,
) -> String {
    let attempts = || folder.tasks.iter().flat_map(|task| &task.attempts);
    let share = share(attempts().filter(|attempt| attempt.session.is_some()).count());
    let mut trajectories = Vec::new();
    let mut show = |id: &Option<String>| {
        let Some(id) = id else { return (None, "no session was started".to_owned()) };
        match session(id) {
            Ok(steps) => {
                trajectories.push(pack(&steps, share));
                (Some(trajectories.len() - 1), String::new())
            }
            Err(why) => (None, sanitize::short(&mask(&why), MESSAGE)),
        }
    };
    let mut task = |state: &State| {
        let attempts = state.attempts.iter().map(|attempt| {
            let (trajectory, note) = show(&attempt.session);
            let (ending, tone) = (attempt.ending.label(), outcome::tone(Some(&attempt.ending)));
            Attempt { number: attempt.attempt, ending, tone, trajectory, note }
        });
        let attempts = attempts.collect();
        Task { flaky: state.is_flaky(), attempts, ..Task::new(&state.row, mask) }
    };
    let tasks: Vec<Task> = folder.tasks.iter().map(&mut task).collect();
    let totals = outcome::totals(attempts());
    let data = json!({"kind": "batch", "title": sanitize::line(title), "totals": totals, "tasks": tasks});
    html(title, &data, &trajectories)
}

/// Returns the page for a single session.
#[must_use]
pub fn session_page(id: &str, records: &[Record], mask: Mask<'_>) -> String {
    let report = records.iter().rev().find_map(|record| match &record.event {
        Event::Finished(report) => Some(report.clone()),
        _ => None,
    });
    let ending = report.as_ref().map(|report| report.ending.clone());
    let Report { message, diff, totals, .. } =
        report.unwrap_or_else(|| Report::new(Ending::Interrupted, "still running, or killed"));
    let row = Row {
        id: id.to_owned(),
        infrastructure: false,
        attempts: 1,
        added: diff.added,
        removed: diff.removed,
        turns: totals.turns,
        tokens: totals.prompt_tokens.saturating_add(totals.generated_tokens),
        cost: totals.cost,
        seconds: totals.ms as f64 / 1_000.0,
        session: Some(id.to_owned()),
        message,
        ending,
    };
    let mut task = Task::new(&row, mask);
    if row.ending.is_none() {
        task.ending = "unfinished".into();
    }
    task.attempts.push(Attempt {
        number: 1,
        ending: row.label(),
        tone: task.tone,
        trajectory: Some(0),
        note: String::new(),
    });
    let title = format!("session {id}");
    let data = json!({"kind": "session", "title": title, "tasks": [task]});
    html(&title, &data, &[pack(&steps(records, mask), share(1))])
}

impl Task {
    fn new(row: &Row, mask: Mask<'_>) -> Self {
        Self {
            id: sanitize::line(&row.id).into_owned(),
            ending: row.label().to_owned(),
            tone: outcome::tone(row.ending.as_ref()),
            flaky: false,
            turns: row.turns,
            tokens: row.tokens,
            seconds: (row.seconds * 10.0).round() / 10.0,
            cost: row.cost,
            added: row.added,
            removed: row.removed,
            message: sanitize::short(&mask(row.message.trim()), MESSAGE),
            attempts: Vec::new(),
        }
    }
}

fn share(trajectories: usize) -> usize {
    (TRAJECTORIES / trajectories.max(1)).max(SMALLEST_SHARE)
}

fn html(title: &str, data: &serde_json::Value, trajectories: &[String]) -> String {
    let hash = |text: &str| format!("'sha256-{}'", STANDARD.encode(Sha256::digest(text)));
    let policy = format!(
        "default-src 'none'; script-src {}; style-src {}; base-uri 'none'; form-action 'none'",
        hash(SCRIPT),
        hash(STYLE)
    );
    let element = |(n, packed): (usize, &String)| {
        format!("<script type=\"text/plain\" id=\"trajectory-{n}\">{packed}</script>\n")
    };
    let trajectories: String = trajectories.iter().enumerate().map(element).collect();
    fill(
        TEMPLATE,
        &[
            ("policy", &policy),
            ("style", STYLE),
            ("script", SCRIPT),
            ("title", &escaped(&sanitize::line(title))),
            ("data", &inert(&data.to_string())),
            ("trajectories", &trajectories),
        ],
    )
}

/// Replaces each `{{name}}` in a template. Values are not themselves searched for placeholders, so
/// they may contain anything.
fn fill(template: &str, values: &[(&str, &str)]) -> String {
    let mut out = String::new();
    let mut rest = template;
    while let Some((before, after)) = rest.split_once("{{") {
        out.push_str(before);
        let Some((name, behind)) = after.split_once("}}") else { break };
        out.push_str(values.iter().find(|(known, _)| *known == name).map_or("", |(_, value)| value));
        rest = behind;
    }
    out.push_str(rest);
    out
}

/// Escapes text for use in an HTML element.
fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

/// Escapes the characters in JSON that have a special meaning in HTML. In JSON, these characters
/// occur only in strings, where an escape sequence has the same meaning.
fn inert(json: &str) -> String {
    json.replace('&', "\\u0026").replace('<', "\\u003c").replace('>', "\\u003e")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_not_searched_for_placeholders() {
        assert_eq!(fill("<{{a}}|{{b}}>", &[("a", "{{b}}"), ("b", "x")]), "<{{b}}|x>");
    }

    #[test]
    fn the_template_has_a_place_for_every_value() {
        let seen = html("a & b", &json!({"x": "</script><!--"}), &["QUJD".to_owned()]);
        assert!(!seen.contains("{{"));
        assert!(seen.contains("<title>a &amp; b"), "{}", &seen[..600]);
        assert!(seen.contains(r#"{"x":"\u003c/script\u003e\u003c!--"}"#));
        assert!(seen.contains("<script type=\"text/plain\" id=\"trajectory-0\">QUJD</script>"));
    }

    #[test]
    fn the_page_has_no_external_part() {
        let page = html("t", &json!({}), &[]);
        for word in ["http://", "https://", "src=", "@import", "url(", "innerHTML", "eval("] {
            let page = page.replace("http://www.w3.org/2000/svg", "");
            assert!(!page.contains(word), "{word}");
        }
        assert!(page.contains("default-src 'none'; script-src 'sha256-"));
        assert!(!SCRIPT.contains("</script") && !STYLE.contains("</style"));
    }
}
