//! `agent resume`: resumes an interrupted run, or continues a session with a new message.

use std::path::Path;

use journal::{Event, Mode, Record};

use crate::cli::Resume;
use crate::commands::run;
use crate::console;
use crate::context::Context;
use crate::exit::{Exit, Failure, Result};
use crate::images;
use crate::interrupt::{self, Signals};
use crate::layers::Environment;
use crate::output::Output;
use crate::profiles;
use crate::sanitize;
use crate::session::{self, Goal, Order};
use crate::settings::{Kind, recorded};
use crate::telemetry::Export;
use crate::waiting::Waits;

/// Resumes the session.
pub(crate) fn run(command: Resume, context: &Context) -> Result<Exit> {
    let store = context.store()?;
    if command.message.as_ref().is_some_and(|message| message.trim().is_empty()) {
        return Err(Failure::misuse("the message is empty; describe what to do, or omit it"));
    }
    profiles::check(&context.environment)?;
    let start = check(&store.load(&command.session)?, command.message.is_some(), command.fork)?; // before a fork copies anything
    let root = Path::new(&start.root).to_owned();
    if !root.is_dir() {
        return Err(Failure::misuse(format!("the repository {} no longer exists", root.display())));
    }
    let (mut journal, past) =
        if command.fork { store.fork(&command.session)? } else { store.open(&command.session)? };
    let lock = (!start.goal.question).then(|| store.take_tree(&root, journal.id())).transpose();
    let _lock = match lock {
        Ok(lock) => lock,
        Err(error) => {
            let id = journal.id().to_owned();
            drop(journal);
            if command.fork {
                store.remove(&id)?; // the unused copy
            }
            return Err(error.into());
        }
    };
    let given = with_recorded(command.settings.given, start.settings, &context.environment);
    let resolved = context.resolve(&given)?;
    let settings = resolved.settings()?;
    let export = Export::start(context, &settings, run::warning(command.quiet));
    journal.observe(run::observer(command.json, command.quiet, false));
    let images = images::load(&start.images, journal.folder())?;
    export.observe(&mut journal, None, &past);
    let done = interrupt::block_on(async {
        let signals = Signals::take()?;
        let directory =
            if context.directory.starts_with(&root) { context.directory.clone() } else { root.clone() };
        let order = Order {
            task: start.task,
            goal: start.goal,
            images,
            message: command.message,
            settings,
            root: root.clone(),
            directory,
            dry: None,
            setup: None,
            protected: Vec::new(),
            plan_only: false,
            chosen: Vec::new(),
            own: context.own(),
            variables: std::env::vars_os().collect(),
            interrupt: signals.asked(),
            waits: Waits::for_people(command.quiet),
            mcp_servers: Vec::new(),
            gate: None,
        };
        tokio::select! {
            done = session::resume(order, &mut journal, &past) => done,
            () = signals.insisted() => run::end_now(&mut journal, &store),
        }
    })?;
    let has_result = done.report.result.is_some();
    if !command.json && !has_result && !console::stdout_is_terminal() {
        // A closed pipe does not change the exit code.
        let _ = console::print(&done.shown);
    }
    if !command.quiet {
        run::print_next_steps(&done, Mode::Run, journal.id());
    }
    run::deliver(&done, &Output::default(), command.json)?;
    Ok(Exit::Run(done.report.ending))
}

/// Adds a session's recorded settings to `given`. Settings in `given` take precedence.
pub(crate) fn with_recorded(
    mut given: Vec<(&'static str, String)>,
    settings: Vec<(String, String)>,
    environment: &Environment,
) -> Vec<(&'static str, String)> {
    for (key, text) in settings {
        let (known, text) = match recorded(&key, text) {
            Ok(known) => known,
            Err(why) => {
                console::say(format_args!("warning: {}", sanitize::line(&why)));
                continue;
            }
        };
        // Environment variables override recorded settings, because a server's address may have
        // changed.
        let overridden = known.variables.iter().any(|name| environment.get(name).is_some());
        match given.iter_mut().find(|(key, _)| *key == known.key) {
            Some((_, new)) if known.kind == Kind::Variables => *new = format!("{text}\n{new}"),
            None if !overridden => given.push((known.key, text)),
            _ => {}
        }
    }
    given
}

/// The parts of the session's first event that a resumed run needs.
pub(crate) struct Start {
    pub(crate) task: String,
    pub(crate) goal: Goal,
    pub(crate) root: String,
    pub(crate) settings: Vec<(String, String)>,
    pub(crate) images: Vec<String>,
}

/// Checks that the session can be resumed. Dry runs and sessions with protected files cannot. A run
/// that was cut short, for example by a limit, does not need a message; a run that ended on its own
/// can only be continued with one.
pub(crate) fn check(past: &[Record], has_message: bool, fork: bool) -> Result<Start> {
    let Some(Event::Session { task, root, mode, settings, protected, output_schema, images, .. }) =
        past.first().map(|r| &r.event)
    else {
        return Err(Failure::misuse("the session is empty; run the task again"));
    };
    if *mode == Mode::DryRun {
        return Err(Failure::misuse("a dry run cannot be resumed; run it again"));
    }
    // The session may have changed protected files before it was killed.
    if !protected.is_empty() {
        return Err(Failure::misuse(
            "a session with protected files cannot be resumed, because their original state is unknown",
        )
        .hint("run the batch again: it repeats interrupted tasks"));
    }
    match past.last().map(|r| &r.event) {
        Some(Event::Finished(report)) if !has_message && !report.ending.can_resume() => {
            return Err(Failure::misuse(format!("the session has ended: {}", report.ending.label()))
                .hint("continue it with a message: agent resume SESSION \"what to do next\""));
        }
        Some(Event::Finished(_)) => {}
        // A half-finished edit must not belong to two sessions.
        _ if fork => {
            return Err(Failure::misuse("cannot fork a session that was killed or is still running")
                .hint("resume it first, without --fork"));
        }
        _ => {}
    }
    let goal = Goal { question: *mode == Mode::Ask, output_schema: output_schema.clone() };
    let (task, root, settings, images) = (task.clone(), root.clone(), settings.clone(), images.clone());
    Ok(Start { task, goal, root, settings, images })
}
