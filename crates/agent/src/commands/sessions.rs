//! `agent sessions list|show|export|rm`.

use journal::{Event, Mode, Store};
use serde_json::json;

use crate::cli::Sessions;
use crate::commands::{export, report};
use crate::console;
use crate::context::Context;
use crate::dry_tree;
use crate::exit::{Exit, Failure, Result};
use crate::figures::plural;
use crate::leftovers;
use crate::render::{Detail, View};
use crate::sanitize;

/// Runs a subcommand of `agent sessions`.
pub(crate) fn run(command: Sessions, context: &Context) -> Result<Exit> {
    let store = context.store()?;
    match command {
        Sessions::List { json } => list(&store, json),
        Sessions::Show { session, html: true, .. } => {
            console::print(report::session(context, &session.id)?)?;
            Ok(Exit::Success)
        }
        Sessions::Show { session, json, .. } => show(&store, &session.id, json),
        Sessions::Export { session, file, output, no_contents } => {
            export::run(context, &session.id, file.or(output).as_deref(), !no_contents)
        }
        Sessions::Rm { sessions } => remove(&store, &sessions),
    }
}

fn list(store: &Store, json: bool) -> Result<Exit> {
    let ids = store.ids()?;
    if ids.is_empty() && !json {
        console::say("no sessions");
    }
    for id in ids {
        let line = match store.summary(&id) {
            Ok(s) if json => json!({
                "id": s.id,
                "started_ms": s.started_ms,
                "task": s.task,
                "root": s.root,
                "mode": s.mode,
                "ending": s.ending,
                "totals": s.totals,
            })
            .to_string(),
            Ok(s) => {
                let ending = s.ending.as_ref().map_or("unfinished", |e| e.label());
                let turns = s.totals.map_or_else(String::new, |t| plural(u64::from(t.turns), "turn"));
                let mode = if s.mode == Mode::DryRun { "dry run: " } else { "" };
                format!("{}  {ending:<20}  {turns:>9}  {mode}{}", s.id, sanitize::short(&s.task, 60))
            }
            Err(e) if json => json!({"id": id, "error": e.to_string()}).to_string(),
            Err(e) => format!("{id}  {}", sanitize::line(&e.to_string())),
        };
        console::print(line + "\n")?;
    }
    Ok(Exit::Success)
}

fn show(store: &Store, id: &str, json: bool) -> Result<Exit> {
    let records = store.load(id)?;
    if json {
        let lines: serde_json::Result<Vec<String>> = records.iter().map(serde_json::to_string).collect();
        console::print(lines.map_err(Failure::refused)?.join("\n") + "\n")?;
        return Ok(Exit::Success);
    }
    let paint = console::stdout_paint();
    let mut text = Vec::new();
    let mut view = View::new(&mut text, paint, Detail::Live);
    let mut patch = None;
    for record in &records {
        view.show(record);
        match &record.event {
            Event::Session { task, root, .. } => view.task(task, root),
            Event::Finished(report) => patch = Some(&report.diff.patch),
            _ => {}
        }
    }
    let mut text = String::from_utf8_lossy(&text).into_owned();
    match patch {
        Some(patch) if !patch.is_empty() => text.push_str(&format!("\n{}", preview::diff(patch, paint))),
        Some(_) => {}
        None => text.push_str("unfinished: still running, or killed\n"),
    }
    console::print(text)?;
    Ok(Exit::Success)
}

fn remove(store: &Store, wanted: &[String]) -> Result<Exit> {
    // Look up all sessions before removing any, so that giving `last` twice refers to a single
    // session, and a typo does not remove anything.
    let mut ids = Vec::new();
    for id in wanted {
        let id = store.find(id)?;
        if !ids.contains(&id) {
            ids.push(id);
        }
    }
    for id in ids {
        let folder = store.folder(&id);
        let (layers, kept) = (dry_tree::layers(&folder), folder.join(leftovers::SANDBOX));
        if layers.exists() || kept.exists() {
            // A killed run can leave behind folders that even their owner cannot open. Only the
            // functions called here can remove them. If the session is still running, it holds the
            // lock, and `hold` fails.
            let _held = store.hold(&id)?;
            sandbox::overlay::remove(&layers)?;
            sandbox::remove_left(&kept)?;
        }
        store.remove(&id)?;
        console::say(format_args!("removed {id}"));
    }
    Ok(Exit::Success)
}
