//! `agent run` and `agent ask`: run one task, or answer one question, and show progress.

use std::io::Write;
use std::path::{Path, PathBuf};

use journal::{Budget, Diff, Ending, Event, Journal, Mode, Observer, Record, Report, Store};

use workspace::History;

use crate::cli::{Ask, DryRun, Run};
use crate::commands::changes;
use crate::commit::Commit;
use crate::console;
use crate::context::Context;
use crate::dry_tree::DryTree;
use crate::exit::{Exit, Failure, Result};
use crate::figures::plural;
use crate::flags::RunFlags;
use crate::images;
use crate::interrupt::{self, Signals};
use crate::masking;
use crate::other_model;
use crate::output::Output;
use crate::pager;
use crate::profiles;
use crate::recovery;
use crate::render::{Detail, View};
use crate::sanitize;
use crate::session::{self, Done, Goal, Order};
use crate::task;
use crate::telemetry::Export;
use crate::waiting::Waits;
use crate::worktree::Worktree;
use preview::Format;

/// Runs the task.
pub(crate) fn run(command: Run, context: &Context) -> Result<Exit> {
    start(command, false, context)
}

/// Answers the question.
pub(crate) fn ask(command: Ask, context: &Context) -> Result<Exit> {
    let Ask { question, output_schema, output, json, quiet, settings } = command;
    let (task, settings) = (Some(question), RunFlags { given: settings.given });
    let command = Run { task, output_schema, output, json, quiet, settings, ..Run::default() };
    start(command, true, context)
}

fn start(command: Run, question: bool, context: &Context) -> Result<Exit> {
    let output = Output::new(command.output_schema.as_deref(), command.output)?;
    let goal = Goal { question, output_schema: output.schema.clone() };
    let (template, values, issue) = (command.template, command.values, command.issue);
    let source = task::Source { text: command.task, file: command.task_file, template, values, issue };
    let task = source.read(context)?;
    let pictures = images::read(&command.images)?;
    let resolved = context.resolve(&command.settings.given)?;
    let settings = resolved.settings()?;
    // Check these before creating the session, so that an invalid name or profile does not leave an
    // empty session behind.
    other_model::check(&settings)?;
    profiles::check(&context.environment)?;
    let mut root = root(context)?;
    let mut directory = context.directory.clone();
    let store = context.store()?;
    let mut journal = store.create().map_err(|e| {
        Failure::from(e).hint("sessions need a writable folder; set another one with AGENT_STATE_DIR")
    })?;
    let created = command.worktree.map(|name| {
        let name = if name.is_empty() { journal.id() } else { &name };
        Worktree::create(&root, name)
    });
    let mut worktree = match created.transpose() {
        Ok(worktree) => worktree,
        Err(failure) => return Err(abandon(failure, journal, &store)),
    };
    if let Some(worktree) = &worktree {
        let inside = directory.strip_prefix(&root).map(Path::to_owned).unwrap_or_default();
        (root, directory) = (worktree.root.clone(), worktree.root.join(inside));
        console::say(format_args!("worktree {} on branch {}", worktree.root.display(), worktree.branch));
    }
    let prepared = command.commit.then(|| Commit::prepare(&root, &task.title, &settings));
    let commit = match prepared.transpose() {
        Ok(commit) => commit,
        Err(failure) => return Err(abandon(failure, journal, &store)),
    };
    journal.observe(observer(
        command.json,
        command.quiet,
        command.dry_run.is_some() || output.schema.is_some(),
    ));
    let own = context.own();
    // A dry run has its own tree, and a question changes nothing, so neither needs a lock.
    let lock = match command.dry_run.is_some() || question {
        false => store.take_tree(&root, journal.id()).map(Some).map_err(Failure::from),
        true => Ok(None),
    };
    let dry = || command.dry_run.map(|_| DryTree::enter(&root, journal.folder())).transpose();
    let store_images = || images::store(pictures, journal.folder());
    let (dry, tree, images) = match lock.and_then(|lock| Ok((dry()?, lock, store_images()?))) {
        Ok(trees) => trees,
        Err(failure) => return Err(abandon(failure, journal, &store)),
    };
    if let Some(tree) = &tree {
        recovery::recover(&root, tree, &store, context)?;
    }
    // A dry run must enter its tree while this process has only one thread, so the exporter starts
    // after that.
    let export = Export::start(context, &settings, warning(command.quiet));
    export.observe(&mut journal, None, &[]);
    let done = interrupt::block_on(async {
        let signals = Signals::take()?;
        let order = Order {
            task: task.text,
            goal,
            images,
            message: None,
            settings,
            root: root.clone(),
            directory,
            dry,
            setup: None,
            protected: Vec::new(),
            plan_only: command.dry_run == Some(DryRun::Plan),
            chosen: resolved.chosen(),
            own,
            variables: std::env::vars_os().collect(),
            interrupt: signals.asked(),
            waits: Waits::for_people(command.quiet),
            mcp_servers: Vec::new(),
            gate: None,
        };
        tokio::select! {
            done = session::run(order, &mut journal) => done,
            () = signals.insisted() => end_now(&mut journal, &store),
        }
    })?;
    // A closed pipe does not change the exit code.
    let _ = if command.json || question || output.schema.is_some() {
        Ok(()) // a result is printed last
    } else if command.dry_run.is_some() && (command.preview.is_some() || console::stdout_is_terminal()) {
        preview(&done, journal.folder(), command.preview, context)
    } else if console::stdout_is_terminal() {
        Ok(())
    } else {
        console::print(&done.shown).map_err(Failure::from)
    };
    if !command.quiet {
        let mode = match command.dry_run {
            _ if question => Mode::Ask,
            Some(_) => Mode::DryRun,
            None => Mode::Run,
        };
        print_next_steps(&done, mode, journal.id());
    }
    if let Some(commit) = commit {
        console::say(sanitize::text(&commit.make(&done.report, &done.secrets)));
    }
    if let Some(worktree) = &mut worktree
        && (worth_resuming(&done.report) || !done.report.diff.files.is_empty())
    {
        worktree.keep();
    }
    deliver(&done, &output, command.json)?;
    Ok(Exit::Run(done.report.ending))
}

