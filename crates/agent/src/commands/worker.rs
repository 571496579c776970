//! `agent worker`: takes tasks from a queue and runs them, each in its own worktree and session.

use batch::Here;
use queue::{Queue, WorkerOptions};

use super::batch::{Agent, jobs, show};
use crate::cli::Worker;
use crate::console;
use crate::context::Context;
use crate::exit::{Exit, Failure, Result};
use crate::interrupt::{self, Signals};
use crate::other_model;
use crate::profiles;

/// Works until a signal arrives.
pub(crate) fn run(command: &Worker, context: &Context) -> Result<Exit> {
    // Report invalid flags and files once, before the first task.
    let settings = context.resolve_in(None, &command.settings.given)?.settings()?;
    other_model::check(&settings)?;
    profiles::load(&context.environment)?;
    let agent = Agent::new(context, &command.settings.given, &settings)?;
    let folder = match &command.folder {
        Some(folder) => context.directory.join(folder),
        None => context.state_dir()?.join("worker"),
    };
    interrupt::block_on(async {
        let signals = Signals::take()?;
        let jobs = tokio::select! {
            jobs = Box::pin(jobs::count(command.jobs, &settings)) => jobs,
            () = signals.wait() => return Ok(Exit::Success),
        };
        let options = WorkerOptions { folder, jobs, lease: command.lease };
        let address = command.login.at(&command.queue);
        let queue = tokio::select! {
            queue = Queue::connect(&address, |notice| console::say(notice)) => queue.map_err(Failure::refused)?,
            () = signals.wait() => return Ok(Exit::Success),
        };
        let here = Here::new(&agent);
        tokio::select! {
            worked = queue::work(&queue, &options, agent.sessions(), &here, signals.asked(), &show) => {
                worked.map_err(Failure::refused)?;
                console::say("stopped; unfinished tasks went back to the queue");
            }
            () = signals.insisted() => console::say("stopped immediately"),
        }
        Ok(Exit::Success)
    })
}
