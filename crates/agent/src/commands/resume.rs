//! `agent resume`: resumes a run that was cut off, or continues a session with a new message.

use std::path::Path;

use journal::{Event, Mode, Record};

use crate::cli::Resume;
use crate::commands::run;
use crate::console;
use crate::context::Context;
use crate::exit::{Exit, Failure, Result};
use crate::interrupt::{self, Signals};
use crate::session::{self, Order};
use crate::settings::definition;
use crate::waiting::Waits;

/// Resumes the session.
pub(crate) fn run(command: Resume, context: &Context) -> Result<Exit> {
    let store = context.store()?;
    if command.message.as_ref().is_some_and(|message| message.trim().is_empty()) {
        return Err(Failure::misuse("the message is empty; say what to do, or leave it out"));
    }
    // Checked before anything is copied.
    let begun = begun(&store.load(&command.session)?, &command)?;
    let root = Path::new(&begun.root).to_owned();
    if !root.is_dir() {
        return Err(Failure::misuse(format!("the repository {} no longer exists", root.display())));
    }
    let (mut journal, past) =
        if command.fork { store.fork(&command.session)? } else { store.open(&command.session)? };
    let _taken = match store.take_tree(&root, journal.id()) {
        Ok(taken) => taken,
        Err(error) => {
            let id = journal.id().to_owned();
            drop(journal);
            if command.fork {
                store.remove(&id)?; // nothing has happened in it
            }
            return Err(error.into());
        }
    };
    let mut given: Vec<(&'static str, String)> = command.settings.given;
    for (key, text) in begun.settings {
        let Some(known) = definition(&key) else { continue };
        // Where a server listens may have changed: what is said of it now holds.
        let said_now = known.variables.iter().any(|name| context.environment.get(name).is_some());
        if !said_now && given.iter().all(|(key, _)| *key != known.key) {
            given.push((known.key, text));
        }
    }
    let resolved = context.resolve(&given)?;
    let settings = resolved.settings()?;
    journal.observe(run::observer(command.json, command.quiet, false));
    let done = interrupt::block_on(async {
        let signals = Signals::take()?;
        let directory =
            if context.directory.starts_with(&root) { context.directory.clone() } else { root.clone() };
        let order = Order {
            task: begun.task,
            message: command.message,
            settings,
            root: root.clone(),
            directory,
            dry: None,
            plan_only: false,
            chosen: Vec::new(),
            own: context.own(),
            variables: std::env::vars_os().collect(),
            interrupt: signals.asked(),
            waits: Waits::for_people(command.quiet),
        };
        tokio::select! {
            done = session::resume(order, &mut journal, &past) => done,
            () = signals.insisted() => run::at_once(&mut journal, &store),
        }
    })?;
    if !command.json && !console::stdout_is_terminal() {
        // A reader that has gone away changes nothing about how the run ended.
        let _ = console::print(&done.shown);
    }
    if !command.quiet {
        run::farewell(&done, Mode::Run, journal.id());
    }
    Ok(Exit::Run(done.report.ending))
}

/// How the session began.
struct Begun {
    task: String,
    root: String,
    settings: Vec<(String, String)>,
}

/// A run in the repository can be resumed until it ends by itself, and continued with a message
/// after that.
fn begun(past: &[Record], command: &Resume) -> Result<Begun> {
    let Some(Event::Session { task, root, mode, settings, .. }) = past.first().map(|r| &r.event) else {
        return Err(Failure::misuse("nothing of the session is on record; run the task again"));
    };
    if *mode == Mode::DryRun {
        return Err(Failure::misuse("a dry run cannot be resumed; run it again"));
    }
    match past.last().map(|r| &r.event) {
        Some(Event::Finished { ending, .. }) if command.message.is_none() && !ending.can_resume() => {
            return Err(Failure::misuse(format!("the session has ended: {}", ending.label()))
                .hint("continue it with a message: agent resume SESSION \"what to do next\""));
        }
        Some(Event::Finished { .. }) => {}
        // What it had half done belongs to one session only.
        _ if command.fork => {
            return Err(Failure::misuse("cannot fork a session that was killed or is still running")
                .hint("resume it first, without --fork"));
        }
        _ => {}
    }
    Ok(Begun { task: task.clone(), root: root.clone(), settings: settings.clone() })
}