/// Removes the empty session of a run that could not start. Returns `failure`, or a new failure if
/// the session cannot be removed.
fn abandon(failure: Failure, journal: Journal, store: &Store) -> Failure {
    let id = journal.id().to_owned();
    drop(journal);
    store.remove(&id).map_or_else(Failure::from, |()| failure)
}

/// Prints the result that the model returned, or writes it to a file. With `json`, the events
/// already contain the result, so it is not printed.
pub(crate) fn deliver(done: &Done, output: &Output, json: bool) -> Result<()> {
    match &done.report.result {
        Some(result) if !json || output.has_file() => output.write(result),
        _ => Ok(()),
    }
}

/// Shows the changes that a dry run's session recorded, which are the ones that `agent apply` would
/// apply.
fn preview(done: &Done, folder: &Path, form: Option<Format>, context: &Context) -> Result<()> {
    let changes = History::open(&folder.join(session::STATE))?.net(..)?;
    if changes.is_empty() {
        let patch = String::from_utf8_lossy(&done.shown);
        return pager::print(&preview::diff(&patch, console::stdout_paint()), context);
    }
    console::changes(&masking::shown(changes::shown(changes), &done.secrets), form, context)
}

/// Returns the tree to work in: the repository, or the current folder if it is not in a repository.
/// Refuses the home folder and the root of the file system.
pub(crate) fn root(context: &Context) -> Result<PathBuf> {
    let root = context.tree()?;
    let home = context.environment.variables.get("HOME").and_then(|home| Path::new(home).canonicalize().ok());
    if root.parent().is_none() || (context.repository.is_none() && Some(root) == home.as_deref()) {
        return Err(Failure::misuse(format!("{} is not a project folder", root.display()))
            .hint("run the agent in a project folder, or specify one with -C DIR"));
    }
    Ok(root.to_owned())
}

