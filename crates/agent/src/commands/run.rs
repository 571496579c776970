//! `agent run`: one task, shown while it goes on.

use std::io::{Read, Write};
use std::path::{Path, PathBuf};

use journal::{Budget, Diff, Ending, Event, Journal, Mode, Observer, Record, Store};

use workspace::History;

use crate::cli::{DryRun, Run};
use crate::commands::changes;
use crate::console;
use crate::context::Context;
use crate::dry_tree::DryTree;
use crate::exit::{Exit, Failure, Result};
use crate::figures::plural;
use crate::interrupt::{self, Signals};
use crate::masking;
use crate::model;
use crate::pager;
use crate::recovery;
use crate::render::{Detail, View};
use crate::sanitize;
use crate::session::{self, Done, Order};
use crate::waiting::Waits;
use preview::Format;

/// The longest task, in bytes: more cannot be a task for a context window.
const TASK_LIMIT: u64 = 256 * 1024;

/// Works on the task.
pub(crate) fn run(command: Run, context: &Context) -> Result<Exit> {
    let task = task(command.task.as_deref(), command.task_file.as_deref())?;
    let resolved = context.resolve(&command.settings.given)?;
    let settings = resolved.settings()?;
    model::choice(&settings)?; // a name that means nothing is misuse, and no session is begun for it
    let root = root(context)?;
    let store = context.store()?;
    let mut journal = store.create().map_err(|e| {
        Failure::from(e).hint("sessions need a place that can be written; AGENT_STATE_DIR names another")
    })?;
    journal.observe(observer(command.json, command.quiet, command.dry_run.is_some()));
    let own = context.own();
    // A dry run has a tree of its own.
    let taken = match command.dry_run {
        None => store.take_tree(&root, journal.id()).map(Some).map_err(Failure::from),
        Some(_) => Ok(None),
    };
    let dry = || command.dry_run.map(|_| DryTree::enter(&root, journal.folder())).transpose();
    let (dry, tree) = match taken.and_then(|taken| Ok((dry()?, taken))) {
        Ok(begun) => begun,
        Err(failure) => {
            let id = journal.id().to_owned();
            drop(journal);
            store.remove(&id)?; // it has not begun
            return Err(failure);
        }
    };
    if let Some(tree) = &tree {
        recovery::recover(&root, tree, &store, context)?;
    }
    let done = interrupt::block_on(async {
        let signals = Signals::take()?;
        let order = Order {
            task,
            message: None,
            settings,
            root: root.clone(),
            directory: context.directory.clone(),
            dry,
            plan_only: command.dry_run == Some(DryRun::Plan),
            chosen: resolved.chosen(),
            own,
            variables: std::env::vars_os().collect(),
            interrupt: signals.asked(),
            waits: Waits::for_people(command.quiet),
        };
        tokio::select! {
            done = session::run(order, &mut journal) => done,
            () = signals.insisted() => at_once(&mut journal, &store),
        }
    })?;
    // A reader that has gone away changes nothing about how the run ended.
    let _ = if command.json {
        Ok(())
    } else if command.dry_run.is_some() && (command.preview.is_some() || console::stdout_is_terminal()) {
        preview(&done, journal.folder(), command.preview, context)
    } else if console::stdout_is_terminal() {
        Ok(())
    } else {
        console::print(&done.shown).map_err(Failure::from)
    };
    if !command.quiet {
        let mode = if command.dry_run.is_some() { Mode::DryRun } else { Mode::Run };
        farewell(&done, mode, journal.id());
    }
    Ok(Exit::Run(done.report.ending))
}

/// What a dry run did, from what its session keeps: exactly what `agent apply` would bring.
fn preview(done: &Done, folder: &Path, form: Option<Format>, context: &Context) -> Result<()> {
    let changes = History::open(&folder.join(session::STATE))?.net(..)?;
    if changes.is_empty() {
        let patch = String::from_utf8_lossy(&done.shown);
        return pager::print(&preview::diff(&patch, console::stdout_paint()), context);
    }
    console::changes(&masking::shown(changes::shown(changes), &done.secrets), form, context)
}

/// The task, from wherever it was said to be.
fn task(given: Option<&str>, file: Option<&Path>) -> Result<String> {
    let mut text = String::new();
    match (given, file) {
        (_, Some(path)) => {
            let file = std::fs::File::open(path).map_err(|e| cannot_read(path, &e))?;
            file.take(TASK_LIMIT + 1).read_to_string(&mut text).map_err(|e| cannot_read(path, &e))?;
        }
        (Some("-"), None) => {
            let input = std::io::stdin().lock();
            input
                .take(TASK_LIMIT + 1)
                .read_to_string(&mut text)
                .map_err(|e| cannot_read(Path::new("standard input"), &e))?;
        }
        (given, None) => text.push_str(given.unwrap_or_default()),
    }
    if text.trim().is_empty() {
        return Err(Failure::misuse("the task is empty; say what is to be done"));
    }
    if text.len() as u64 > TASK_LIMIT {
        return Err(Failure::misuse(format!("the task is longer than {} KiB", TASK_LIMIT / 1024)));
    }
    Ok(text)
}

