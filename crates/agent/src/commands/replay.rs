//! `agent replay`: replays a session offline up to the first difference.

use std::path::Path;

use replay::{Bundle, Difference, Gathered, Kind, Source};

use serde_json::json;

use crate::cli::Replay;
use crate::console;
use crate::context::Context;
use crate::dry_tree::{self, DryTree};
use crate::exit::{Exit, Result};
use crate::figures::{plural, thousands};
use crate::interrupt::{self, Signals};
use crate::layers::{self, Environment};
use crate::replay::{Options, Outcome, gather, perform};
use crate::sanitize;
use crate::settings::{Group, Settings, definition, recorded};
use preview::Surface;

/// Maximum number of lines to show for a difference.
const MAX_LINES: usize = 60;
/// How much of each side to compare line by line, in characters.
const MAX_CHARS: usize = 1 << 20;

/// Replays the session.
pub(crate) fn run(command: Replay, context: &Context) -> Result<Exit> {
    let scratch = tempfile::Builder::new().prefix("agent-replay-").tempdir()?;
    let file = Some(Path::new(&command.session)).filter(|path| path.is_file());
    let (bundle, remembered) = match file {
        Some(path) => (Bundle::read(path)?, None),
        None => {
            let store = context.store()?;
            let id = store.find(&command.session)?;
            let records = store.load(&id)?;
            if command.recorded {
                (Bundle::bare(records), None)
            } else {
                let Gathered { bundle, remembered } = gather(&store, &id, records, scratch.path())?;
                (bundle, Some(remembered))
            }
        }
    };
    let mut notes = bundle.notes.clone();
    let source = match (command.recorded, command.run_commands) {
        (true, _) => Source::Record,
        (false, _) if !bundle.contents => {
            notes.push("the file contains no files from the repository, so the recorded tool results are used, as with --recorded".into());
            Source::Record
        }
        (false, true) => Source::Commands,
        (false, false) => Source::Files,
    };
    let settings = settings(&command, context, &bundle, file.is_some(), &mut notes)?;
    let folder = scratch.path().to_owned();
    let (dry, tree) = match remembered.filter(|_| source == Source::Commands) {
        Some(remembered) => {
            let root = remembered.now().root().to_owned();
            let dry = DryTree::enter(&root, &folder)?;
            let tree = match &dry {
                DryTree::Overlay(_) => root,
                DryTree::Copy { why } => {
                    notes.push(format!("the commands run in a copy of the repository; no overlay: {why}"));
                    let copy = folder.join("copy");
                    remembered.now().copy_to(&copy)?;
                    copy
                }
            };
            (Some(dry), Some((tree, remembered)))
        }
        None => (None, None),
    };
    let options =
        Options { source, settings, variables: std::env::vars_os().collect(), tree, folder: folder.clone() };
    let outcome = interrupt::block_on(async {
        let signals = Signals::take()?;
        tokio::select! {
            outcome = perform(bundle, options) => outcome.map(Some),
            () = signals.wait() => Ok(None),
        }
    });
    drop(dry);
    let layers = dry_tree::layers(&folder);
    if layers.exists() {
        sandbox::overlay::remove(&layers)?;
    }
    let Some(outcome) = outcome? else { return Ok(Exit::Run(journal::Ending::Interrupted)) };
    report(&outcome, &notes, command.json, context)?;
    Ok(if outcome.comparison.difference.is_none() { Exit::Success } else { Exit::Negative })
}

/// Returns the session's settings, overridden by the command line. With `--current-settings`, or if
/// the records do not start with the session's settings, returns the current settings instead.
fn settings(
    command: &Replay,
    context: &Context,
    bundle: &Bundle,
    foreign: bool,
    notes: &mut Vec<String>,
) -> Result<Settings> {
    let mut given = command.settings.given.clone();
    let now = context.resolve(&given)?;
    if command.current_settings {
        return now.settings();
    }
    let first = bundle.records.first().map(|r| &r.event);
    let Some(journal::Event::Session { settings, .. }) = first else { return now.settings() };
    // An exported file never grants permissions to commands. If no commands run,
    // allow_hosts only appears in the prompt and grants nothing.
    let prompt_only = |key: &str| key == "allow_hosts" && !command.run_commands;
    let safety = |key: &str| definition(key).is_some_and(|d| d.group == Group::Safety) && !prompt_only(key);
    let ours: Vec<(String, String)> =
        now.chosen().into_iter().filter(|(key, _)| foreign && safety(key)).collect();
    let theirs = settings.iter().filter(|(key, _)| !(foreign && safety(key))).cloned();
    for (key, text) in theirs.chain(ours) {
        match recorded(&key, text) {
            Ok((known, text)) if given.iter().all(|(key, _)| *key != known.key) => {
                given.push((known.key, text));
            }
            Ok(_) => {}
            Err(why) => notes.push(why),
        }
    }
    layers::resolve(&given, &Environment::default(), None)?.settings()
}