/// Returns an observer that shows a run: as JSON lines on standard output, or as text on standard
/// error.
pub(crate) fn observer(json: bool, quiet: bool, dry: bool) -> Observer {
    if json {
        let mut closed = false;
        return Box::new(move |record| closed = closed || print_record(record).is_err());
    }
    let detail = match (quiet, console::stderr_is_terminal()) {
        (true, _) => Detail::Quiet,
        (false, true) => Detail::Live,
        (false, false) => Detail::Plain,
    };
    let mut view = View::new(std::io::stderr(), console::stderr_paint(), detail);
    let on_terminal = console::stdout_is_terminal() && !dry;
    Box::new(move |record| {
        if let (true, Event::Finished(report)) = (on_terminal, &record.event) {
            let _ = console::print(preview::diff(&report.diff.patch, console::stdout_paint()));
        }
        view.show(record);
    })
}

/// Returns a function that shows a warning, unless the run is quiet.
pub(crate) fn warning(quiet: bool) -> impl Fn(&str) + Send + Sync + 'static {
    move |message| {
        if !quiet {
            console::say(format_args!("warning: {message}"));
        }
    }
}

fn print_record(record: &Record) -> std::io::Result<()> {
    let mut line = serde_json::to_vec(record)?;
    line.push(b'\n');
    let mut out = std::io::stdout().lock();
    out.write_all(&line)?;
    out.flush()
}

/// Ends a run after the second signal: journals a final event with the totals and the changed files
/// so far.
pub(crate) fn end_now(journal: &mut Journal, store: &Store) -> Result<Done> {
    let records = store.load(journal.id())?;
    let report = match records.last().map(|r| &r.event) {
        // The run had already ended.
        Some(Event::Finished(report)) => report.clone(),
        _ => {
            let changed =
                History::open(&journal.folder().join(session::STATE)).and_then(|history| history.net(..));
            let changed = changed.unwrap_or_default();
            let files = changed.iter().map(|change| change.path.to_string()).collect();
            let (added, removed) = preview::counts(&changes::shown(changed));
            let (totals, models) = planner::totals(&records);
            let report = Report {
                ending: Ending::Interrupted,
                message: "stopped immediately by a second signal; the changes so far are kept".to_owned(),
                diff: Diff { files, added, removed, ..Diff::default() },
                totals,
                models,
                result: None,
            };
            journal.append(Event::Finished(report.clone()))?;
            report
        }
    };
    Ok(Done { report, ..Done::nothing() })
}

/// Returns whether it is worth resuming a run that ended like this. A run that never got an answer
/// can simply be started again.
fn worth_resuming(report: &Report) -> bool {
    report.ending.can_resume() && (report.totals.turns > 0 || report.ending == Ending::Interrupted)
}

/// Prints what the user can do next.
pub(crate) fn print_next_steps(done: &Done, mode: Mode, id: &str) {
    let mut lines = done.hints.clone();
    if done.secrets.masked_count() > 0 {
        let secrets = plural(done.secrets.masked_count() as u64, "secret");
        lines.push(format!(
            "{secrets} hidden from the model, the journal and the screen (see docs/secrets.md)"
        ));
    }
    if done.shown != done.patch {
        lines.push("the patch is shown with placeholders; the session's changes.patch has the values".into());
    }
    if let Some(patch) = &done.patch_file {
        match mode {
            Mode::DryRun => {
                lines.push(format!("patch: {}", patch.display()));
                lines.push(format!("apply: agent apply {id}"));
            }
            Mode::Run | Mode::Ask => lines.push(format!("undo: agent undo {id}")),
        }
    }
    match done.report.ending {
        _ if mode == Mode::DryRun => {}
        Ending::GaveUp => {
            lines.push("retry: run the task again; it starts from the current files".into());
        }
        Ending::Budget { budget } => {
            let more = match budget {
                Budget::Turns => "--max-turns",
                Budget::Tokens => "--max-tokens",
                Budget::Time => "--max-seconds",
                Budget::Cost => "--max-cost",
            };
            lines.push(format!("resume: agent resume {id} {more} N, with a larger N"));
        }
        _ if worth_resuming(&done.report) => {
            lines.push(format!("resume: agent resume {id}"));
        }
        _ => {}
    }
    lines.push(format!("show: agent sessions show {id}"));
    for line in lines {
        console::say(sanitize::text(&line));
    }
}