fn cannot_read(path: &Path, error: &std::io::Error) -> Failure {
    Failure::misuse(format!("cannot read the task from {}: {error}", path.display()))
}

/// The tree to work on: the repository, or the folder itself where there is none. A whole home or file system is nobody's project.
pub(crate) fn root(context: &Context) -> Result<PathBuf> {
    let root = context.tree()?;
    let home = context.environment.variables.get("HOME").and_then(|home| Path::new(home).canonicalize().ok());
    if root.parent().is_none() || (context.repository.is_none() && Some(root) == home.as_deref()) {
        return Err(Failure::misuse(format!("{} is no repository to work in", root.display()))
            .hint("start in the folder of a project, or name it with -C DIR"));
    }
    Ok(root.to_owned())
}

/// The view: records as JSON lines on standard output, or text on standard error.
pub(crate) fn observer(json: bool, quiet: bool, dry: bool) -> Observer {
    if json {
        let mut gone = false;
        return Box::new(move |record| gone = gone || print_record(record).is_err());
    }
    let detail = match (quiet, console::stderr_is_terminal()) {
        (true, _) => Detail::Quiet,
        (false, true) => Detail::Live,
        (false, false) => Detail::Plain,
    };
    let mut view = View::new(std::io::stderr(), console::stderr_paint(), detail);
    let on_terminal = console::stdout_is_terminal() && !dry;
    Box::new(move |record| {
        if let (true, Event::Finished { diff, .. }) = (on_terminal, &record.event) {
            let _ = console::print(preview::diff(&diff.patch, console::stdout_paint()));
        }
        view.show(record);
    })
}

fn print_record(record: &Record) -> std::io::Result<()> {
    let mut line = serde_json::to_vec(record)?;
    line.push(b'\n');
    let mut out = std::io::stdout().lock();
    out.write_all(&line)?;
    out.flush()
}

/// The second signal: what was under way has been dropped, and only the last event is missing. Its sums and files are those on record.
pub(crate) fn at_once(journal: &mut Journal, store: &Store) -> Result<Done> {
    let records = store.load(journal.id())?;
    let report = match records.last().map(|r| &r.event) {
        // The signal came when all was over.
        Some(Event::Finished { ending, message, diff, totals }) => planner::Report {
            ending: ending.clone(),
            message: message.clone(),
            diff: diff.clone(),
            totals: *totals,
        },
        _ => {
            let changed =
                History::open(&journal.folder().join(session::STATE)).and_then(|history| history.net(..));
            let changed = changed.unwrap_or_default();
            let files = changed.iter().map(|change| change.path.to_string()).collect();
            let (added, removed) = preview::counts(&changes::shown(changed));
            let report = planner::Report {
                ending: Ending::Interrupted,
                message: "stopped at once by a second signal; the changes so far are kept".to_owned(),
                diff: Diff { files, added, removed, ..Diff::default() },
                totals: planner::totals(&records),
            };
            journal.append(Event::Finished {
                ending: report.ending.clone(),
                message: report.message.clone(),
                diff: report.diff.clone(),
                totals: report.totals,
            })?;
            report
        }
    };
    Ok(Done { report, ..Done::nothing() })
}

/// What to do next.
pub(crate) fn farewell(done: &Done, mode: Mode, id: &str) {
    let mut lines = done.hints.clone();
    if done.secrets.count() > 0 {
        let secrets = plural(done.secrets.count() as u64, "secret");
        lines
            .push(format!("{secrets} kept from the model, the journal and the screen (see docs/secrets.md)"));
    }
    if done.shown != done.patch {
        lines.push(
            "a patch that is shown has placeholders in it; the session's changes.patch has the values".into(),
        );
    }
    if let Some(patch) = &done.patch_file {
        match mode {
            Mode::DryRun => {
                lines.push(format!("the patch: {}", patch.display()));
                lines.push(format!("apply it: agent apply {id}"));
            }
            Mode::Run => lines.push(format!("undo it: agent undo {id}")),
        }
    }
    match done.report.ending {
        _ if mode == Mode::DryRun => {}
        Ending::GaveUp => {
            lines.push("go on: run the task again; it begins with the files as they are now".into());
        }
        Ending::Budget { budget } => {
            let more = match budget {
                Budget::Turns => "--max-turns",
                Budget::Tokens => "--max-tokens",
                Budget::Time => "--max-seconds",
                Budget::Cost => "--max-cost",
            };
            lines.push(format!("go on: agent resume {id} {more} N, with a larger N"));
        }
        // What has not got as far as an answer is as well begun anew.
        ref e if e.can_go_on() && (done.report.totals.turns > 0 || *e == Ending::Interrupted) => {
            lines.push(format!("go on: agent resume {id}"));
        }
        _ => {}
    }
    lines.push(format!("look again: agent sessions show {id}"));
    for line in lines {
        console::say(sanitize::text(&line));
    }
}