fn report(outcome: &Outcome, notes: &[String], json: bool, context: &Context) -> Result<()> {
    let Outcome { comparison, session, version, tree } = outcome;
    let this = env!("CARGO_PKG_VERSION");
    if json {
        let value = json!({
            "same": comparison.difference.is_none(),
            "session": session,
            "recorded_by": version,
            "replayed_by": this,
            "events": comparison.events,
            "requests": comparison.requests,
            "calls": comparison.calls,
            "files": tree.as_ref().ok(),
            "difference": comparison.difference,
            "notes": notes,
        });
        return Ok(console::print(format!("{value}\n"))?);
    }
    for note in notes {
        console::say(format_args!("note: {}", sanitize::line(note)));
    }
    let [events, requests, calls] =
        [(comparison.events, "event"), (comparison.requests, "request"), (comparison.calls, "call")]
            .map(|(n, word)| plural(n as u64, word));
    let text = match &comparison.difference {
        None => {
            let tree = match tree {
                Ok(0) => "no changed files".to_owned(),
                Ok(n) => plural(*n as u64, "changed file"),
                Err(why) => format!("tree not compared: {why}"),
            };
            format!("same: {events}, {requests}, {calls}, {tree}\n")
        }
        Some(difference) => {
            let surface = Surface {
                width: console::width(&context.environment.variables),
                paint: console::stdout_paint(),
            };
            let head = format!(
                "same before that: {events}; recorded by agent {}, replayed by agent {this}\n",
                sanitize::line(version)
            );
            show(difference, surface) + &head
        }
    };
    Ok(console::print(text)?)
}

/// Formats a difference. The first line contains its location and kind, the second one describes
/// what differs, and the rest are the differing lines.
fn show(difference: &Difference, surface: Surface) -> String {
    let place = match (difference.turn, difference.event) {
        _ if difference.kind == Kind::Tree => "at the end".to_owned(),
        (0, Some(event)) => format!("before turn 1, event {event}"),
        (turn, Some(event)) => format!("in turn {turn}, event {event}"),
        (turn, None) => format!("after turn {turn}"),
    };
    let mut out =
        format!("different {place}: {}\n{}\n", difference.kind.describe(), sanitize::line(&difference.what));
    let cut = |text: &str| text.char_indices().nth(MAX_CHARS).map_or(text.len(), |(at, _)| at);
    let with_newline = |text: &str| {
        let text = &text[..cut(text)];
        if text.is_empty() || text.ends_with('\n') { text.to_owned() } else { format!("{text}\n") }
    };
    let drawn = preview::texts(&with_newline(&difference.recorded), &with_newline(&difference.now), surface);
    let lines: Vec<&str> = drawn.lines().collect();
    out.extend(lines.iter().take(MAX_LINES).map(|line| format!("{line}\n")));
    if lines.len() > MAX_LINES {
        out.push_str(&format!("… {} more lines\n", lines.len() - MAX_LINES));
    }
    if drawn.is_empty() && difference.recorded != difference.now {
        let whole = cut(&difference.recorded) == difference.recorded.len();
        out.push_str(&match whole {
            true => "only the line break at the end differs\n".to_owned(),
            false => format!("the first {} characters are the same\n", thousands(MAX_CHARS as u64)),
        });
    }
    out
}

#[cfg(test)]
mod tests {
    use preview::Paint;

    use super::*;

    #[test]
    fn bug_texts_that_differ_late_were_reported_as_differing_in_a_line_break() {
        let said = |recorded: String, now: String| {
            let what = "the result of read_file".to_owned();
            let difference = Difference { kind: Kind::Tool, turn: 1, event: Some(2), what, recorded, now };
            let text = show(&difference, Surface { width: 80, paint: Paint(false) });
            text.lines().last().unwrap_or_default().to_owned()
        };
        assert_eq!(said("a\n".into(), "a".into()), "only the line break at the end differs");
        let long = "a\n".repeat(MAX_CHARS / 2);
        assert_eq!(
            said(format!("{long}b"), format!("{long}c")),
            "the first 1,048,576 characters are the same"
        );
    }
}
