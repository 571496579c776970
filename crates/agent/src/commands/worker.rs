//! `agent worker`: takes tasks from a queue and runs them, each in its own worktree and session.

use batch::{Event, Here};
use queue::{Queue, WorkerOptions};

use super::batch::progress::Display;
use super::batch::{Agent, jobs};
use crate::cli::Worker;
use crate::context::Context;
use crate::exit::{Exit, Result};
use crate::interrupt::{self, Signals};
use crate::other_model;
use crate::profiles;

/// Runs the worker until a signal arrives.
pub(crate) fn run(command: &Worker, context: &Context) -> Result<Exit> {
    // Report invalid flags and files once, before the first task.
    let settings = context.resolve_in(None, &command.settings.given)?.settings()?;
    other_model::check(&settings)?;
    profiles::check(&context.environment)?;
    let display = Display::new(false);
    let agent = Agent::new(context, &command.settings.given, &settings, &display)?;
    let folder = match &command.folder {
        Some(folder) => context.directory.join(folder),
        None => context.state_dir()?.join("worker"),
    };
    interrupt::block_on(async {
        let signals = Signals::take()?;
        let jobs = tokio::select! {
            jobs = Box::pin(jobs::count(command.jobs, &settings, None, &display)) => jobs,
            () = signals.wait() => return Ok(Exit::Success),
        };
        let options = WorkerOptions { folder, jobs, lease: command.lease };
        let (address, shown) = (command.login.at(&command.queue), display.clone());
        let queue = tokio::select! {
            queue = Queue::connect(&address, None, move |notice| shown.note(notice)) => queue?,
            () = signals.wait() => return Ok(Exit::Success),
        };
        let here = Here::new(&agent);
        let show = |event: Event<'_>| display.show(&event);
        let ended = display.during(async {
            tokio::select! {
                worked = queue::work(&queue, &options, agent.sessions(), &here, signals.asked(), &show) => Some(worked),
                () = signals.insisted() => None,
            }
        });
        match Box::pin(ended).await.transpose()? {
            Some(()) => display.note("stopped; unfinished tasks went back to the queue"),
            None => display.note("stopped immediately"),
        }
        Ok(Exit::Success)
    })
}
