//! `agent resume`: goes on with a run that was killed, interrupted, or left by its server.

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

/// Goes on with the session.
pub(crate) fn run(command: Resume, context: &Context) -> Result<Exit> {
    let store = context.store()?;
    let (mut journal, past) = store.open(&command.session)?;
    let begun = begun(&past)?;
    let root = Path::new(&begun.root).to_owned();
    if !root.is_dir() {
        return Err(Failure::misuse(format!("{} is not there any more", root.display())));
    }
    let _taken = store.take_tree(&root, journal.id())?;
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

/// Only a run in the repository that has not come to an end of its own can go on.
fn begun(past: &[Record]) -> Result<Begun> {
    let Some(Event::Session { task, root, mode, settings, .. }) = past.first().map(|r| &r.event) else {
        return Err(Failure::misuse(
            "the session has not begun: nothing of it is on record; run the task again",
        ));
    };
    if *mode == Mode::DryRun {
        return Err(Failure::misuse("a dry run leaves nothing behind to go on with; run it again"));
    }
    if let Some(Event::Finished { ending, .. }) = past.last().map(|r| &r.event)
        && !ending.can_go_on()
    {
        return Err(Failure::misuse(format!("the session has ended: {}", ending.label()))
            .hint("look at it with agent sessions show; for more, run another task"));
    }
    Ok(Begun { task: task.clone(), root: root.clone(), settings: settings.clone() })
}
